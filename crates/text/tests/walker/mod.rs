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
    /// Texts of several tokens that do so, where tags are no tokens.
    closing_texts: Vec<Vec<TokenId>>,
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
            closing_texts: Vec::new(),
            brace: token("{"),
            quote: token("\""),
            tokenizer,
            vocabulary_size,
        }
    }

    /// A walker that also closes what is open with these texts.
    pub(crate) fn with_closing_texts(mut self, texts: &[&str]) -> Self {
        let tokens = |text: &&str| self.tokenizer.encode(text, false).unwrap();
        self.closing_texts = texts.iter().map(tokens).collect();
        self
    }

    /// Says something that the grammar allows, up to its end.
    pub(crate) fn walk(&self, constraint: &SharedConstraint, random: &mut Random) -> Vec<TokenId> {
        let mut matcher = constraint.0.matcher();
        let mut mask = vec![0_u32; self.vocabulary_size.div_ceil(32)];
        let mut tokens = Vec::new();
        let mut closing: Vec<TokenId> = Vec::new();
        let mut has_closed = false;
        while tokens.len() < TOKENS_MAX {
            matcher.fill_mask(&mut mask).unwrap();
            let is_allowed = |token: TokenId| mask[token as usize / 32] >> (token % 32) & 1 == 1;
            let closes = tokens.len() > FREE_TOKENS || random.one_in(3);
            // A text that was data where it stood closes nothing: not the same one at once again.
            if closing.is_empty() && closes && !has_closed && !is_allowed(END_OF_TURN) {
                let texts = self.closing_texts.iter();
                let texts: Vec<_> = texts.filter(|text| is_allowed(text[0])).collect();
                if !texts.is_empty() {
                    closing = random.pick(&texts).iter().rev().copied().collect();
                }
                has_closed = !closing.is_empty();
            } else {
                has_closed = false;
            }
            if let Some(token) = closing.pop() {
                if is_allowed(token) {
                    matcher.advance(token).unwrap();
                    tokens.push(token);
                    has_closed = true;
                    continue;
                }
                closing.clear();
            }
            // Where `{` and what closes an object are both allowed, they are characters of a string,
            // which may have to meet its pattern before it can end.
            let mut closers = self.closers.iter().copied();
            let closer = closers.find(|token| is_allowed(*token));
            let is_text = closer.is_some_and(|closer| !self.tokenizer.is_special(closer));
            let closer = match is_text && is_allowed(self.brace) {
                // In text without quotes, one closes nothing.
                true if !self.closing_texts.is_empty() && !random.one_in(4) => None,
                true => Some(self.quote).filter(|quote| is_allowed(*quote)),
                false => closer,
            };
            let token = match closer {
                Some(closer) if closes => closer,
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
        let parser_options = ParserOptions {
            parse_tools: true,
            tools: OfferedTools::new(tools),
            ..ParserOptions::default()
        };
        let mut at_once = self.format.parser(parser_options.clone());
        let parser = self.format.parser(parser_options);
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
        let mut events = at_once.push(&self.text(tokens));
        events.extend(at_once.finish());
        assert_eq!(ParsedMessage::from_iter(events), message, "streamed or not");
        message
    }
}

/// What closes names, values and calls that are text in a format.
pub(crate) fn closing_texts(format: &str) -> &'static [&'static str] {
    match format {
        // A digit is what a pattern may be waiting for.
        "qwen3_coder" => &["\n</parameter>\n", ">\n", "</function>", "1"],
        "glm45" | "glm47" => &["</arg_value>", "</arg_key>", "</tool_call>", "1"],
        _ => &[],
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
