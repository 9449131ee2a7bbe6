//! JSON schemas, checked and made ready for compilation.

use serde_json::{Map, Value, json};

use super::error::{ConstraintReason, Fault};
use super::lookaheads::{self, Lookaheads};
use super::omissions::Omissions;
use super::{limits, property_names, unique_items};

/// Keywords that say what an instance must be and that cannot be enforced while it is written.
pub(super) const UNSUPPORTED: &[&str] = &[
    "not",
    "if",
    "then",
    "else",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$dynamicRef",
    "$recursiveRef",
];

/// Keywords that say nothing about an instance, and that the library does not know.
const ANNOTATIONS: &[&str] = &[
    "deprecated",
    "$vocabulary",
    "contentSchema",
    "$dynamicAnchor",
    "$recursiveAnchor",
    "x-guidance",
];

/// Formats of strings that are enforced. Others are annotations, as the standard has it.
const FORMATS: &[&str] = &[
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "uri",
];

/// Keywords whose value is a schema.
const SCHEMA: &[&str] = &["items", "additionalItems", "additionalProperties"];
/// Keywords whose value is an array of schemas; `items` is one in old drafts.
const SCHEMAS: &[&str] = &["anyOf", "oneOf", "allOf", "prefixItems", "items"];
/// Keywords whose value is an object of schemas.
const NAMED_SCHEMAS: &[&str] = &["properties", "patternProperties", "$defs", "definitions"];
/// Keywords that apply further schemas to the same instance.
const APPLICATORS: &[&str] = &["anyOf", "oneOf", "allOf", "$ref"];

/// The schema of a text.
pub(super) fn of_text(schema: &Value, omitted: &Omissions) -> Result<Value, Fault> {
    match schema {
        Value::Bool(true) => Ok(json!({})),
        Value::Bool(false) => Err(ConstraintReason::Unsatisfiable.into()),
        Value::Object(_) => prepare(schema, omitted, Lookaheads::WrittenOut),
        _ => Err(ConstraintReason::Invalid.into()),
    }
}

/// The schema of a tool's arguments, which are an object even where it does not say so.
pub(super) fn of_arguments(
    schema: &Value,
    omitted: &Omissions,
    lookaheads: Lookaheads,
) -> Result<Value, Fault> {
    let mut schema = match schema {
        Value::Object(_) => prepare(schema, omitted, lookaheads)?,
        other => of_text(other, omitted)?,
    };
    if let Some(entries) = schema.as_object_mut() {
        let allowed = match entries.get("type") {
            None => true,
            Some(Value::String(name)) => name == "object",
            Some(Value::Array(names)) => names.iter().any(|name| name == "object"),
            Some(_) => return Err(ConstraintReason::Invalid.into()),
        };
        if !allowed {
            return Err(ConstraintReason::Unsatisfiable.into());
        }
        entries.insert("type".to_owned(), Value::from("object"));
    }
    Ok(schema)
}

/// Puts `prefix` before all references within the document, for when it becomes a part of another.
pub(super) fn prefix_references(schema: &mut Value, prefix: &str) {
    let Some(entries) = schema.as_object_mut() else {
        return;
    };
    if let Some(Value::String(reference)) = entries.get_mut("$ref")
        && let Some(pointer) = reference.strip_prefix('#')
    {
        *reference = format!("{prefix}{pointer}");
    }
    children(entries).for_each(|(_, child)| prefix_references(child, prefix));
}

/// The schemas within a schema, with their places: keywords, and numbers under them.
pub(super) fn children(
    entries: &mut Map<String, Value>,
) -> impl Iterator<Item = (String, &mut Value)> {
    entries.iter_mut().flat_map(|(name, value)| {
        let name = name.as_str();
        let children: Vec<&mut Value> = match value {
            Value::Object(_) if SCHEMA.contains(&name) => return vec![(name.to_owned(), value)],
            Value::Array(elements) if SCHEMAS.contains(&name) => elements.iter_mut().collect(),
            Value::Object(schemas) if NAMED_SCHEMAS.contains(&name) => {
                schemas.values_mut().collect()
            }
            _ => Vec::new(),
        };
        let numbered = children.into_iter().enumerate();
        numbered
            .map(|(index, child)| (format!("{name}.{index}"), child))
            .collect()
    })
}

fn prepare(schema: &Value, omitted: &Omissions, lookaheads: Lookaheads) -> Result<Value, Fault> {
    let mut prepared = schema.clone();
    let closes_objects = !combines_objects(schema);
    let mut preparation = Preparation {
        document: schema,
        omitted,
        place: Vec::new(),
        closes_objects,
        squared_members: 0,
    };
    let visited = preparation.visit(&mut prepared);
    visited.map_err(|reason| Fault::at(reason, &preparation.place))?;
    lookaheads::treat(&mut prepared, lookaheads, omitted)?;
    Ok(prepared)
}

