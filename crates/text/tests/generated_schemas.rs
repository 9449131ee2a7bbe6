//! Whatever a model says along a grammar satisfies the schema that the grammar was made of: random
//! schemas, random walks, and a validator that shares no code with the grammars.

#![allow(
    clippy::unwrap_used,
    reason = "a test helper that panics fails its test"
)]

mod schema_generator;

use std::sync::Arc;

use backstop_text::constraint::{
    AnswerShape, CallShape, CallableTool, ConstraintFactory, Opening, TextShape,
};
use backstop_text::{
    ParsedMessage, ParserOptions, StreamOptions, TextStream, Tokenizer, chat_format,
};
use backstop_types::{SharedConstraint, TokenId};
use serde_json::{Value, json};

use self::schema_generator::{Random, schema};

const DEMO: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../models/demo/tokenizer.json"
);
const VOCABULARY_SIZE: usize = 4096;
const END_OF_TURN: TokenId = 4084;
const SCHEMAS: u64 = 2000;
/// Tokens after which a walk takes whatever brings it closer to the end.
const FREE_TOKENS: usize = 60;
/// No walk takes as many.
const TOKENS_MAX: usize = 6000;

struct Walker {
    tokenizer: Arc<Tokenizer>,
    factory: ConstraintFactory,
    /// Tokens that close what is open, in the order in which they are preferred.
    closers: Vec<TokenId>,
    /// Begins an object outside of strings, and never where `}` may end one.
    brace: TokenId,
    quote: TokenId,
}

impl Walker {
    fn new() -> Self {
        let tokenizer = Arc::new(Tokenizer::from_file(DEMO).unwrap());
        let format = chat_format("cohere_cmd4").unwrap();
        let factory = ConstraintFactory::new(
            Arc::clone(&tokenizer),
            format,
            &[END_OF_TURN],
            VOCABULARY_SIZE,
        );
        let closers = ["<|END_ACTION|>", "<|END_TEXT|>", "\n", "}", "]", "\"", ","];
        let mut closers: Vec<TokenId> = closers
            .iter()
            .map(|text| tokenizer.encode(text, false).unwrap()[0])
            .collect();
        closers.insert(0, END_OF_TURN);
        let token = |text: &str| tokenizer.encode(text, false).unwrap()[0];
        let (brace, quote) = (token("{"), token("\""));
        Self {
            tokenizer,
            factory: factory.unwrap(),
            closers,
            brace,
            quote,
        }
    }

    /// Says something that the grammar allows, up to its end.
    fn walk(&self, constraint: &SharedConstraint, random: &mut Random) -> Vec<TokenId> {
        let mut matcher = constraint.0.matcher();
        let mut mask = vec![0_u32; VOCABULARY_SIZE / 32];
        let mut tokens = Vec::new();
        while tokens.len() < TOKENS_MAX {
            matcher.fill_mask(&mut mask).unwrap();
            let is_allowed = |token: TokenId| mask[token as usize / 32] >> (token % 32) & 1 == 1;
            // Where `{` and what closes an object are both allowed, they are characters of a string,
            // which may have to meet its pattern before it can end.
            let mut closers = self.closers.iter().copied();
            let closer = closers.find(|token| is_allowed(*token));
            let closer = match closer.is_some_and(|_| is_allowed(self.brace)) {
                true => Some(self.quote).filter(|quote| is_allowed(*quote)),
                false => closer,
            };
            let token = match closer {
                Some(closer) if tokens.len() > FREE_TOKENS || random.one_in(3) => closer,
                _ => {
                    let allowed: Vec<TokenId> = (0..VOCABULARY_SIZE as TokenId)
                        .filter(|token| is_allowed(*token))
                        .collect();
                    *random.pick(&allowed)
                }
            };
            if token == END_OF_TURN {
                return tokens;
            }
            matcher.advance(token).unwrap();
            tokens.push(token);
        }
        panic!("no end after {TOKENS_MAX} tokens: {}", self.text(&tokens));
    }

    fn text(&self, tokens: &[TokenId]) -> String {
        self.tokenizer.decode(tokens, false).unwrap()
    }

    /// What the server makes of the tokens, whose text comes in pieces as tokens do.
    fn parse(&self, tokens: &[TokenId]) -> ParsedMessage {
        let parser = chat_format("cohere_cmd4").unwrap().parser(ParserOptions {
            parse_tools: true,
            ..ParserOptions::default()
        });
        let options = StreamOptions {
            stop: Vec::new(),
            min_tokens: 0,
            include_stop: false,
            skip_special_tokens: true,
            hidden_tokens: vec![END_OF_TURN],
            parser,
        };
        let mut stream = TextStream::new(Arc::clone(&self.tokenizer), options);
        let mut message = ParsedMessage::default();
        for token in tokens {
            let delta = stream.push(*token);
            delta
                .events
                .into_iter()
                .for_each(|event| message.apply(event));
        }
        stream
            .finish()
            .into_iter()
            .for_each(|event| message.apply(event));
        message
    }
}

fn validate(schema: &Value, json: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(json).map_err(|error| format!("{error}: {json}"))?;
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .map_err(|error| format!("{error}: {schema}"))?;
    validator
        .validate(&value)
        .map_err(|error| format!("{error}\n{schema}\n{json}"))
}

#[test]
fn every_call_along_a_grammar_parses_and_satisfies_its_tool() {
    let walker = Walker::new();
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
        let message = walker.parse(&tokens);
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
    let walker = Walker::new();
    for seed in SCHEMAS..SCHEMAS + SCHEMAS / 4 {
        let mut random = Random::new(seed);
        let schema = schema(&mut random);
        let shape = AnswerShape {
            opening: Opening::ReasoningClosed,
            text: Some(TextShape::Json(schema.clone())),
            calls: None,
        };
        let constraint = walker.factory.compile(&shape).unwrap();
        let message = walker.parse(&walker.walk(&constraint, &mut random));
        validate(&schema, &message.content).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}
