//! Schemas, patterns and grammars that are out to waste time or memory are refused, or followed
//! within the limits that hold for all.

#![allow(
    clippy::unwrap_used,
    reason = "a test helper that panics fails its test"
)]

use std::sync::Arc;

use backstop_text::constraint::{
    AnswerShape, ConstraintFactory, ConstraintReason, Opening, TextShape,
};
use backstop_text::{Tokenizer, chat_format};
use backstop_types::TokenId;
use serde_json::{Map, Value, json};

const DEMO: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../models/demo/tokenizer.json"
);
const VOCABULARY_SIZE: usize = 4096;
const END_OF_TURN: TokenId = 4084;
/// Tokens to follow a grammar for.
const STEPS: usize = 100;
const PRIMES: [u32; 12] = [7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47];

const TOO_COMPLEX: Expected = Err(ConstraintReason::TooComplex);
const UNSATISFIABLE: Expected = Err(ConstraintReason::Unsatisfiable);
const INVALID: Expected = Err(ConstraintReason::Invalid);

/// `Ok` if the grammar compiles, whether it can then be followed for long or not.
type Expected = Result<(), ConstraintReason>;

const fn keyword(name: &'static str) -> Expected {
    Err(ConstraintReason::Keyword(name))
}

fn nested(depth: usize, wrap: impl Fn(Value) -> Value) -> Value {
    (0..depth).fold(json!({"type": "string"}), |inner, _| wrap(inner))
}

fn properties(count: usize, value: impl Fn(usize) -> Value) -> Value {
    let properties: Map<String, Value> = (0..count)
        .map(|index| (format!("property_{index}"), value(index)))
        .collect();
    json!({"type": "object", "properties": properties})
}

fn pattern(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

fn many(count: usize, value: impl Fn(usize) -> Value) -> Vec<Value> {
    (0..count).map(value).collect()
}

/// References each of which stands for two of the next.
fn doubling(levels: usize, combine: &str) -> Value {
    let mut definitions = Map::new();
    for level in 0..levels {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        definitions.insert(format!("d{level}"), json!({combine: [next.clone(), next]}));
    }
    definitions.insert(
        format!("d{levels}"),
        properties(3, |_| json!({"type": "number"})),
    );
    json!({"$ref": "#/$defs/d0", "$defs": definitions})
}

fn structures() -> Vec<(Value, Expected)> {
    let circle = json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}});
    let itself = json!({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, {"type": "object"}]}}});
    let product = many(
        24,
        |index| json!({"anyOf": [{"properties": {"a": {"minimum": index}}}, {"properties": {"b": {"maximum": index}}}]}),
    );
    let mut counted = properties(100, |_| json!({"type": "integer"}));
    counted["minProperties"] = json!(1);
    let names: Map<String, Value> = (0..60)
        .map(|index| (format!("^{index}.*(a|b)*a(a|b){{20}}$"), json!({})))
        .collect();
    let bounded =
        |inner| json!({"type": "array", "items": inner, "minItems": 1000, "maxItems": 10_000});
    vec![
        (nested(6, bounded), Ok(())),
        (
            nested(100, |inner| json!({"type": "array", "items": inner})),
            Ok(()),
        ),
        (
            nested(
                9,
                |inner| json!({"anyOf": [inner, {"type": "array", "items": inner}]}),
            ),
            Ok(()),
        ),
        (circle, UNSATISFIABLE),
        (itself, keyword("$ref")),
        (doubling(60, "anyOf"), Ok(())),
        (doubling(60, "allOf"), Ok(())),
        (json!({"allOf": product}), TOO_COMPLEX),
        (properties(500, |_| json!({"type": "integer"})), Ok(())),
        (
            properties(3000, |_| json!({"type": "integer"})),
            TOO_COMPLEX,
        ),
        (counted, TOO_COMPLEX),
        (
            json!({"enum": many(20_000, |index| json!(format!("value {index}")))}),
            Ok(()),
        ),
        (
            json!({"enum": many(3000, |index| json!({"a": [index]}))}),
            TOO_COMPLEX,
        ),
        (
            json!({"type": "array", "prefixItems": many(5000, |_| json!({}))}),
            TOO_COMPLEX,
        ),
        (
            json!({"type": "array", "minItems": 4_000_000_000_u64}),
            Ok(()),
        ),
        (
            json!({"patternProperties": names}),
            keyword("patternProperties"),
        ),
        (json!({"description": "x".repeat(600_000)}), TOO_COMPLEX),
    ]
}

