//! What a shape may hold, checked before anything is done with it: bytes, and how deep whatever
//! walks along its structure could recurse.

use std::collections::BTreeSet;

use serde_json::Value;

use super::error::{ConstraintError, ConstraintReason, Fault, GrammarPart};
use super::limits;
use super::shape::{AnswerShape, TextShape};

/// Refuses sources that are too long or too deep.
pub(super) fn check(shape: &AnswerShape) -> Result<(), ConstraintError> {
    let mut bytes = 0;
    let mut add = |part, more: usize, levels: usize| {
        bytes += more;
        match bytes > limits::SOURCE_BYTES_MAX || levels > limits::LEVELS_MAX {
            true => Err(Fault::from(ConstraintReason::TooComplex).of(part)),
            false => Ok(()),
        }
    };
    match &shape.text {
        None | Some(TextShape::Any | TextShape::JsonObject) => {}
        Some(TextShape::Json(schema) | TextShape::JsonHint(schema)) => {
            add(GrammarPart::Text, json_bytes(schema), schema_levels(schema))?;
        }
        // The library's reader of expressions has a limit on their nesting.
        Some(TextShape::Regex(source)) => add(GrammarPart::Text, source.len(), 0)?,
        Some(TextShape::Lark(source)) => {
            add(GrammarPart::Text, source.len(), lark_levels(source))?;
        }
        Some(TextShape::Choice(choices)) => {
            let too_many = choices.len() > limits::CHOICES_MAX;
            let bytes = choices.iter().map(String::len).sum();
            let bytes = if too_many { usize::MAX / 2 } else { bytes };
            add(GrammarPart::Text, bytes, 0)?;
        }
    }
    for tool in shape.calls.iter().flat_map(|calls| &calls.tools) {
        let schema = tool.parameters.as_ref();
        let bytes = tool.name.len() + schema.map_or(0, json_bytes);
        let levels = schema.map_or(0, schema_levels);
        add(GrammarPart::Tool(tool.index), bytes, levels)?;
    }
    Ok(())
}

fn json_bytes(value: &Value) -> usize {
    value.to_string().len()
}

/// Levels of recursion along a schema, at most. A path through it enters what a reference names
/// once, however often it is named, and a schema within a schema takes two levels of JSON.
fn schema_levels(schema: &Value) -> usize {
    let mut references = BTreeSet::new();
    let depth = depth(schema, &mut references);
    references.len() + (1 + references.len()) * depth.div_ceil(2)
}

/// How deep a value is nested, with the references in it. It came from a reader that limits that.
fn depth<'a>(value: &'a Value, references: &mut BTreeSet<&'a str>) -> usize {
    match value {
        Value::Array(items) => {
            let depths = items.iter().map(|item| depth(item, references));
            1 + depths.max().unwrap_or(0)
        }
        Value::Object(entries) => {
            references.extend(entries.get("$ref").and_then(Value::as_str));
            let depths = entries.values().map(|item| depth(item, references));
            1 + depths.max().unwrap_or(0)
        }
        _ => 0,
    }
}

/// Levels of recursion along a grammar in Lark, at most: a path through it passes each definition,
/// group and negation once. Those within strings count as well, so that nothing that looks like a
/// string can hide one.
fn lark_levels(source: &str) -> usize {
    let opens = |byte: &&u8| b":([{~".contains(byte);
    source.as_bytes().iter().filter(opens).count()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_chain_of_references_is_as_deep_as_it_is_long() {
        assert_eq!(schema_levels(&json!({"type": "object"})), 1);
        let chain = json!({"$ref": "#/$defs/a", "$defs": {
            "a": {"properties": {"x": {"$ref": "#/$defs/b"}}},
            "b": {"items": {"$ref": "#/$defs/a"}},
        }});
        assert!(schema_levels(&chain) >= 6);
    }

    #[test]
    fn every_definition_and_group_of_a_grammar_is_a_level() {
        assert_eq!(lark_levels("start: a\na: (\"b\" | [\"c\"]) ~D\nD: /d/"), 6);
    }
}
