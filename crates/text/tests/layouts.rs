//! The layouts of all chat formats: what a model says along a grammar is what was asked for, once
//! the format's own parser has read it. Each with its tags as control tokens and as plain text.

#![allow(
    clippy::unwrap_used,
    reason = "a test helper that panics fails its test"
)]

mod schema_generator;
mod walker;

use backstop_text::constraint::{
    AnswerShape, CallShape, CallableTool, ConstraintReason, Opening, TextShape,
};
use backstop_types::{SharedConstraint, TokenId};
use serde_json::{Value, json};

use self::schema_generator::{Random, schema};
use self::walker::{END_OF_TURN, Walker, validate};

/// A format, its tags, and those of them that close something.
const FORMATS: &[(&str, &[&str], &[&str])] = &[
    (
        "hermes",
        &["<think>", "</think>", "<tool_call>", "</tool_call>"],
        &["</think>", "</tool_call>"],
    ),
    ("llama3_json", &["<|python_tag|>"], &[]),
    ("mistral", &["[TOOL_CALLS]"], &[]),
    (
        "mistral",
        &["[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]"],
        &["[/THINK]"],
    ),
    (
        "harmony",
        &[
            "<|start|>",
            "<|channel|>",
            "<|constrain|>",
            "<|message|>",
            "<|end|>",
        ],
        &["<|end|>"],
    ),
    ("deepseek_v3", DEEPSEEK, DEEPSEEK_CLOSERS),
    ("deepseek_v31", DEEPSEEK, DEEPSEEK_CLOSERS),
    (
        "kimi_k2",
        &[
            "<|tool_calls_section_begin|>",
            "<|tool_calls_section_end|>",
            "<|tool_call_begin|>",
            "<|tool_call_argument_begin|>",
            "<|tool_call_end|>",
        ],
        &["<|tool_calls_section_end|>", "<|tool_call_end|>"],
    ),
    ("qwen3_coder", QWEN3_CODER, &["</think>", "</tool_call>"]),
    ("glm45", GLM, GLM_CLOSERS),
    ("glm47", GLM, GLM_CLOSERS),
];

const QWEN3_CODER: &[&str] = &["<think>", "</think>", "<tool_call>", "</tool_call>"];
const GLM: &[&str] = &[
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
];
const GLM_CLOSERS: &[&str] = &["</think>", "</tool_call>", "</arg_value>", "</arg_key>"];

const DEEPSEEK: &[&str] = &[
    "<think>",
    "</think>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
];
const DEEPSEEK_CLOSERS: &[&str] = &["</think>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁end｜>"];

/// Schemas per format and vocabulary.
const SCHEMAS: u64 = 24;

fn walkers(format: usize) -> [Walker; 2] {
    let (id, tags, closers) = FORMATS[format];
    let texts = walker::closing_texts(id);
    [
        Walker::new(id, tags, closers).with_closing_texts(texts),
        Walker::new(id, &[], &[]).with_closing_texts(texts),
    ]
}

fn tools(schema: &Value) -> Vec<CallableTool> {
    let tool = |index, name: &str, parameters| CallableTool {
        index,
        name: name.to_owned(),
        parameters,
        strict: true,
    };
    vec![
        tool(0, "look.up", Some(schema.clone())),
        tool(1, "noop", Some(json!({"type": "object", "properties": {}}))),
    ]
}

fn offered(schema: &Value) -> Vec<Value> {
    let tool = |name: &str, schema: &Value| json!({"type": "function", "function": {"name": name, "parameters": schema}});
    vec![tool("look.up", schema), tool("noop", &json!({}))]
}

