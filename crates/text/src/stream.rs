//! One answer on its way back: tokens to text, stop strings, reasoning, content and tool calls.

use std::sync::Arc;

use backstop_types::TokenId;

use crate::format::{OutputParser, ParsedEvent, push_merged};
use crate::{IncrementalDetokenizer, StopMatch, StopMatcher, Tokenizer};

/// How one answer is turned into events.
pub struct StreamOptions {
    /// Strings that end the answer. They are looked for before the text is parsed, in reasoning
    /// and tool calls too, as vLLM does. Unlike there, the parser's tags are no part of that text:
    /// a stop string such as `END` must not cut an answer off at `<|END_THINKING|>`.
    pub stop: Vec<String>,
    /// Stop strings count from the text of this many tokens on.
    pub min_tokens: u32,
    /// Keep the stop string that ended the answer in the text.
    pub include_stop: bool,
    /// Leave special tokens out, except those that the parser needs.
    pub skip_special_tokens: bool,
    /// Tokens that are never shown: those that end a turn, and the request's own stop tokens.
    pub hidden_tokens: Vec<TokenId>,
    /// Splits the text; see [`ChatFormat::parser`](crate::ChatFormat::parser).
    pub parser: Box<dyn OutputParser>,
}

/// Turns one answer's tokens into events.
pub struct TextStream {
    tokenizer: Arc<Tokenizer>,
    detokenizer: IncrementalDetokenizer,
    stop: StopMatcher,
    stopped: bool,
    /// Tokens to come before stop strings count.
    tokens_before_stop: u32,
    skip_special_tokens: bool,
    hidden_tokens: Vec<TokenId>,
    /// The parser's tags, which reach it even if they are special tokens.
    tag_tokens: Vec<TokenId>,
    parser: Box<dyn OutputParser>,
}

/// What one token brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamDelta {
    /// What is new, in order; deltas of the same kind are merged.
    pub events: Vec<ParsedEvent>,
    /// The stop string that the answer ran into. Tokens after it are ignored.
    pub stopped: Option<String>,
}

impl TextStream {
    /// Begins an answer.
    pub fn new(tokenizer: Arc<Tokenizer>, options: StreamOptions) -> Self {
        let tags = options.parser.tags().iter();
        Self {
            detokenizer: IncrementalDetokenizer::new(false),
            stop: StopMatcher::new(options.stop, options.include_stop),
            stopped: false,
            // The last of them may complete one.
            tokens_before_stop: options.min_tokens.saturating_sub(1),
            skip_special_tokens: options.skip_special_tokens,
            hidden_tokens: options.hidden_tokens,
            tag_tokens: tags.filter_map(|tag| tokenizer.token_to_id(tag)).collect(),
            parser: options.parser,
            tokenizer,
        }
    }

    /// Adds a token.
    pub fn push(&mut self, token: TokenId) -> StreamDelta {
        let delta = if self.stopped || !self.is_shown(token) {
            StreamDelta::default()
        } else if self.tag_tokens.contains(&token) {
            self.push_tag(token)
        } else {
            let text = self.detokenizer.push(&self.tokenizer, token);
            self.push_text(&text)
        };
        self.tokens_before_stop = self.tokens_before_stop.saturating_sub(1);
        delta
    }

    /// Ends the answer and returns what was held back. A second call returns nothing.
    pub fn finish(&mut self) -> Vec<ParsedEvent> {
        let mut events = if self.stopped {
            Vec::new()
        } else {
            self.end_text().events
        };
        self.stopped = true;
        for event in self.parser.finish() {
            push_merged(&mut events, event);
        }
        events
    }

    fn is_shown(&self, token: TokenId) -> bool {
        let skipped = self.skip_special_tokens
            && self.tokenizer.is_special(token)
            && !self.tag_tokens.contains(&token);
        !skipped && !self.hidden_tokens.contains(&token)
    }

    fn push_tag(&mut self, token: TokenId) -> StreamDelta {
        let mut delta = self.end_text();
        if !self.stopped {
            let tag = self.tokenizer.token_text(token);
            for event in self.parser.push(&tag) {
                push_merged(&mut delta.events, event);
            }
        }
        delta
    }

    /// Hands on what the detokenizer and the stop matcher hold back.
    fn end_text(&mut self) -> StreamDelta {
        let incomplete = self.detokenizer.finish();
        let mut delta = self.push_text(&incomplete);
        // If a stop string ended just there, the matcher holds nothing.
        for event in self.parser.push(&self.stop.finish()) {
            push_merged(&mut delta.events, event);
        }
        delta
    }

    fn push_text(&mut self, text: &str) -> StreamDelta {
        if text.is_empty() {
            return StreamDelta::default();
        }
        let found = match self.tokens_before_stop {
            0 => self.stop.push(text),
            _ => StopMatch {
                text: text.to_owned(),
                stopped: None,
            },
        };
        self.stopped |= found.stopped.is_some();
        let mut events = Vec::new();
        for event in self.parser.push(&found.text) {
            push_merged(&mut events, event);
        }
        StreamDelta {
            events,
            stopped: found.stopped,
        }
    }
}

#[cfg(test)]
mod tests;
