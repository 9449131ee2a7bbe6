//! Random walks along grammars, with tokens of the demo model's vocabulary.

use std::sync::Arc;

use backstop_text::constraint::ConstraintFactory;
use backstop_text::{
    ChatFormat, OfferedTools, ParsedMessage, ParserOptions, StreamOptions, TextStream, Tokenizer,
    chat_format,
};
use backstop_types::{SharedConstraint, TokenId};
use serde_json::{Value, json};

use crate::schema_generator::Random;

const DEMO: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../models/demo/tokenizer.json"
);
pub(crate) const END_OF_TURN: TokenId = 4084;
const DEMO_VOCABULARY_SIZE: usize = 4096;
/// Tokens after which a walk takes whatever brings it closer to the end.
const FREE_TOKENS: usize = 60;
/// No walk takes as many.
const TOKENS_MAX: usize = 6000;

pub(crate) struct Walker {
    format: &'static ChatFormat,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) factory: ConstraintFactory,
    pub(crate) vocabulary_size: usize,
    /// Tokens that close what is open, in the order in which they are preferred.
    closers: Vec<TokenId>,
    /// Begins an object outside of strings, and never where `}` may end one.
    brace: TokenId,
    quote: TokenId,
}

impl Walker {
    /// A walker in a vocabulary that has these tags as control tokens. `closers` are texts of one
    /// token that close what is open.
    pub(crate) fn new(format: &str, tags: &[&str], closers: &[&str]) -> Self {
        let mut source: Value = serde_json::from_slice(&std::fs::read(DEMO).unwrap()).unwrap();
        let added = source["added_tokens"].as_array_mut().unwrap();
        for (index, tag) in tags.iter().enumerate() {
            added.push(
                json!({"id": DEMO_VOCABULARY_SIZE + index, "content": tag, "special": true,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}),
            );
        }
        let tokenizer = Tokenizer::from_json(source.to_string().as_bytes()).unwrap();
        let vocabulary_size = tokenizer.vocab_size();
        let tokenizer = Arc::new(tokenizer);
        let format = chat_format(format).unwrap();
        let eos = [END_OF_TURN];
        let factory = ConstraintFactory::new(Arc::clone(&tokenizer), format, &eos, vocabulary_size);
        let token = |text: &str| tokenizer.encode(text, false).unwrap()[0];
        let closers = closers.iter().chain(&["\n", "}", "]", "\"", ","]);
        let closers = std::iter::once(END_OF_TURN).chain(closers.map(|text| token(text)));
        Self {
            format,
            factory: factory.unwrap(),
            closers: closers.collect(),
            brace: token("{"),
            quote: token("\""),
            tokenizer,
            vocabulary_size,
        }
    }

    /// Says something that the grammar allows, up to its end.
    pub(crate) fn walk(&self, constraint: &SharedConstraint, random: &mut Random) -> Vec<TokenId> {
        let mut matcher = constraint.0.matcher();
        let mut mask = vec![0_u32; self.vocabulary_size.div_ceil(32)];
        let mut tokens = Vec::new();
        while tokens.len() < TOKENS_MAX {
            matcher.fill_mask(&mut mask).unwrap();
            let is_allowed = |token: TokenId| mask[token as usize / 32] >> (token % 32) & 1 == 1;
            // Where `{` and what closes an object are both allowed, they are characters of a string,
            // which may have to meet its pattern before it can end.
            let mut closers = self.closers.iter().copied();
            let closer = closers.find(|token| is_allowed(*token));
            let is_text = closer.is_some_and(|closer| !self.tokenizer.is_special(closer));
            let closer = match is_text && is_allowed(self.brace) {
                true => Some(self.quote).filter(|quote| is_allowed(*quote)),
                false => closer,
            };
            let token = match closer {
                Some(closer) if tokens.len() > FREE_TOKENS || random.one_in(3) => closer,
                _ => {
                    let allowed: Vec<TokenId> = (0..self.vocabulary_size as TokenId)
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

    pub(crate) fn text(&self, tokens: &[TokenId]) -> String {
        self.tokenizer.decode(tokens, false).unwrap()
    }

    /// What the server makes of the tokens, whose text comes in pieces as tokens do.
    pub(crate) fn parse(&self, tokens: &[TokenId], tools: &[Value]) -> ParsedMessage {
        let parser = self.format.parser(ParserOptions {
            parse_tools: true,
            tools: OfferedTools::new(tools),
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

pub(crate) fn validate(schema: &Value, json: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(json).map_err(|error| format!("{error}: {json}"))?;
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .map_err(|error| format!("{error}: {schema}"))?;
    validator
        .validate(&value)
        .map_err(|error| format!("{error}\n{schema}\n{json}"))
}