#[test]
fn forced_calls_parse_and_satisfy_their_tools() {
    for (index, (format, ..)) in FORMATS.iter().enumerate() {
        for (walker, opening) in walkers(index)
            .iter()
            .zip([Opening::Turn, Opening::ReasoningClosed])
        {
            for seed in 0..SCHEMAS {
                let mut random = Random::new(seed);
                let schema = schema(&mut random);
                // A walk in plain text would begin calls without end.
                let parallel = opening == Opening::Turn && random.one_in(2);
                let shape = AnswerShape {
                    opening,
                    text: None,
                    calls: Some(CallShape {
                        tools: tools(&schema),
                        parallel,
                    }),
                };
                let constraint = match walker.factory.compile(&shape) {
                    Err(error) if error.reason == ConstraintReason::ParameterName => continue,
                    compiled => compiled.unwrap(),
                };
                let tokens = walker.walk(&constraint, &mut random);
                let message = walker.parse(&tokens, &offered(&schema));
                let raw = walker.text(&tokens);
                assert_eq!(message.content, "", "{format}, seed {seed}: {raw}");
                assert!(
                    !message.tool_calls.is_empty(),
                    "{format}, seed {seed}: {raw}"
                );
                assert!(parallel || message.tool_calls.len() == 1, "{format}: {raw}");
                for call in &message.tool_calls {
                    match call.name.as_str() {
                        "noop" => assert_eq!(call.arguments, "{}", "{format}: {raw}"),
                        "look.up" => validate(&schema, &call.arguments)
                            .unwrap_or_else(|error| panic!("{format}, seed {seed}: {error}")),
                        other => panic!("{format}: {other} in {raw}"),
                    }
                }
            }
        }
    }
}

#[test]
fn json_answers_satisfy_their_schema() {
    for (index, (format, ..)) in FORMATS.iter().enumerate() {
        for walker in walkers(index) {
            for seed in SCHEMAS..SCHEMAS + 15 {
                let mut random = Random::new(seed);
                let schema = schema(&mut random);
                let shape = AnswerShape {
                    opening: Opening::ReasoningClosed,
                    text: Some(TextShape::Json(schema.clone())),
                    calls: None,
                };
                let constraint = walker.factory.compile(&shape).unwrap();
                let tokens = walker.walk(&constraint, &mut random);
                let content = walker.parse(&tokens, &[]).content;
                validate(&schema, &content)
                    .unwrap_or_else(|error| panic!("{format}, seed {seed}: {error}"));
            }
        }
    }
}

/// Whether an answer may end after `answer`; an error with the text up to the first token that is
/// refused.
fn follow(walker: &Walker, constraint: &SharedConstraint, answer: &str) -> Result<bool, String> {
    let mut matcher = constraint.0.matcher();
    let mut mask = vec![0_u32; walker.vocabulary_size.div_ceil(32)];
    let tokens = walker.tokenizer.encode(answer, false).unwrap();
    let is_allowed =
        |mask: &[u32], token: TokenId| mask[token as usize / 32] >> (token % 32) & 1 == 1;
    for (index, token) in tokens.iter().enumerate() {
        matcher.fill_mask(&mut mask).unwrap();
        if !is_allowed(&mask, *token) {
            return Err(walker.text(&tokens[..index]));
        }
        matcher.advance(*token).unwrap();
    }
    matcher.fill_mask(&mut mask).unwrap();
    Ok(is_allowed(&mask, END_OF_TURN))
}

fn free(walker: &Walker, parallel: bool) -> SharedConstraint {
    let schema =
        json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
    let shape = AnswerShape {
        opening: Opening::Turn,
        text: Some(TextShape::Any),
        calls: Some(CallShape {
            tools: tools(&schema),
            parallel,
        }),
    };
    walker.factory.compile(&shape).unwrap()
}

