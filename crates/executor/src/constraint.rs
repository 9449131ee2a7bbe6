//! A sequence's place in its grammar, and the mask of tokens that may come next.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use backstop_types::{ConstraintFault, ConstraintMatcher, SequenceStart, TokenId};
use rayon::prelude::*;

/// Follows one sequence through its grammar.
pub(crate) struct Follower {
    /// `None` once the grammar is lost, which it stays.
    matcher: Option<Box<dyn ConstraintMatcher>>,
    /// Generated tokens that the matcher has not been told of.
    pending: Vec<TokenId>,
    mask: Vec<u32>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = self.matcher.is_none();
        write!(formatter, "Follower {{ lost: {lost} }}")
    }
}

impl Follower {
    /// For a sequence that enters its slot, if it has a grammar.
    pub(crate) fn new(start: &SequenceStart) -> Option<Self> {
        let constraint = &start.sampling.constraint.as_ref()?.0;
        Some(Self {
            matcher: catch_unwind(AssertUnwindSafe(|| constraint.matcher())).ok(),
            pending: start.tokens[start.prompt_len as usize..].to_vec(),
            mask: Vec::new(),
        })
    }

    /// Takes in what was sampled for the sequence.
    pub(crate) fn push(&mut self, token: Option<TokenId>) {
        match token {
            Some(token) => self.pending.push(token),
            None => self.matcher = None,
        }
    }

    /// The mask that was made last: that of a lost grammar allows nothing.
    pub(crate) fn allowed(&self) -> &[u32] {
        &self.mask
    }

    /// Tells the matcher what was generated, and makes the mask of what may come next. A grammar
    /// that panics has lost its own sequence, not the step.
    fn prepare(&mut self, vocabulary: usize) {
        self.mask.clear();
        self.mask.resize(vocabulary.div_ceil(32), 0);
        let Some(matcher) = &mut self.matcher else {
            return;
        };
        let (pending, mask) = (&mut self.pending, &mut self.mask);
        let work = || {
            for token in pending.drain(..) {
                matcher.advance(token)?;
            }
            fill_mask(&mut **matcher, mask, vocabulary)
        };
        if !matches!(catch_unwind(AssertUnwindSafe(work)), Ok(Ok(()))) {
            self.matcher = None;
            self.mask.fill(0);
        }
    }
}

/// A mask that allows nothing is a fault.
fn fill_mask(
    matcher: &mut dyn ConstraintMatcher,
    mask: &mut [u32],
    vocabulary: usize,
) -> Result<(), ConstraintFault> {
    matcher.fill_mask(mask)?;
    // Bits behind the vocabulary's last token say nothing.
    if let Some(last) = mask.last_mut()
        && !vocabulary.is_multiple_of(32)
    {
        *last &= (1 << (vocabulary % 32)) - 1;
    }
    match mask.iter().any(|&word| word != 0) {
        true => Ok(()),
        false => Err(ConstraintFault),
    }
}

/// Makes the masks of what may come next, side by side in the thread pool that this is called in.
pub(crate) fn prepare_masks<'a>(
    followers: impl Iterator<Item = &'a mut Follower>,
    vocabulary: usize,
) {
    let mut due: Vec<&mut Follower> = followers.collect();
    due.par_iter_mut()
        .for_each(|follower| follower.prepare(vocabulary));
}
