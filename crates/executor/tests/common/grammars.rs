//! Small grammars, written by hand, and requests that follow them.

use std::sync::Arc;

use backstop_types::{
    Constraint, ConstraintFault, ConstraintMatcher, FinishReason, SamplingParams, SharedConstraint,
    TokenId,
};

use super::{Driven, Request};

/// Token number `n` of the answer is congruent to `n` modulo this.
const MODULUS: u32 = 7;
/// Ends the answers.
pub const END: TokenId = 3;

/// What a grammar does instead of allowing the token with a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// It gives no mask.
    Mask,
    /// It does not take the token before.
    Advance,
    /// It allows nothing.
    Nothing,
    /// It panics.
    Panic,
}

/// Allows `length` tokens, and then the end.
#[derive(Clone, Debug)]
pub struct Congruent {
    pub length: u32,
    /// From this token on it misbehaves.
    pub fault: Option<(u32, Fault)>,
}

struct Matcher {
    grammar: Congruent,
    count: u32,
}

impl Constraint for Congruent {
    fn matcher(&self) -> Box<dyn ConstraintMatcher> {
        Box::new(Matcher {
            grammar: self.clone(),
            count: 0,
        })
    }
}

impl Matcher {
    fn fault(&self) -> Option<Fault> {
        let (count, fault) = self.grammar.fault?;
        (self.count >= count).then_some(fault)
    }

    fn allows(&self, token: TokenId) -> bool {
        match self.count < self.grammar.length {
            true => token % MODULUS == self.count % MODULUS && token != END,
            false => token == END,
        }
    }
}

impl ConstraintMatcher for Matcher {
    fn advance(&mut self, token: TokenId) -> Result<(), ConstraintFault> {
        let allowed = self.allows(token);
        self.count += 1;
        match allowed && self.fault() != Some(Fault::Advance) {
            true => Ok(()),
            false => Err(ConstraintFault),
        }
    }

    fn fill_mask(&mut self, mask: &mut [u32]) -> Result<(), ConstraintFault> {
        match self.fault() {
            Some(Fault::Mask) => return Err(ConstraintFault),
            Some(Fault::Panic) => panic!("a grammar that panics"),
            Some(Fault::Nothing) => {
                mask.fill(0);
                return Ok(());
            }
            Some(Fault::Advance) | None => {}
        }
        for (word, first) in mask.iter_mut().zip((0..).step_by(32)) {
            let bits = (0..32).filter(|bit| self.allows(first + bit));
            *word = bits.map(|bit| 1 << bit).sum();
        }
        Ok(())
    }
}

/// Requests of which two in three follow grammars of at least `length` tokens, and some of these
/// fail.
pub fn requests(vocabulary: u32, count: usize, length: u32) -> Vec<Request> {
    let request = |index: usize| {
        let faults = [Fault::Mask, Fault::Advance, Fault::Nothing, Fault::Panic];
        let fault = (index % 4 == 3).then(|| (index as u32 % 3, faults[index / 4 % 4]));
        let grammar = Congruent {
            length: length + index as u32 % 5,
            fault,
        };
        let prompt_len = 1 + 7 * index as u32 % 40;
        Request {
            prompt: (0..prompt_len)
                .map(|position| (position * 7919 + 13 * index as u32) % vocabulary)
                .collect(),
            sampling: SamplingParams {
                temperature: if index.is_multiple_of(2) { 0.0 } else { 0.7 },
                seed: index as u64,
                constraint: (index % 3 < 2).then(|| SharedConstraint(Arc::new(grammar))),
                ..SamplingParams::default()
            },
            max_tokens: length + 8,
            min_tokens: 0,
            stop_token_ids: vec![END],
        }
    };
    (0..count).map(request).collect()
}

/// Every answer is what its request's grammar says.
pub fn check(requests: &[Request], length: u32, driven: &Driven) {
    for (index, request) in requests.iter().enumerate() {
        if request.sampling.constraint.is_none() {
            continue;
        }
        let ids = driven.ids(index);
        let length = length + index as u32 % 5;
        let failed = index % 4 == 3;
        let expected = if failed { index as u32 % 3 } else { length };
        let numbers = ids.iter().take_while(|&&id| id != END);
        let matched = numbers
            .zip(0..)
            .take_while(|(id, n)| **id % MODULUS == n % MODULUS);
        let end = if failed {
            FinishReason::ConstraintFailed
        } else {
            FinishReason::Stop(END)
        };
        let all = expected as usize + usize::from(!failed);
        assert_eq!(
            matched.count(),
            expected as usize,
            "answer {index}: {ids:?}"
        );
        assert_eq!(
            (ids.len(), driven.ends[index]),
            (all, Some(end)),
            "answer {index}: {ids:?}"
        );
    }
}
