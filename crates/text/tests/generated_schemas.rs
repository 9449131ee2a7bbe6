//! Whatever a model says along a grammar satisfies the schema that the grammar was made of: random
//! schemas, random walks, and a validator that shares no code with the grammars.

#![allow(
    clippy::unwrap_used,
    reason = "a test helper that panics fails its test"
)]

mod schema_generator;
mod walker;

use backstop_text::constraint::{
    AnswerShape, CallShape, CallableTool, ConstraintReason, Opening, TextShape,
};
use serde_json::{Value, json};

use self::schema_generator::{Random, schema};
use self::walker::{Walker, closing_texts, validate};

const SCHEMAS: u64 = 2000;

fn walker() -> Walker {
    Walker::new("cohere_cmd4", &[], &["<|END_ACTION|>", "<|END_TEXT|>"])
}

/// Walks along the grammar of calls of a tool with this schema, and checks what comes out.
fn check_calls(
    walker: &Walker,
    schema: &Value,
    parallel: bool,
    random: &mut Random,
) -> Result<(), String> {
    let tool = |index, name: &str, parameters| CallableTool {
        index,
        name: name.to_owned(),
        parameters: Some(parameters),
        strict: true,
    };
    let none = json!({"type": "object", "properties": {}});
    let shape = AnswerShape {
        opening: Opening::ReasoningClosed,
        text: None,
        calls: Some(CallShape {
            tools: vec![
                tool(0, "look.up", schema.clone()),
                tool(1, "noop", none.clone()),
            ],
            parallel,
        }),
    };
    let constraint = match walker.factory.compile(&shape) {
        // Not all formats can write a name that ends with white space.
        Err(error) if error.reason == ConstraintReason::ParameterName => return Ok(()),
        constraint => constraint.map_err(|error| format!("{error}: {schema}"))?,
    };
    let tokens = walker.walk(&constraint, random);
    let offered = |name: &str, schema| json!({"type": "function", "function": {"name": name, "parameters": schema}});
    let message = walker.parse(
        &tokens,
        &[offered("look.up", schema), offered("noop", &none)],
    );
    let raw = walker.text(&tokens);
    if !message.content.is_empty() || message.tool_calls.is_empty() {
        return Err(format!("not only calls: {raw}"));
    }
    for call in &message.tool_calls {
        match call.name.as_str() {
            "noop" if call.arguments == "{}" => {}
            "look.up" => {
                validate(schema, &call.arguments).map_err(|error| format!("{error}\n{raw}"))?
            }
            _ => return Err(format!("not as it should be: {raw}")),
        }
    }
    Ok(())
}

#[test]
fn every_call_along_a_grammar_parses_and_satisfies_its_tool() {
    let walker = walker();
    for seed in 0..SCHEMAS {
        let mut random = Random::new(seed);
        let schema = schema(&mut random);
        let parallel = random.one_in(2);
        check_calls(&walker, &schema, parallel, &mut random)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn so_does_every_call_whose_parameters_stand_between_tags() {
    for (index, format) in (0..).zip(["glm45", "glm47", "qwen3_coder"]) {
        let texts = closing_texts(format);
        let walker = Walker::new(format, &[], &[]).with_closing_texts(texts);
        for seed in index * SCHEMAS / 2..(index + 1) * SCHEMAS / 2 {
            let mut random = Random::new(seed);
            let schema = schema(&mut random);
            // A walk in plain text would begin calls without end.
            check_calls(&walker, &schema, false, &mut random)
                .unwrap_or_else(|error| panic!("{format}, seed {seed}: {error}"));
        }
    }
}

#[test]
fn every_text_along_a_grammar_parses_and_satisfies_its_schema() {
    let walker = walker();
    for seed in SCHEMAS..SCHEMAS + SCHEMAS / 4 {
        let mut random = Random::new(seed);
        let schema = schema(&mut random);
        let shape = AnswerShape {
            opening: Opening::ReasoningClosed,
            text: Some(TextShape::Json(schema.clone())),
            calls: None,
        };
        let constraint = walker.factory.compile(&shape).unwrap();
        let message = walker.parse(&walker.walk(&constraint, &mut random), &[]);
        validate(&schema, &message.content).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}
