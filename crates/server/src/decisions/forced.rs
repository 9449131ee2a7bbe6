//! An answer that is known: the engine is to say how likely it is, not to find one.

use std::sync::Arc;

use backstop_types::{Constraint, ConstraintFault, ConstraintMatcher, SharedConstraint, TokenId};

/// Lets these tokens alone be sampled, one after the other.
#[derive(Debug)]
struct Forced(Arc<[TokenId]>);

struct Follower {
    tokens: Arc<[TokenId]>,
    next: usize,
}

/// The constraint that leaves nothing but these tokens, of which there is at least one.
pub(super) fn forced(tokens: Vec<TokenId>) -> SharedConstraint {
    SharedConstraint(Arc::new(Forced(tokens.into())))
}

impl Constraint for Forced {
    fn matcher(&self) -> Box<dyn ConstraintMatcher> {
        Box::new(Follower {
            tokens: Arc::clone(&self.0),
            next: 0,
        })
    }
}

impl ConstraintMatcher for Follower {
    fn advance(&mut self, token: TokenId) -> Result<(), ConstraintFault> {
        match self.tokens.get(self.next) {
            Some(expected) if *expected == token => {
                self.next += 1;
                Ok(())
            }
            _ => Err(ConstraintFault),
        }
    }

    fn fill_mask(&mut self, mask: &mut [u32]) -> Result<(), ConstraintFault> {
        mask.fill(0);
        // Behind the last one nothing is sampled any more.
        let token = self.tokens.get(self.next).or(self.tokens.last());
        let token = *token.ok_or(ConstraintFault)?;
        let word = mask.get_mut(token as usize / 32).ok_or(ConstraintFault)?;
        *word |= 1 << (token % 32);
        Ok(())
    }
}
