//! Whatever a model says along a grammar satisfies the schema that the grammar was made of: random
//! schemas, random walks, and a validator that shares no code with the grammars.

#![allow(
    clippy::unwrap_used,
    reason = "a test helper that panics fails its test"
)]

mod schema_generator;
mod walker;

use backstop_text::constraint::{AnswerShape, CallShape, CallableTool, Opening, TextShape};
use serde_json::json;

use self::schema_generator::{Random, schema};
use self::walker::{Walker, validate};

const SCHEMAS: u64 = 2000;

fn walker() -> Walker {
    Walker::new("cohere_cmd4", &[], &["<|END_ACTION|>", "<|END_TEXT|>"])
}

#[test]
fn every_call_along_a_grammar_parses_and_satisfies_its_tool() {
    let walker = walker();
    for seed in 0..SCHEMAS {
        let mut random = Random::new(seed);
        let schema = schema(&mut random);
        let tool = |index, name: &str, parameters| CallableTool {
            index,
            name: name.to_owned(),
            parameters,
        };
        let tools = vec![
            tool(0, "look.up", Some(schema.clone())),
            tool(1, "noop", Some(json!({"type": "object", "properties": {}}))),
        ];
        let shape = AnswerShape {
            opening: Opening::ReasoningClosed,
            text: None,
            calls: Some(CallShape {
                tools,
                parallel: random.one_in(2),
            }),
        };
        let constraint = walker.factory.compile(&shape);
        let constraint =
            constraint.unwrap_or_else(|error| panic!("seed {seed}: {error}: {schema}"));
        let tokens = walker.walk(&constraint, &mut random);
        let message = walker.parse(&tokens, &[]);
        assert_eq!(message.content, "", "seed {seed}: {}", walker.text(&tokens));
        assert!(!message.tool_calls.is_empty(), "seed {seed}");
        for call in &message.tool_calls {
            match call.name.as_str() {
                "noop" => assert_eq!(call.arguments, "{}", "seed {seed}"),
                _ => validate(&schema, &call.arguments)
                    .unwrap_or_else(|error| panic!("seed {seed}: {error}")),
            }
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
