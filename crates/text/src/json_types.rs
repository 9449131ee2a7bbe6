//! What a JSON schema says about the type of its instances.

use serde_json::Value;

/// A set of JSON's types. Integers are apart from other numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JsonTypes(u8);

/// Subschemas that are looked at before anything is thought possible.
const VISITS_MAX: usize = 1000;

impl JsonTypes {
    const NONE: Self = Self(0);
    pub(crate) const NULL: Self = Self(1);
    pub(crate) const BOOLEAN: Self = Self(2);
    const INTEGER: Self = Self(4);
    const FRACTION: Self = Self(8);
    pub(crate) const NUMBER: Self = Self(4 | 8);
    pub(crate) const STRING: Self = Self(16);
    pub(crate) const ARRAY: Self = Self(32);
    pub(crate) const OBJECT: Self = Self(64);
    pub(crate) const ANY: Self = Self(127);

    /// The types that the schema allows, as far as it says. `document` is what its references are
    /// relative to.
    pub(crate) fn of_schema(schema: &Value, document: &Value) -> Self {
        let mut visits = VISITS_MAX;
        allowed(schema, document, &mut visits)
    }

    /// The type of a value.
    pub(crate) fn of_value(value: &Value) -> Self {
        match value {
            Value::Null => Self::NULL,
            Value::Bool(_) => Self::BOOLEAN,
            Value::Number(number) => match number.as_f64() {
                Some(number) if number.fract() != 0.0 => Self::FRACTION,
                _ => Self::INTEGER,
            },
            Value::String(_) => Self::STRING,
            Value::Array(_) => Self::ARRAY,
            Value::Object(_) => Self::OBJECT,
        }
    }

    /// The type of the value that this JSON text is.
    pub(crate) fn of_json(json: &str) -> Self {
        match json.as_bytes().first() {
            Some(b'n') => Self::NULL,
            Some(b't' | b'f') => Self::BOOLEAN,
            Some(b'"') => Self::STRING,
            Some(b'[') => Self::ARRAY,
            Some(b'{') => Self::OBJECT,
            _ if !json.contains(['.', 'e', 'E']) => Self::INTEGER,
            // One too large to be read has no fraction.
            _ => match json.parse::<f64>() {
                Ok(number) if number.is_finite() && number.fract() != 0.0 => Self::FRACTION,
                _ => Self::INTEGER,
            },
        }
    }

    /// Whether one of `other` is among these.
    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn named(name: &Value) -> Self {
        match name.as_str() {
            Some("null") => Self::NULL,
            Some("boolean") => Self::BOOLEAN,
            Some("integer") => Self::INTEGER,
            Some("number") => Self::NUMBER,
            Some("string") => Self::STRING,
            Some("array") => Self::ARRAY,
            Some("object") => Self::OBJECT,
            _ => Self::ANY,
        }
    }

    fn union(types: impl Iterator<Item = Self>) -> Self {
        types.fold(Self::NONE, Self::or)
    }
}

/// What a reference within `document` points at.
pub(crate) fn resolve<'a>(reference: &str, document: &'a Value) -> Option<&'a Value> {
    document.pointer(reference.strip_prefix('#')?)
}