/// Whether several schemas may speak of one object's properties, so that none of them alone knows
/// all of their names.
fn combines_objects(schema: &Value) -> bool {
    match schema {
        Value::Object(entries) => {
            let applies = APPLICATORS.iter().any(|name| entries.contains_key(*name));
            let asserts = [
                "properties",
                "required",
                "patternProperties",
                "additionalProperties",
            ]
            .iter()
            .any(|name| entries.contains_key(*name));
            let several = APPLICATORS
                .iter()
                .filter(|name| entries.contains_key(**name))
                .count()
                > 1;
            entries.contains_key("allOf")
                || several
                || (applies && asserts)
                || entries.values().any(combines_objects)
        }
        Value::Array(elements) => elements.iter().any(combines_objects),
        _ => false,
    }
}

struct Preparation<'a> {
    /// The schema as it came.
    document: &'a Value,
    omitted: &'a Omissions,
    /// Where the schema stands that is visited; where it was given up in the end.
    place: Vec<String>,
    /// Objects whose properties are listed have no others. The standard allows them, but a client
    /// that lists what it knows has no use for what a model makes up beside it.
    closes_objects: bool,
    /// Bounds the library's work.
    squared_members: usize,
}

impl Preparation<'_> {
    fn visit(&mut self, schema: &mut Value) -> Result<(), ConstraintReason> {
        let Some(entries) = schema.as_object_mut() else {
            return Ok(());
        };
        ANNOTATIONS.iter().for_each(|name| {
            entries.shift_remove(*name);
        });
        drop_empty_demands(entries);
        if entries.get("uniqueItems") == Some(&Value::Bool(true)) {
            unique_items::write_out(entries, self.document);
        }
        if entries.contains_key("propertyNames") {
            property_names::write_out(entries, self.document);
        }
        self.omitted.take_out(entries);
        if let Some(keyword) = UNSUPPORTED.iter().find(|name| entries.contains_key(**name)) {
            return Err(ConstraintReason::Keyword(keyword));
        }
        let format = entries.get("format").and_then(Value::as_str);
        if format.is_some_and(|format| !FORMATS.contains(&format)) {
            entries.shift_remove("format");
        }
        self.count_members(entries)?;
        if self.closes_objects && lists_all_properties(entries) {
            entries.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
        children(entries).try_for_each(|(place, child)| {
            self.place.push(place);
            self.visit(child)?;
            self.place.pop();
            Ok(())
        })
    }

    fn count_members(&mut self, entries: &Map<String, Value>) -> Result<(), ConstraintReason> {
        let length = |name: &str| {
            let named = entries.get(name);
            let object = named.and_then(Value::as_object).map_or(0, Map::len);
            named.and_then(Value::as_array).map_or(object, Vec::len)
        };
        let count = length("properties") + length("patternProperties") + length("required");
        let values = entries.get("enum").and_then(Value::as_array);
        let values = values.into_iter().flatten();
        let structures = values
            .filter(|value| value.is_object() || value.is_array())
            .count();
        let alternatives = SCHEMAS.iter().map(|name| length(name));
        for members in alternatives.chain([count, structures]) {
            self.squared_members += members * members;
        }
        let counted = ["minProperties", "maxProperties"];
        let counted = counted.iter().any(|name| entries.contains_key(*name));
        if self.squared_members > limits::SQUARED_MEMBERS_MAX
            || (counted && count > limits::COUNTED_PROPERTIES_MAX)
        {
            return Err(ConstraintReason::TooComplex);
        }
        Ok(())
    }
}

/// Takes out keywords whose value demands nothing.
fn drop_empty_demands(entries: &mut Map<String, Value>) {
    const HARMLESS: [(&str, Value); 3] = [
        ("uniqueItems", Value::Bool(false)),
        ("unevaluatedItems", Value::Bool(true)),
        ("unevaluatedProperties", Value::Bool(true)),
    ];
    for (name, value) in HARMLESS {
        if entries.get(name) == Some(&value) {
            entries.shift_remove(name);
        }
    }
}

/// Whether an object schema lists properties and leaves open, as by oversight, what else there
/// may be.
fn lists_all_properties(entries: &Map<String, Value>) -> bool {
    let Some(properties) = entries.get("properties").and_then(Value::as_object) else {
        return false;
    };
    let required = entries.get("required").and_then(Value::as_array);
    let mut required = required.into_iter().flatten();
    let knows = |name: &Value| {
        name.as_str()
            .is_some_and(|name| properties.contains_key(name))
    };
    let says_more = ["additionalProperties", "patternProperties", "minProperties"];
    required.all(knows) && !says_more.iter().any(|name| entries.contains_key(*name))
}