/// By number of the format: answers of a model that is free to call, and beginnings of what is
/// none.
const FREE_ANSWERS: &[(usize, &[&str], &[&str])] = &[
    (
        0,
        &[
            "Hello <b> {\"a\": 1}\n",
            "",
            "I look.\n\n<tool_call>\n{\"name\": \"look.up\", \"arguments\": {\"a\": 3}}\n</tool_call>",
            "<tool_call>\n{\"name\": \"noop\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"noop\", \"arguments\": {}}\n</tool_call>",
        ],
        &[
            "<tool_call>\n{\"name\": \"look.up\", \"arguments\": {\"a\": \"",
            "x<tool_call>\n{\"name\": \"other\"",
            "<tool_call>\n{\"name\": \"noop\", \"arguments\": {}}\n</tool_call>x",
        ],
    ),
    (
        1,
        &[
            "Hello {\"a\": 1}",
            "{\"name\": \"look.up\", \"parameters\": {\"a\": 3}}",
        ],
        &[
            "{\"name\": \"other\"",
            "{\"a\"",
            " {\"name\": \"look.up\", \"parameters\": {\"a\": \"",
        ],
    ),
    (
        2,
        &[
            "Oui.",
            "Oui.[TOOL_CALLS] [{\"name\": \"look.up\", \"arguments\": {\"a\": 3}}, {\"name\": \"noop\", \"arguments\": {}, \"id\": \"abcdefghi\"}]",
        ],
        &["[TOOL_CALLS] [{\"name\": \"other", "[TOOL_CALLS] []"],
    ),
    (
        3,
        &["Oui.[TOOL_CALLS]look.up[ARGS]{\"a\": 3}[TOOL_CALLS]noop[ARGS]{}"],
        &["[TOOL_CALLS]other", "[TOOL_CALLS]noop[ARGS]{\""],
    ),
    (
        4,
        &[
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi",
            "<|channel|>commentary to=functions.look.up <|constrain|>json<|message|>{\"a\": 3}",
        ],
        &["Hi", "<|channel|>commentary to=functions.other"],
    ),
    (
        6,
        &[
            "a<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>look.up<｜tool▁sep｜>{\"a\": 3}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ],
        &["<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>other"],
    ),
    (
        7,
        &[
            "a<|tool_calls_section_begin|><|tool_call_begin|>functions.look.up:10<|tool_call_argument_begin|>{\"a\": 3}<|tool_call_end|><|tool_calls_section_end|>",
        ],
        &["<|tool_calls_section_begin|><|tool_call_begin|>functions.other"],
    ),
    (
        8,
        &[
            "a <parameter=",
            "I look.\n\n<tool_call>\n<function=look.up>\n<parameter=a>\n3\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=noop>\n</function>\n</tool_call>",
        ],
        &[
            "<tool_call>\n<function=other",
            "<tool_call>\n<function=look.up>\n</function>",
            "<tool_call>\n<function=look.up>\n<parameter=a>\nx",
            "<tool_call>\n<function=noop>\n<parameter=",
        ],
    ),
    (
        9,
        &[
            "你好\n",
            "<tool_call>look.up\n<arg_key>a</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n<tool_call>noop\n</tool_call>",
        ],
        &["<tool_call>look.up\n</", "<tool_call>look.up\n<arg_key>b"],
    ),
    (
        10,
        &[
            "<tool_call>look.up<arg_key>a</arg_key><arg_value>3</arg_value></tool_call><tool_call>noop</tool_call>",
        ],
        &["<tool_call>look.up</", "<tool_call>noop\n"],
    ),
];

#[test]
fn a_model_that_is_free_to_call_writes_text_or_right_calls() {
    for (index, accepted, refused) in FREE_ANSWERS {
        for walker in walkers(*index) {
            // The newer way of Mistral's calls needs its tag in the vocabulary.
            let newer = walker.tokenizer.token_to_id("[ARGS]").is_some();
            if *index == 3 && !newer {
                continue;
            }
            let constraint = free(&walker, true);
            for answer in *accepted {
                assert_eq!(follow(&walker, &constraint, answer), Ok(true), "{answer}");
            }
            for answer in *refused {
                assert!(follow(&walker, &constraint, answer).is_err(), "{answer}");
            }
        }
    }
}