fn allowed(schema: &Value, document: &Value, visits: &mut usize) -> JsonTypes {
    let (Value::Object(entries), Some(left)) = (schema, visits.checked_sub(1)) else {
        return JsonTypes::ANY;
    };
    *visits = left;
    let mut types = JsonTypes::ANY;
    for (keyword, value) in entries {
        let narrowed = match (keyword.as_str(), value) {
            ("type", Value::Array(names)) => JsonTypes::union(names.iter().map(JsonTypes::named)),
            ("type", name) => JsonTypes::named(name),
            ("enum", Value::Array(values)) => {
                JsonTypes::union(values.iter().map(JsonTypes::of_value))
            }
            ("const", value) => JsonTypes::of_value(value),
            ("anyOf" | "oneOf", Value::Array(branches)) => {
                let branches = branches.iter();
                JsonTypes::union(branches.map(|branch| allowed(branch, document, visits)))
            }
            ("allOf", Value::Array(branches)) => {
                let branches = branches.iter();
                let branches = branches.map(|branch| allowed(branch, document, visits));
                branches.fold(JsonTypes::ANY, JsonTypes::and)
            }
            ("$ref", Value::String(reference)) => match resolve(reference, document) {
                Some(target) => allowed(target, document, visits),
                None => JsonTypes::ANY,
            },
            _ => JsonTypes::ANY,
        };
        types = types.and(narrowed);
    }
    types
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::JsonTypes;

    fn set(types: &[JsonTypes]) -> JsonTypes {
        JsonTypes::union(types.iter().copied())
    }

    #[test]
    fn a_schema_tells_the_types_of_its_instances() {
        let (string, null) = (JsonTypes::STRING, JsonTypes::NULL);
        let cases = [
            (json!({"type": "string"}), string),
            (json!({"type": "string", "enum": ["1"]}), string),
            (json!({"enum": ["a", "b"]}), string),
            (json!({"const": "a"}), string),
            (json!({"type": "integer"}), JsonTypes::INTEGER),
            (
                json!({"type": "number", "enum": [1, 2]}),
                JsonTypes::INTEGER,
            ),
            (json!({"type": ["string", "null"]}), set(&[string, null])),
            (
                json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
                set(&[string, null]),
            ),
            (
                json!({"anyOf": [{"anyOf": [{"type": "string"}]}, {"type": "null"}]}),
                set(&[string, null]),
            ),
            (json!({"allOf": [{"$ref": "#/$defs/colour"}]}), string),
            (json!({"$ref": "#/$defs/tree"}), JsonTypes::OBJECT),
            (json!({"anyOf": [{"type": "string"}, {}]}), JsonTypes::ANY),
            (
                json!({"enum": ["a", 1]}),
                set(&[string, JsonTypes::INTEGER]),
            ),
            (json!({"$ref": "#/$defs/circle"}), JsonTypes::ANY),
            (json!({"$ref": "#/$defs/wide"}), JsonTypes::ANY),
            (json!({"$ref": "https://example.com"}), JsonTypes::ANY),
            (json!({"type": 7}), JsonTypes::ANY),
            (json!({}), JsonTypes::ANY),
            (json!(true), JsonTypes::ANY),
        ];
        let wide = json!({"anyOf": [{"$ref": "#/$defs/wide"}, {"$ref": "#/$defs/wide"}]});
        let document = json!({"$defs": {"colour": {"enum": ["red"]}, "wide": wide,
            "circle": {"$ref": "#/$defs/circle"},
            "tree": {"type": "object", "properties": {"next": {"$ref": "#/$defs/tree"}}}}});
        for (schema, expected) in cases {
            assert_eq!(
                JsonTypes::of_schema(&schema, &document),
                expected,
                "{schema}"
            );
        }
    }

    #[test]
    fn a_text_tells_the_type_of_its_value() {
        let cases = [
            ("null", JsonTypes::NULL),
            ("false", JsonTypes::BOOLEAN),
            ("-3", JsonTypes::INTEGER),
            ("3.0", JsonTypes::INTEGER),
            ("1e999", JsonTypes::INTEGER),
            ("3.5", JsonTypes::FRACTION),
            ("[1]", JsonTypes::ARRAY),
            ("{}", JsonTypes::OBJECT),
        ];
        for (json, expected) in cases {
            assert_eq!(JsonTypes::of_json(json), expected, "{json}");
        }
        assert_eq!(JsonTypes::of_value(&json!(3.5)), JsonTypes::FRACTION);
        assert!(JsonTypes::NUMBER.has(JsonTypes::INTEGER));
    }
}
