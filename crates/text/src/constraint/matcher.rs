//! A compiled grammar, and the matchers that follow it.

use std::sync::{Arc, Mutex, PoisonError};

use backstop_types::{Constraint, ConstraintFault, ConstraintMatcher, TokenId};

use super::automaton::Automaton;

/// A grammar at its beginning.
pub(super) struct CompiledGrammar {
    /// Cloned for every sequence.
    prototype: Mutex<Automaton>,
    eos_tokens: Arc<[TokenId]>,
}

impl CompiledGrammar {
    pub(super) fn new(prototype: Automaton, eos_tokens: Arc<[TokenId]>) -> Self {
        Self {
            prototype: Mutex::new(prototype),
            eos_tokens,
        }
    }
}

impl std::fmt::Debug for CompiledGrammar {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("CompiledGrammar")
    }
}

impl Constraint for CompiledGrammar {
    fn matcher(&self) -> Box<dyn ConstraintMatcher> {
        let prototype = self.prototype.lock();
        let automaton = prototype
            .unwrap_or_else(PoisonError::into_inner)
            .deep_clone();
        Box::new(GrammarMatcher {
            automaton,
            eos_tokens: Arc::clone(&self.eos_tokens),
            ended: false,
        })
    }
}

/// Where one sequence is in its grammar.
struct GrammarMatcher {
    automaton: Automaton,
    eos_tokens: Arc<[TokenId]>,
    /// A token that ends the sequence has come.
    ended: bool,
}

impl GrammarMatcher {
    /// Whether nothing may follow but the end.
    fn is_complete(&self) -> bool {
        self.ended || self.automaton.is_complete()
    }
}

impl ConstraintMatcher for GrammarMatcher {
    fn advance(&mut self, token: TokenId) -> Result<(), ConstraintFault> {
        let ends = self.eos_tokens.contains(&token);
        if self.is_complete() {
            self.ended |= ends;
            return if self.ended {
                Ok(())
            } else {
                Err(ConstraintFault)
            };
        }
        // The library's words may repeat the answer, so nobody gets to see them.
        self.automaton.consume(token).map_err(|_| ConstraintFault)?;
        self.ended = ends;
        Ok(())
    }

    fn fill_mask(&mut self, mask: &mut [u32]) -> Result<(), ConstraintFault> {
        mask.fill(0);
        if self.is_complete() {
            self.eos_tokens.iter().for_each(|token| allow(mask, *token));
        } else {
            let allowed = self.automaton.mask().map_err(|_| ConstraintFault)?;
            for (word, allowed) in mask.iter_mut().zip(allowed.as_slice()) {
                *word = *allowed;
            }
        }
        if mask.iter().all(|word| *word == 0) {
            return Err(ConstraintFault);
        }
        Ok(())
    }
}

fn allow(mask: &mut [u32], token: TokenId) {
    if let Some(word) = mask.get_mut(token as usize / 32) {
        *word |= 1 << (token % 32);
    }
}