fn scalars() -> Vec<(Value, Expected)> {
    let multiples = many(
        12,
        |index| json!({"type": "integer", "multipleOf": PRIMES[index]}),
    );
    vec![
        (
            json!({"type": "string", "minLength": 1_000_000, "maxLength": 2_000_000}),
            Ok(()),
        ),
        (json!({"type": "string", "minLength": u64::MAX}), INVALID),
        (pattern("^((a{1000}){1000}){1000}$"), Ok(())),
        (pattern("^(.{0,500}x){0,500}$"), Ok(())),
        (pattern("^(a|b)*a(a|b){40}$"), Ok(())),
        (pattern("a.{2000}b"), Ok(())),
        (pattern("^(\\p{L}{50}|\\p{N}{60}|\\w{70}){50}$"), Ok(())),
        (
            json!({"type": "integer", "multipleOf": 982_451_653}),
            TOO_COMPLEX,
        ),
        (
            json!({"type": "number", "multipleOf": 1e-300}),
            keyword("multipleOf"),
        ),
        (json!({"allOf": multiples}), TOO_COMPLEX),
        (
            json!({"type": "number", "minimum": -1.797e308, "maximum": 1.797e308}),
            TOO_COMPLEX,
        ),
        (
            json!({"type": "number", "exclusiveMinimum": 0, "maximum": 5e-324}),
            Ok(()),
        ),
        (
            properties(40, |_| json!({"const": "x".repeat(10_000)})),
            Ok(()),
        ),
    ]
}

fn grammars() -> Vec<(TextShape, Expected)> {
    let lark = |source: &str| TextShape::Lark(source.to_owned());
    let brackets = |count: usize| format!("{}\"a\"{}", "(".repeat(count), ")".repeat(count));
    let within = format!(
        "start: {}{}",
        "%lark { start: ".repeat(500),
        "}".repeat(500)
    );
    let choices = |count| (0..count).map(|index| format!("{index} {}", "y".repeat(400)));
    vec![
        (lark("start: s\ns: s s | \"a\" | \"\""), Ok(())),
        (lark("start: s\ns: s s s | s s | \"a\"?"), Ok(())),
        (lark("start: start \"a\" | \"a\""), Ok(())),
        (lark("start: a{1000000}\na: b{1000000}\nb: \"x\""), Ok(())),
        (lark(&format!("start: {}", brackets(20_000))), TOO_COMPLEX),
        (lark(&within), INVALID),
        (lark("start: @answer"), INVALID),
        (lark("start: @text"), UNSATISFIABLE),
        (lark(""), INVALID),
        (lark("start: (\"\" | \"\")*"), Ok(())),
        (TextShape::Regex(brackets(100_000)), INVALID),
        (
            TextShape::Regex("((((((a{99}){99}){99}){99}){99}){99})".to_owned()),
            Ok(()),
        ),
        (TextShape::Regex("(.*a.{60}b){30}".to_owned()), Ok(())),
        (TextShape::Choice(choices(1000).collect()), Ok(())),
        (TextShape::Choice(choices(5000).collect()), TOO_COMPLEX),
    ]
}

/// Takes the allowed token with the highest id, which in most vocabularies is a long one.
fn follow(factory: &ConstraintFactory, shape: &AnswerShape) -> Expected {
    let constraint = factory.compile(shape).map_err(|error| error.reason)?;
    let mut matcher = constraint.0.matcher();
    let mut mask = vec![0; VOCABULARY_SIZE / 32];
    for _ in 0..STEPS {
        if matcher.fill_mask(&mut mask).is_err() {
            break;
        }
        let allowed = |token: &TokenId| mask[*token as usize / 32] >> (token % 32) & 1 == 1;
        let mut tokens = (0..VOCABULARY_SIZE as TokenId).rev().filter(allowed);
        let token = tokens.find(|token| *token != END_OF_TURN);
        if token.is_none_or(|token| matcher.advance(token).is_err()) {
            break;
        }
    }
    Ok(())
}

