//! What a sequence may say: a grammar as the executor sees it.
//!
//! Grammars are compiled by `backstop-text`; the executor asks only which tokens may come next.

use std::fmt;
use std::sync::Arc;

use crate::TokenId;

/// A grammar, compiled for the model's vocabulary and shared by the sequences that follow it.
pub trait Constraint: fmt::Debug + Send + Sync {
    /// A matcher at the beginning of an answer.
    fn matcher(&self) -> Box<dyn ConstraintMatcher>;
}

/// Follows one sequence through a grammar.
pub trait ConstraintMatcher: Send {
    /// Takes in the token that was sampled, which the last mask allowed.
    fn advance(&mut self, token: TokenId) -> Result<(), ConstraintFault>;

    /// Sets bit `token % 32` of word `token / 32` for every token that may come next, and clears
    /// all others. Where the grammar is complete, the tokens that end a sequence are allowed; at
    /// least one token always is.
    fn fill_mask(&mut self, mask: &mut [u32]) -> Result<(), ConstraintFault>;
}

/// The grammar cannot be followed any further within its limits of time and memory, or a token
/// came that it does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConstraintFault;

/// A [`Constraint`] among sampling parameters, which are cloned and compared: two are equal if
/// they are the same object.
#[derive(Clone, Debug)]
pub struct SharedConstraint(pub Arc<dyn Constraint>);

impl PartialEq for SharedConstraint {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
