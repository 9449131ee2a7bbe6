//! Quantities as people write them: `8GiB`, `90s`, a JSON object or list.

use std::time::Duration;

use serde::Deserialize;

/// Bytes with an optional unit: `1073741824`, `512MiB`, `8G`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err("the unit must be B, KiB, MiB, GiB, TiB, kB, MB, GB or TB".into()),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "expected a number such as 8GiB".to_owned())?;
    let bytes = number * factor as f64;
    if !(0.0..=1e18).contains(&bytes) {
        return Err("out of range".into());
    }
    Ok(bytes as u64)
}

/// A time with an optional unit: `90`, `90s`, `1500ms`, `2m`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("the unit must be ms, s, m or h".into()),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "expected a time such as 90s".to_owned())?;
    Duration::try_from_secs_f64(number * factor).map_err(|error| error.to_string())
}

/// A JSON object.
pub(crate) fn parse_json_object(text: &str) -> Result<serde_json::Value, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if value.is_object() {
        Ok(value)
    } else {
        Err("expected a JSON object".into())
    }
}

/// Texts, as vLLM's flags take them: `["a", "b"]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct JsonList(pub(crate) Vec<String>);

/// A JSON list of texts.
pub(crate) fn parse_json_list(text: &str) -> Result<JsonList, String> {
    serde_json::from_str(text)
        .map_err(|_| "expected a JSON list of texts, such as '[\"a\", \"b\"]'".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_people_write_them() {
        assert_eq!(parse_bytes("512MiB"), Ok(512 << 20));
        assert_eq!(parse_bytes("1.5 GiB"), Ok(3 << 29));
        assert_eq!(parse_bytes("42"), Ok(42));
        assert_eq!(parse_bytes("2GB"), Ok(2_000_000_000));
        assert!(parse_bytes("-1").is_err() && parse_bytes("1 elephant").is_err());
        assert_eq!(parse_duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert!(parse_duration("soon").is_err() && parse_duration("1e400h").is_err());
        assert_eq!(parse_json_list("[\"*\"]"), Ok(JsonList(vec!["*".into()])));
        assert!(parse_json_list("*").is_err() && parse_json_list("[1]").is_err());
    }
}
