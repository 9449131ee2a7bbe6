//! The library's parser, held within limits: it gives up where it has grown too large, and after a
//! panic nobody uses it again.

use std::panic::AssertUnwindSafe;

use llguidance::TokenParser;
use llguidance::api::StopReason;
use llguidance::panic_utils::catch_unwind;
use llguidance::toktrie::SimpleVob;

use backstop_types::TokenId;

use super::limits;

/// A parser at some point of its grammar. The library's messages may repeat the request, so that
/// only its words for refusing a grammar leave this place.
pub(super) struct Automaton {
    parser: TokenParser,
    /// It failed: what it would say now means nothing.
    failed: bool,
}

impl Automaton {
    /// A parser at the beginning of its grammar, whose first mask exists.
    pub(super) fn new(mut parser: TokenParser) -> Result<Self, String> {
        parser.start_without_prompt();
        let mut automaton = Self {
            parser,
            failed: false,
        };
        automaton.guarded(|parser| parser.compute_mask().map_err(|error| format!("{error:#}")))?;
        match automaton.bytes() > limits::COMPILED_BYTES_MAX {
            true => Err("too large".to_owned()),
            false => Ok(automaton),
        }
    }

    /// Bytes of its tables, about.
    pub(super) fn bytes(&self) -> usize {
        self.parser.parser.lexer_stats().num_bytes
    }

    /// The same again, tables included. Clones that share them would wait for each other's masks,
    /// share their limits and, after a panic, a poisoned lock.
    pub(super) fn deep_clone(&self) -> Self {
        Self {
            parser: self.parser.deep_clone(),
            failed: self.failed,
        }
    }

    /// Whether nothing may follow but the end.
    pub(super) fn is_complete(&self) -> bool {
        let reason = self.parser.stop_reason();
        matches!(reason, StopReason::NoExtension | StopReason::EndOfSentence)
    }

    /// Goes on by one token.
    pub(super) fn consume(&mut self, token: TokenId) -> Result<(), String> {
        self.guarded(|parser| {
            let consumed = parser
                .consume_token(token)
                .and_then(|_| parser.check_stop());
            consumed.map(drop).map_err(|error| format!("{error:#}"))
        })
    }

    /// The tokens that may come next.
    pub(super) fn mask(&mut self) -> Result<SimpleVob, String> {
        // Tables grow with what has been seen, and those of grammars made for it without end.
        if !self.failed && self.bytes() > limits::MATCHER_BYTES_MAX {
            self.failed = true;
        }
        self.guarded(|parser| parser.compute_mask().map_err(|error| format!("{error:#}")))
    }

    fn guarded<T>(
        &mut self,
        work: impl FnOnce(&mut TokenParser) -> Result<T, String>,
    ) -> Result<T, String> {
        if self.failed {
            return Err("failed before".to_owned());
        }
        let parser = &mut self.parser;
        let result = catch_unwind(AssertUnwindSafe(|| Ok(work(parser))));
        let result = result.unwrap_or_else(|error| Err(format!("{error:#}")));
        self.failed = result.is_err();
        result
    }
}
