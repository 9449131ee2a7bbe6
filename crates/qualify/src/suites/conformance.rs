//! Whether JSON is what a schema says.

use serde_json::Value;

use super::matching::shortened;

/// What is wrong with a value, if anything is. A schema that is none is wrong too.
pub(crate) fn violation(schema: &Value, value: &Value) -> Option<String> {
    match jsonschema::validator_for(schema) {
        Ok(validator) => {
            let error = validator.validate(value).err()?;
            let place = error.instance_path().to_string();
            let place = if place.is_empty() { "it" } else { &place };
            Some(format!("{place}: {}", shortened(&error.to_string())))
        }
        Err(error) => Some(format!(
            "the schema is none: {}",
            shortened(&error.to_string())
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}, "d": {"pattern": "^\\d{2}$"}},
            "required": ["a"], "additionalProperties": false});
        assert_eq!(violation(&schema, &json!({"a": 3, "d": "12"})), None);
        for (wrong, place) in [
            (json!({"a": "3"}), "/a"),
            (json!({"a": 3, "d": "123"}), "/d"),
            (json!({}), "it"),
            (json!({"a": 1, "b": 2}), "it"),
            (json!([]), "it"),
        ] {
            let reason = violation(&schema, &wrong).unwrap();
            assert!(reason.starts_with(&format!("{place}: ")), "{reason}");
        }
        assert!(
            violation(&json!({"type": "wishful"}), &json!(1))
                .unwrap()
                .contains("schema")
        );
    }
}
