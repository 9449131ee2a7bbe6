//! JSON schemas of the OpenAPI document in words.

use serde_json::{Map, Value};

use super::markdown::code;

/// Where the document keeps its schemas.
const SCHEMAS: &str = "#/components/schemas/";

/// The schemas of a document, by name.
pub(super) struct Schemas<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Schemas<'a> {
    /// What values a schema takes. Objects with a name are links to where their fields are listed. `null` is left
    /// out: it is absence everywhere.
    pub(super) fn words(&self, schema: &Value) -> String {
        if let Some(name) = reference(schema) {
            return match &self.0[name] {
                named if is_listed(named) => format!("[{name}](#{})", name.to_lowercase()),
                named => self.words(named),
            };
        }
        if let Some(value) = schema.get("const") {
            return code(&value.to_string());
        }
        if let Some(values) = schema["enum"].as_array() {
            let values = values.iter().filter(|value| !value.is_null());
            let values: Vec<String> = values.map(|value| code(&value.to_string())).collect();
            return values.join(" or ");
        }
        if let Some(alternatives) = alternatives(schema) {
            let alternatives = alternatives
                .iter()
                .filter(|schema| schema["type"] != "null");
            let words: Vec<String> = alternatives.map(|schema| self.words(schema)).collect();
            return words.join(" or ");
        }
        let types: Vec<&str> = types(schema).collect();
        let words: Vec<String> = types
            .iter()
            .map(|name| self.of_type(name, schema))
            .collect();
        words.join(" or ")
    }

    fn of_type(&self, name: &str, schema: &Value) -> String {
        let limits = |least, most, unit| limits(schema, least, most, unit);
        match name {
            "array" => format!(
                "list{} of {}",
                limits("minItems", "maxItems", ""),
                self.items(schema)
            ),
            "string" => {
                let pattern = schema["pattern"].as_str().map(code);
                let pattern = pattern.map(|pattern| format!(" like {pattern}"));
                let limits = limits("minLength", "maxLength", " characters");
                format!("string{limits}{}", pattern.unwrap_or_default())
            }
            "object" => match schema["properties"].as_object() {
                Some(fields) => self.inline(fields),
                None => format!(
                    "object{}",
                    limits("minProperties", "maxProperties", " entries")
                ),
            },
            _ => format!("{name}{}", limits("minimum", "maximum", "")),
        }
    }

    /// What a list consists of: each of its items, or the first, the second and so on.
    fn items(&self, schema: &Value) -> String {
        let each = schema.get("items").filter(|items| items.is_object());
        let in_turn = || schema["prefixItems"].as_array().into_iter().flatten();
        match each {
            Some(each) => self.words(each),
            None => {
                let words: Vec<String> = in_turn().map(|item| self.words(item)).collect();
                words.join(" and ")
            }
        }
    }

    /// An object without a name.
    fn inline(&self, fields: &Map<String, Value>) -> String {
        let fields = fields
            .iter()
            .map(|(name, schema)| format!("{}: {}", code(name), self.words(schema)));
        let fields: Vec<String> = fields.collect();
        format!("{{{}}}", fields.join(", "))
    }

    /// What a schema, or the one that it refers to, says in words.
    pub(super) fn description(&self, schema: &'a Value) -> &'a str {
        let own = schema["description"].as_str();
        let referred = || self.0[reference(schema)?]["description"].as_str();
        own.or_else(referred).unwrap_or_default()
    }

    /// The fields of an object, of each alternative if there are several.
    pub(super) fn objects(&self, schema: &'a Value) -> Vec<&'a Value> {
        match alternatives(schema) {
            Some(alternatives) => alternatives
                .iter()
                .filter(|schema| schema["properties"].is_object())
                .collect(),
            None => vec![schema],
        }
    }
}

/// Whether a schema with a name has fields to list.
pub(super) fn is_listed(schema: &Value) -> bool {
    let has_fields = |schema: &Value| schema["properties"].is_object();
    has_fields(schema) || alternatives(schema).is_some_and(|all| all.iter().any(has_fields))
}

/// The name of the schema that one refers to.
pub(super) fn reference(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.strip_prefix(SCHEMAS)
}

fn alternatives(schema: &Value) -> Option<&Vec<Value>> {
    let any = schema["anyOf"].as_array();
    any.or_else(|| schema["oneOf"].as_array())
}

fn types(schema: &Value) -> impl Iterator<Item = &str> {
    let one = schema["type"].as_str().into_iter();
    let several = schema["type"].as_array().into_iter().flatten();
    one.chain(several.filter_map(Value::as_str))
        .filter(|name| *name != "null")
}

/// The bounds that a schema states, such as ` (1 to 1024)`.
fn limits(schema: &Value, least: &str, most: &str, unit: &str) -> String {
    let number = |name: &str| schema.get(name).map(ToString::to_string);
    // No list has fewer than none.
    let least = number(least).filter(|number| number != "0" || least == "minimum");
    match (least, number(most)) {
        (Some(least), Some(most)) if least == most => format!(" ({least}{unit})"),
        (Some(least), Some(most)) => format!(" ({least} to {most}{unit})"),
        (Some(least), None) => format!(" (at least {least}{unit})"),
        (None, Some(most)) => format!(" (at most {most}{unit})"),
        (None, None) => String::new(),
    }
}
