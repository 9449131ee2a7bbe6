//! Grammars: what an answer may look like, enforced token by token while it is sampled.
//!
//! An [`AnswerShape`] says what a request allows: text of some form, tool calls, or both. The chat
//! format writes it down as a grammar of the raw answer, tags and all; [`ConstraintFactory`]
//! compiles that for the model's vocabulary with `llguidance`, and what comes out is all that the
//! executor sees of it.
//!
//! Invariant: whatever a schema, pattern or grammar says, compiling it and following it takes
//! bounded time and memory ([`limits`]), or fails. Every sequence has a matcher of its own: none
//! waits for another's lock, and none fails because another has used up a shared limit.

mod automaton;
mod bounds;
mod budget;
mod cache;
mod error;
mod language;
mod limits;
mod lookaheads;
mod matcher;
mod omissions;
mod parameters;
mod pattern;
mod plain_expression;
mod property_names;
mod schema;
mod shape;
mod string_formats;
mod strings;
mod trial;
mod unique_items;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use backstop_types::{SharedConstraint, TokenId};
use llguidance::api::{GrammarInit, GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::panic_utils::catch_unwind;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Logger, ParserFactory};

pub use self::budget::ReasoningBudget;
pub(crate) use self::error::Fault;
pub use self::error::{ConstraintError, ConstraintReason, GrammarPart};
pub use self::omissions::LeftOut;
pub(crate) use self::omissions::Omissions;
pub(crate) use self::parameters::{ParameterLayout, grammars as parameter_grammars};
pub use self::shape::{AnswerShape, CallShape, CallableTool, Opening, TextShape};
pub(crate) use self::shape::{json_arguments, literal};
pub use self::trial::{Recipe, RecipeError};

use self::automaton::Automaton;
use self::cache::Cache;
use self::matcher::CompiledGrammar;
use self::shape::Part;
use crate::{ChatFormat, Tokenizer, deep_stack};

/// A grammar that is ready to be followed.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// The grammar.
    pub constraint: SharedConstraint,
    /// What it does not enforce.
    pub left_out: Arc<[LeftOut]>,
}

/// Compiles grammars for one model.
pub struct ConstraintFactory {
    parsers: ParserFactory,
    tokenizer: Arc<Tokenizer>,
    format: &'static ChatFormat,
    eos_tokens: Arc<[TokenId]>,
    vocabulary_size: usize,
    cache: Mutex<Cache>,
}

impl std::fmt::Debug for ConstraintFactory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ConstraintFactory")
            .field("format", &self.format.id)
            .finish_non_exhaustive()
    }
}

impl ConstraintFactory {
    /// Stack that [`try_out`](Self::try_out) takes.
    pub const TRIAL_STACK_BYTES: usize = limits::TRIAL_STACK_BYTES;

    /// Sorts the vocabulary for a model that has `vocabulary_size` logits; takes a moment for a
    /// large one.
    pub fn new(
        tokenizer: Arc<Tokenizer>,
        format: &'static ChatFormat,
        eos_token_ids: &[TokenId],
        vocabulary_size: usize,
    ) -> Result<Self, ConstraintError> {
        let known = |token: &TokenId| (*token as usize) < vocabulary_size;
        let eos_tokens: Arc<[TokenId]> = eos_token_ids.iter().copied().filter(known).collect();
        let unavailable = || ConstraintError::whole(ConstraintReason::Unavailable);
        let first_eos = *eos_tokens.first().ok_or_else(unavailable)?;
        let size = u32::try_from(vocabulary_size).map_err(|_| unavailable())?;
        let words = words(&tokenizer, format, &eos_tokens, vocabulary_size);
        let build = || {
            let trie = TokTrie::from(&TokRxInfo::new(size, first_eos), &words);
            let environment: TokEnv =
                Arc::new(ApproximateTokEnv::new(trie.with_eos_tokens(&eos_tokens)));
            let capabilities = InferenceCapabilities::default();
            let slices = SlicedBiasComputer::general_slices();
            ParserFactory::new(&environment, capabilities, &slices)
        };
        // A vocabulary that breaks the library's assumptions costs the feature, not the server.
        let built = catch_unwind(AssertUnwindSafe(build));
        let parsers = built.map_err(|_| unavailable())?;
        Ok(Self {
            parsers,
            tokenizer,
            format,
            eos_tokens,
            vocabulary_size,
            cache: Mutex::new(Cache::default()),
        })
    }

    /// The grammar of an answer, if it is among those that were compiled last.
    pub fn find(&self, shape: &AnswerShape) -> Option<Compiled> {
        self.cached().find(&cache_key(shape))
    }

    /// The grammar of an answer. What a request wrote can make this take seconds, and memory and
    /// stack without end: a server tries it elsewhere first ([`try_out`](Self::try_out)).
    pub fn compile_with_notes(&self, shape: &AnswerShape) -> Result<Compiled, ConstraintError> {
        let key = cache_key(shape);
        if let Some(found) = self.cached().find(&key) {
            return Ok(found);
        }
        let (automaton, left_out) = self.compile_on(limits::COMPILE_STACK_BYTES, shape)?;
        let bytes = automaton.bytes();
        let grammar = CompiledGrammar::new(automaton, Arc::clone(&self.eos_tokens));
        let compiled = Compiled {
            constraint: SharedConstraint(Arc::new(grammar)),
            left_out: left_out.into(),
        };
        self.cached().insert(key, compiled.clone(), bytes);
        Ok(compiled)
    }

