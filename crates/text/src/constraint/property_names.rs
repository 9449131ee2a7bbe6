//! `propertyNames`, where it lists names, or says by an expression or a length what they are, of
//! objects that list no properties: such an object has `patternProperties` alone.

use serde_json::{Map, Value, json};

use super::unique_items::said;
use crate::json_types::resolve;

/// Names that are listed at most.
const NAMES_MAX: usize = 500;

/// Writes `propertyNames` with other keywords; false if it cannot.
pub(super) fn write_out(entries: &mut Map<String, Value>, document: &Value) -> bool {
    const OTHERS: [&str; 6] = [
        "properties",
        "patternProperties",
        "anyOf",
        "oneOf",
        "allOf",
        "$ref",
    ];
    if OTHERS.iter().any(|name| entries.contains_key(*name)) {
        return false;
    }
    let names = entries.get("propertyNames");
    let Some(pattern) = names.and_then(|names| pattern_of(names, document)) else {
        return false;
    };
    entries.shift_remove("propertyNames");
    let value = entries.get("additionalProperties").cloned();
    match value.unwrap_or(Value::Bool(true)) {
        Value::Bool(false) => {}
        value => {
            entries.insert("patternProperties".to_owned(), json!({pattern: value}));
            entries.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
    }
    true
}

/// The expression that is found in the names that satisfy a schema.
fn pattern_of(names: &Value, document: &Value) -> Option<String> {
    let names = match said(names)?.as_slice() {
        ["$ref"] => resolve(names["$ref"].as_str()?, document)?,
        _ => names,
    };
    if names.get("type").is_some_and(|kind| kind != "string") {
        return None;
    }
    let length = |name: &str| match names.get(name) {
        None => Some(String::new()),
        Some(length) => Some(length.as_u64()?.to_string()),
    };
    match said(names)?.as_slice() {
        ["pattern"] => Some(names["pattern"].as_str()?.to_owned()),
        ["const"] => one_of(std::slice::from_ref(&names["const"])),
        ["enum"] => one_of(names["enum"].as_array()?),
        ["minLength"] => Some(format!("^(?s:.{{{},}})$", length("minLength")?)),
        ["maxLength"] => Some(format!("^(?s:.{{0,{}}})$", length("maxLength")?)),
        ["minLength", "maxLength"] | ["maxLength", "minLength"] => {
            let (least, most) = (length("minLength")?, length("maxLength")?);
            Some(format!("^(?s:.{{{least},{most}}})$"))
        }
        _ => None,
    }
}

fn one_of(names: &[Value]) -> Option<String> {
    let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
    let is_meta = |character: char| r"\.+*?()|[]{}^$/".contains(character);
    let escape = |name: &&str| {
        let escaped = name.chars().map(|character| match is_meta(character) {
            true => format!("\\{character}"),
            false => character.to_string(),
        });
        escaped.collect::<String>()
    };
    let names_max = 1..=NAMES_MAX;
    names_max.contains(&names.len()).then(|| {
        let names: Vec<String> = names.iter().map(escape).collect();
        format!("^(?:{})$", names.join("|"))
    })
}
