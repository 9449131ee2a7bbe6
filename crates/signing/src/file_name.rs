//! Names of signed files: plain relative paths that stay in the model's folder.

/// The longest name.
const BYTES_MAX: usize = 1024;
/// Most folders and names in one path.
const PARTS_MAX: usize = 32;

/// What is wrong with a name, in words that go on from it; nothing if it is plain.
pub(crate) fn fault(name: &str) -> Option<&'static str> {
    if name.len() > BYTES_MAX {
        return Some("has a name of more than 1024 bytes");
    }
    if name.starts_with('/') {
        return Some("is an absolute path");
    }
    if name.contains(|letter: char| letter == '\\' || letter.is_control()) {
        return Some("has a backslash or a control character in its name");
    }
    if name.split('/').count() > PARTS_MAX {
        return Some("lies more than 31 folders deep");
    }
    let is_odd = |part: &str| matches!(part, "" | "." | "..");
    let odd = name.split('/').any(is_odd);
    odd.then_some("has an empty part, \".\" or \"..\" in its path")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_relative_paths_are_taken() {
        for name in [
            "a",
            "model-00001-of-00002.safetensors",
            "1_Pooling/config.json",
            "..a/b..",
            "é",
            "a b",
        ] {
            assert_eq!(fault(name), None, "{name}");
        }
        assert_eq!(fault(&"a".repeat(1024)), None);
        assert_eq!(fault(&vec!["a"; 32].join("/")), None);
    }

    #[test]
    fn paths_that_could_leave_the_folder_are_not() {
        let long = "a".repeat(1025);
        let deep = vec!["a"; 33].join("/");
        let wrong = [
            "",
            "/",
            "/etc/passwd",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/..",
            "./a",
            "a//b",
            "a/",
            "a\\b",
            "C:\\a",
            "a\0",
            "a\nb",
            "a\u{85}",
            &long,
            &deep,
        ];
        for name in wrong {
            assert!(fault(name).is_some(), "{name:?}");
        }
    }
}
