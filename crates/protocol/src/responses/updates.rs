//! Changes of the settings within a conversation: each holds until a later one replaces it, so the
//! last of each kind is what the request asks.

use serde_json::{Map, Value};

/// The items that hold them.
pub(super) const UPDATE: &str = "configuration_update";

/// What an update can change, as section and field.
const CHANGEABLE: [(&str, &str); 2] = [("reasoning", "effort"), ("text", "format")];

/// Puts what the updates in `input` say into the settings of the body.
pub(super) fn apply(body: &mut Value) {
    for (section, field) in CHANGEABLE {
        if let Some(value) = last(body, section, field) {
            set(body, section, field, value);
        }
    }
}

/// Takes the field out of the last update that has it.
fn last(body: &mut Value, section: &str, field: &str) -> Option<Value> {
    let items = body.get_mut("input")?.as_array_mut()?;
    let updates = items.iter_mut().rev().filter(|item| item["type"] == UPDATE);
    let mut values = updates.filter_map(|item| item.get_mut(section)?.get_mut(field));
    values.find(|value| !value.is_null()).map(Value::take)
}

fn set(body: &mut Value, section: &str, field: &str, value: Value) {
    let Some(body) = body.as_object_mut() else {
        return;
    };
    let settings = body.entry(section).or_insert(Value::Null);
    if settings.is_null() {
        *settings = Value::Object(Map::new());
    }
    // What is no object is told so when it is read.
    if let Some(settings) = settings.as_object_mut() {
        settings.insert(field.to_owned(), value);
    }
}