#[test]
fn hostile_sources_are_refused_or_followed_within_limits() {
    let tokenizer = Arc::new(Tokenizer::from_file(DEMO).unwrap());
    let format = chat_format("plain").unwrap();
    let factory = ConstraintFactory::new(tokenizer, format, &[END_OF_TURN], VOCABULARY_SIZE);
    let factory = factory.unwrap();
    let schemas = structures().into_iter().chain(scalars());
    let schemas = schemas.map(|(schema, expected)| (TextShape::Json(schema), expected));
    for (index, (text, expected)) in schemas.chain(grammars()).enumerate() {
        let shape = AnswerShape {
            opening: Opening::Turn,
            text: Some(text.clone()),
            calls: None,
        };
        let start: String = format!("{text:?}").chars().take(200).collect();
        assert_eq!(
            follow(&factory, &shape),
            expected,
            "source {index}: {start}"
        );
    }
}

/// Sources that make the library recurse: within the bounds as deep as they can, and ten times
/// deeper.
fn deep_sources() -> Vec<(TextShape, bool)> {
    let lark_chain = |length: usize| {
        let rules = (0..length).map(|index| format!("r{index}: \"x\" r{}\n", index + 1));
        TextShape::Lark(format!(
            "start: r0\nr{length}: \"y\"\n{}",
            rules.collect::<String>()
        ))
    };
    let terminals = |length: usize| {
        let rules = (0..length).map(|index| format!("T{index}: \"x\" T{}\n", index + 1));
        TextShape::Lark(format!(
            "start: T0\nT{length}: \"y\"\n{}",
            rules.collect::<String>()
        ))
    };
    let references = |length: usize, wrap: fn(Value) -> Value| {
        let definitions = (0..length).map(|index| {
            let next = json!({"$ref": format!("#/$defs/d{}", index + 1)});
            (format!("d{index}"), wrap(next))
        });
        let mut definitions: Map<String, Value> = definitions.collect();
        definitions.insert(format!("d{length}"), json!({"type": "null"}));
        TextShape::Json(json!({"$ref": "#/$defs/d0", "$defs": definitions}))
    };
    let property: fn(Value) -> Value =
        |next| json!({"type": "object", "properties": {"a": next}, "required": ["a"]});
    let all: fn(Value) -> Value = |next| json!({"allOf": [next]});
    let itself: fn(Value) -> Value = |next| next;
    vec![
        (lark_chain(800), true),
        (lark_chain(16_000), true),
        (lark_chain(30_000), false),
        (terminals(16_000), true),
        (terminals(30_000), false),
        (references(250, property), true),
        (references(2500, property), true),
        (references(10_000, property), false),
        (references(1000, all), true),
        (references(10_000, all), false),
        (references(1000, itself), true),
        (references(8000, itself), false),
    ]
}

#[test]
fn deep_sources_are_compiled_or_refused_but_never_overflow_the_stack() {
    let tokenizer = Arc::new(Tokenizer::from_file(DEMO).unwrap());
    let format = chat_format("plain").unwrap();
    let factory = ConstraintFactory::new(tokenizer, format, &[END_OF_TURN], VOCABULARY_SIZE);
    let factory = factory.unwrap();
    for (index, (text, within)) in deep_sources().into_iter().enumerate() {
        let shape = AnswerShape {
            opening: Opening::Turn,
            text: Some(text),
            calls: None,
        };
        let checked = ConstraintFactory::check(&shape);
        assert_eq!(checked.is_ok(), within, "source {index}");
        // Half the stack has to do.
        let tried = factory.try_out(&shape);
        assert!(within || tried.is_err(), "source {index}");
        let _ignored = factory.compile(&shape);
    }
}