    /// The grammar alone.
    pub fn compile(&self, shape: &AnswerShape) -> Result<SharedConstraint, ConstraintError> {
        self.compile_with_notes(shape)
            .map(|compiled| compiled.constraint)
    }

    /// Compiles a grammar and throws it away, in a process that may end by it and with less stack
    /// than [`compile`](Self::compile) has: what this process survives, others survive too.
    pub fn try_out(&self, shape: &AnswerShape) -> Result<(), ConstraintError> {
        self.compile_on(limits::TRIAL_STACK_BYTES, shape).map(drop)
    }

    /// Refuses what need not even be tried.
    pub fn check(shape: &AnswerShape) -> Result<(), ConstraintError> {
        bounds::check(shape)
    }

    fn compile_on(
        &self,
        stack_bytes: usize,
        shape: &AnswerShape,
    ) -> Result<(Automaton, Vec<LeftOut>), ConstraintError> {
        bounds::check(shape)?;
        let compiled = deep_stack::with_stack("grammar", stack_bytes, || self.compile_hints(shape));
        compiled.unwrap_or(Err(ConstraintError::whole(ConstraintReason::TooComplex)))
    }

    /// Leaves out of hints, one keyword after the other, what cannot be enforced.
    fn compile_hints(
        &self,
        shape: &AnswerShape,
    ) -> Result<(Automaton, Vec<LeftOut>), ConstraintError> {
        let mut left_out = Vec::new();
        loop {
            let error = match self.compile_here(shape, &left_out) {
                Ok(automaton) => {
                    left_out.sort_unstable();
                    return Ok((automaton, left_out));
                }
                Err(error) => error,
            };
            let remedy = omissions::remedy(error.part, error.reason, &left_out);
            match remedy.filter(|_| shape.is_hint(error.part)) {
                Some(remedy) if left_out.len() < limits::LEFT_OUT_MAX => left_out.push(remedy),
                _ => return Err(error),
            }
        }
    }

    fn compile_here(
        &self,
        shape: &AnswerShape,
        left_out: &[LeftOut],
    ) -> Result<Automaton, ConstraintError> {
        let layout = self.format.layout(shape, &self.tokenizer);
        let no_calls = ConstraintReason::NoToolCalls(self.format.id);
        let layout = layout.ok_or(ConstraintError::whole(no_calls))?;
        let parts = shape.parts(left_out, |tool, omitted| {
            self.format.arguments(tool, omitted, &self.tokenizer)
        })?;
        let whole = grammar(&layout, &parts);
        let limits = match shape.text {
            Some(TextShape::Lark(_)) => limits::foreign_parser_limits(),
            _ => limits::parser_limits(),
        };
        self.start(whole, limits)
            .map_err(|reason| self.blame(&parts, reason))
    }

    fn cached(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A parser whose first mask is known to exist.
    fn start(
        &self,
        grammar: TopLevelGrammar,
        limits: ParserLimits,
    ) -> Result<Automaton, ConstraintReason> {
        let create = || {
            self.parsers.create_parser_from_init_ext(
                GrammarInit::Serialized(grammar),
                Logger::new(0, 0),
                InferenceCapabilities::default(),
                limits,
            )
        };
        let parser = catch_unwind(AssertUnwindSafe(create));
        let parser = parser.map_err(|error| error::reason(&format!("{error:#}")))?;
        Automaton::new(parser).map_err(|message| error::reason(&message))
    }

    /// Finds the part that is to blame: the one that does not compile by itself either.
    fn blame(&self, parts: &[Part], reason: ConstraintReason) -> ConstraintError {
        for (part, grammars) in parts {
            let alone = TopLevelGrammar {
                grammars: grammars.clone(),
                max_tokens: None,
            };
            if let Err(reason) = self.start(alone, limits::parser_limits()) {
                return Fault::from(reason).of(*part);
            }
        }
        ConstraintError::whole(reason)
    }
}

/// The bytes of every token. Control tokens, and the tags of the chat format, get a mark in front
/// that no text can match: grammars name them by their ids.
fn words(
    tokenizer: &Tokenizer,
    format: &ChatFormat,
    eos_tokens: &[TokenId],
    vocabulary_size: usize,
) -> Vec<Vec<u8>> {
    let tags = format.tag_tokens(tokenizer);
    let ids = 0..u32::try_from(vocabulary_size).unwrap_or(u32::MAX);
    let words = ids.map(|id| {
        let bytes = tokenizer.token_bytes(id).unwrap_or_default();
        let marked = tokenizer.is_special(id) || tags.contains(&id) || eos_tokens.contains(&id);
        if marked {
            [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat()
        } else if bytes.len() > limits::TOKEN_BYTES_MAX {
            Vec::new()
        } else {
            bytes.to_vec()
        }
    });
    words.collect()
}

fn grammar(layout: &str, parts: &[Part]) -> TopLevelGrammar {
    let mut grammars = vec![GrammarWithLexer::from_lark(layout.to_owned())];
    grammars.extend(parts.iter().flat_map(|(_, grammars)| grammars).cloned());
    TopLevelGrammar {
        grammars,
        max_tokens: None,
    }
}

/// Everything that the compiled grammar depends on.
fn cache_key(shape: &AnswerShape) -> String {
    // Cannot fail: all keys are strings.
    serde_json::to_string(shape).unwrap_or_default()
}

#[cfg(test)]
mod tests;
