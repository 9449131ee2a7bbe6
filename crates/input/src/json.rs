//! JSON that is parsed as long as it has few enough values.

use std::cell::Cell;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Memory that a value or key of parsed JSON takes, beside the bytes of long texts: 72 bytes to 106
/// were measured for arrays, objects and texts of every shape.
pub const VALUE_BYTES: usize = 128;
/// Objects of so many entries, and smaller ones, get room for their entries and no more.
const FEW_ENTRIES: usize = 8;

/// Why JSON was not parsed.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It is no JSON, or is nested more deeply than 127 levels.
    #[error(transparent)]
    Syntax(serde_json::Error),
    /// It has more values and keys than were left.
    #[error("it has too many values")]
    TooManyValues,
}

/// Values and keys that may still be parsed. Texts that are parsed with the same allowance share it.
#[derive(Debug)]
pub struct ValueAllowance {
    left: Cell<usize>,
    is_exceeded: Cell<bool>,
}

impl ValueAllowance {
    /// An allowance of so many values and keys.
    pub fn new(values: usize) -> Self {
        Self {
            left: Cell::new(values),
            is_exceeded: Cell::new(false),
        }
    }

    /// Values and keys that are left.
    pub fn left(&self) -> usize {
        self.left.get()
    }

    /// Parses one JSON text. Arrays and objects get no more memory than they fill.
    pub fn parse(&self, json: &[u8]) -> Result<Value, JsonError> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let parsed = Counted(self)
            .deserialize(&mut deserializer)
            .and_then(|value| deserializer.end().map(|()| value));
        parsed.map_err(|error| match self.is_exceeded.replace(false) {
            true => JsonError::TooManyValues,
            false => JsonError::Syntax(error),
        })
    }

    fn take<E: Error>(&self) -> Result<(), E> {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                self.is_exceeded.set(true);
                Err(E::custom("too many values"))
            }
        }
    }
}

/// Makes one value.
struct Counted<'a>(&'a ValueAllowance);

impl<'de> DeserializeSeed<'de> for Counted<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.take()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Counted<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = elements.next_element_seed(Counted(self.0))? {
            values.push(value);
        }
        values.shrink_to_fit();
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut first = Vec::new();
        while first.len() < FEW_ENTRIES
            && let Some(entry) = self.next_entry(&mut entries)?
        {
            first.push(entry);
        }
        let is_small = first.len() < FEW_ENTRIES;
        let mut map = Map::with_capacity(first.len());
        map.extend(first);
        while !is_small && let Some((key, value)) = self.next_entry(&mut entries)? {
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

impl Counted<'_> {
    fn next_entry<'de, A: MapAccess<'de>>(
        &self,
        entries: &mut A,
    ) -> Result<Option<(String, Value)>, A::Error> {
        let Some(key) = entries.next_key_seed(Key(self.0))? else {
            return Ok(None);
        };
        Ok(Some((key, entries.next_value_seed(Counted(self.0))?)))
    }
}

/// Makes one key.
struct Key<'a>(&'a ValueAllowance);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        self.0.take()?;
        String::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str, values: usize) -> Result<Value, JsonError> {
        ValueAllowance::new(values).parse(json.as_bytes())
    }

    #[test]
    fn what_is_parsed_is_what_serde_json_parses() {
        let texts = [
            "null",
            " [1, -2, 18446744073709551615, 1e400000000000000000000, 0.5, true, \"\\u00e9\\ud83e\\udd80\"] ",
            "[1, -2, 18446744073709551615, 99999999999999999999, 0.5, true, \"\\u00e9\\ud83e\\udd80\"]",
            "{\"b\": {\"c\": []}, \"a\": {}, \"b\": 1}",
            "{\"0\":0,\"1\":1,\"2\":2,\"3\":3,\"4\":4,\"5\":5,\"6\":6,\"7\":7,\"8\":8,\"0\":9}",
            "{\"a\":1,}",
            "[1] 2",
            "",
            "{1: 2}",
            "\"\\ud800\"",
        ];
        for text in texts {
            let expected = serde_json::from_str::<Value>(text);
            let parsed = parse(text, 100);
            match (parsed, expected) {
                (Ok(parsed), Ok(expected)) => {
                    assert_eq!(parsed, expected, "{text}");
                    assert_eq!(parsed.to_string(), expected.to_string(), "{text}");
                }
                (Err(JsonError::Syntax(error)), Err(expected)) => {
                    assert_eq!(error.to_string(), expected.to_string(), "{text}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn values_and_keys_count_and_texts_share_an_allowance() {
        assert!(parse("{\"a\": [1, 2]}", 5).is_ok());
        assert!(matches!(
            parse("{\"a\": [1, 2]}", 4),
            Err(JsonError::TooManyValues)
        ));
        let allowance = ValueAllowance::new(4);
        assert!(allowance.parse(b"[1,").is_err());
        assert!(matches!(allowance.parse(b"[1"), Err(JsonError::Syntax(_))));
        assert_eq!(allowance.left(), 0);
        assert!(matches!(
            allowance.parse(b"1"),
            Err(JsonError::TooManyValues)
        ));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(parse(&nested(127), 1000).is_ok());
        assert!(matches!(
            parse(&nested(100_000), 1_000_000),
            Err(JsonError::Syntax(_))
        ));
    }
}
