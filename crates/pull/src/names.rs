//! Names that others chose.

/// Longest path within a repository.
const PATH_BYTES_MAX: usize = 512;
/// Longest text of others that is shown.
const SHOWN_CHARACTERS_MAX: usize = 120;

/// Whether a name that a hub gave can become a path within a model's directory: relative, without steps upwards, and
/// the same on every system.
pub(crate) fn is_plain_path(name: &str) -> bool {
    let is_plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    name.len() <= PATH_BYTES_MAX
        && !name
            .chars()
            .any(|letter| letter.is_control() || letter == '\\')
        && name.split('/').all(is_plain)
}

/// The name as a part of an address: only letters, digits and a few marks stand for themselves.
pub(crate) fn escaped(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// A text of others as it can be shown on a terminal: short, and without control characters.
pub(crate) fn shown(text: &str) -> String {
    let printable = text.chars().filter(|letter| !letter.is_control());
    printable.take(SHOWN_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        for name in [
            "config.json",
            "1_Pooling/config.json",
            "a b/..c",
            "...",
            "-x",
        ] {
            assert!(is_plain_path(name), "{name}");
        }
        let long = "a".repeat(PATH_BYTES_MAX + 1);
        for name in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            ".",
            "a\\b",
            "a\nb",
            &long,
        ] {
            assert!(!is_plain_path(name), "{name}");
        }
    }

    #[test]
    fn addresses_hold_any_name() {
        assert_eq!(escaped("a b/c#d?e%f.json"), "a%20b/c%23d%3Fe%25f.json");
        assert_eq!(escaped("ü"), "%C3%BC");
    }
}
