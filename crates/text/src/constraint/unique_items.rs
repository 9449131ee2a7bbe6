//! Arrays without repetitions. A grammar cannot remember what an array holds, so that they are
//! listed, which takes few different items.

use serde_json::{Map, Value, json};

use crate::json_types::{JsonTypes, resolve};

/// Arrays that are listed at most: all of four items, or those of two among nine.
const ARRAYS_MAX: usize = 100;
/// Bytes of the items of all of them.
const BYTES_MAX: usize = 64 << 10;

/// Keywords that say nothing about a value.
const ANNOTATIONS: [&str; 5] = ["title", "description", "default", "examples", "$comment"];

/// Writes `uniqueItems` with other keywords; false if it cannot.
pub(super) fn write_out(entries: &mut Map<String, Value>, document: &Value) -> bool {
    const FURTHER: [&str; 8] = [
        "prefixItems",
        "additionalItems",
        "const",
        "enum",
        "anyOf",
        "oneOf",
        "allOf",
        "$ref",
    ];
    let bound = |name: &str| entries.get(name).and_then(Value::as_u64);
    let (least, most) = (bound("minItems").unwrap_or(0), bound("maxItems"));
    if most.is_some_and(|most| most <= 1) {
        entries.shift_remove("uniqueItems");
        return true;
    }
    if FURTHER.iter().any(|name| entries.contains_key(*name)) {
        return false;
    }
    let values = entries
        .get("items")
        .and_then(|items| values_of(items, document));
    let arrays = values.and_then(|values| {
        let count = values.len() as u64;
        arrays(&values, least, most.map_or(count, |most| most.min(count)))
    });
    let Some(arrays) = arrays else {
        return false;
    };
    for name in ["uniqueItems", "items", "minItems", "maxItems"] {
        entries.shift_remove(name);
    }
    if entries.get("type").is_some_and(|kind| kind == "array") {
        entries.insert("enum".to_owned(), arrays.into());
    } else {
        // What is no array may be anything.
        let others = json!({"type": ["null", "boolean", "number", "string", "object"]});
        entries.insert("anyOf".to_owned(), json!([{"enum": arrays}, others]));
    }
    true
}

/// The different values that a schema allows, if it lists them and they are neither arrays nor
/// objects.
fn values_of(schema: &Value, document: &Value) -> Option<Vec<Value>> {
    let schema = match said(schema)?.as_slice() {
        ["$ref"] => resolve(schema["$ref"].as_str()?, document)?,
        _ => schema,
    };
    let kind = schema.get("type").cloned().unwrap_or(Value::Null);
    let values = match said(schema)?.as_slice() {
        [] if kind == "boolean" => vec![json!(false), json!(true)],
        [] if kind == "null" => vec![Value::Null],
        ["enum"] => schema["enum"].as_array()?.clone(),
        ["const"] => vec![schema["const"].clone()],
        _ => return None,
    };
    let types = JsonTypes::of_schema(schema, document);
    let mut different: Vec<Value> = Vec::new();
    for value in values {
        if value.is_array() || value.is_object() {
            return None;
        }
        if types.has(JsonTypes::of_value(&value)) && !different.contains(&value) {
            different.push(value);
        }
    }
    Some(different)
}

/// The keywords of a schema that say something about a value, but for its type.
pub(super) fn said(schema: &Value) -> Option<Vec<&str>> {
    let names = schema.as_object()?.keys().map(String::as_str);
    let says = |name: &&str| *name != "type" && !ANNOTATIONS.contains(name);
    Some(names.filter(says).collect())
}

/// All arrays of so many different values; `None` if there are too many.
fn arrays(values: &[Value], least: u64, most: u64) -> Option<Vec<Value>> {
    let mut found = Vec::new();
    let mut growing: Vec<Vec<usize>> = vec![Vec::new()];
    for length in 0..=most {
        if length >= least {
            let arrays = growing.iter().map(|places| {
                let items = places.iter().map(|place| values[*place].clone());
                items.collect::<Value>()
            });
            found.extend(arrays);
        }
        let longer = growing.iter().flat_map(|places| {
            let free = (0..values.len()).filter(|place| !places.contains(place));
            free.map(|place| [places.as_slice(), &[place]].concat())
        });
        growing = longer.take(ARRAYS_MAX + 1).collect();
        if found.len() + growing.len() > ARRAYS_MAX && length < most {
            return None;
        }
    }
    let longest = values
        .iter()
        .map(|value| value.to_string().len())
        .sum::<usize>();
    (found.len() <= ARRAYS_MAX && found.len() * longest <= BYTES_MAX).then_some(found)
}
