//! Weights of all tokens, and the draw.

use backstop_types::TokenId;

use crate::features::InstructionSet;
use crate::simd::{self, Program, Simd};

/// Tokens whose weights are summed together.
const BLOCK: usize = 1024;
/// Lanes of a maximum.
const LANES: usize = 16;

/// The largest logit, or `None` if there is a NaN or plus infinity, or nothing finite.
pub(super) fn largest(instructions: InstructionSet, logits: &[f32]) -> Option<f32> {
    let largest = simd::dispatch(instructions, Largest { logits });
    largest.is_finite().then_some(largest)
}

struct Largest<'a> {
    logits: &'a [f32],
}

impl Program for Largest<'_> {
    type Output = f32;

    /// Plus infinity if there is a NaN.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let (whole, rest) = self.logits.as_chunks::<LANES>();
        for chunk in whole {
            for (lane, &logit) in lanes.iter_mut().zip(chunk) {
                *lane = larger(*lane, logit);
            }
        }
        let rest = rest
            .iter()
            .fold(f32::NEG_INFINITY, |largest, &logit| larger(largest, logit));
        lanes.into_iter().fold(rest, larger)
    }
}

#[inline(always)]
fn larger(largest: f32, logit: f32) -> f32 {
    let logit = if logit.is_nan() { f32::INFINITY } else { logit };
    if logit > largest { logit } else { largest }
}

/// What the largest logit's weight counts in sums.
pub(super) const UNIT: u64 = 1 << 44;

/// A weight from 0 to 1 in units of `2^-44`, rounded to nearest even. Sums of such integers are
/// exact, so that neither their order nor how they are split among threads matters; those of
/// `2^19` weights fit 63 bits.
#[inline(always)]
pub(super) fn fixed(weight: f32) -> u64 {
    // Numbers from 256 to 512 are that far apart, and their bits count up.
    const OFFSET: f64 = 256.0;
    let bits = (f64::from(weight) + OFFSET).to_bits();
    bits.wrapping_sub(OFFSET.to_bits())
}

/// The least sum that is at least `share` of `total`; never 0.
pub(super) fn share_of(share: f32, total: u64) -> u64 {
    let target = (f64::from(share) * total as f64).ceil() as u64;
    target.min(total).max(1)
}

/// `random / 2^64` of `total`, rounded down.
fn point_in(total: u64, random: u64) -> u64 {
    ((u128::from(random) * u128::from(total)) >> 64) as u64
}

/// `exp((logit - largest) / temperature)` of every token, 0 where `min_p` drops it.
#[derive(Debug, Default)]
pub(super) struct Weights {
    of_token: Vec<f32>,
    of_block: Vec<u64>,
    /// Sum of all weights.
    pub(super) total: u64,
}

impl Weights {
    /// Computes all weights; the largest logit's is 1.
    pub(super) fn fill(
        &mut self,
        instructions: InstructionSet,
        logits: &[f32],
        largest: f32,
        temperature: f32,
        min_p: f32,
    ) {
        self.of_token.clear();
        self.of_token.extend_from_slice(logits);
        self.of_block.clear();
        for weights in self.of_token.chunks_mut(BLOCK) {
            let fill = Fill {
                weights,
                largest,
                temperature,
                min_p,
            };
            self.of_block.push(simd::dispatch(instructions, fill));
        }
        self.total = self.of_block.iter().sum();
    }

    /// Of one token.
    pub(super) fn of(&self, token: TokenId) -> u64 {
        fixed(self.of_token[token as usize])
    }

    /// Sum over some tokens.
    pub(super) fn sum_of(&self, tokens: impl Iterator<Item = TokenId>) -> u64 {
        tokens.map(|token| self.of(token)).sum()
    }

    /// How many of `tokens`, from the first on, it takes for their sum to reach `target`. `None`
    /// if all of them do not.
    pub(super) fn count_reaching(
        &self,
        tokens: impl Iterator<Item = TokenId>,
        target: u64,
    ) -> Option<usize> {
        let mut sum = 0;
        for (index, token) in tokens.enumerate() {
            sum += self.of(token);
            if sum >= target {
                return Some(index + 1);
            }
        }
        None
    }

    /// The draw from all tokens: first the block, then the token within it.
    pub(super) fn draw_from_all(&self, random: u64) -> Option<TokenId> {
        let mut rest = point_in(self.total, random);
        for (block, &sum) in self.of_block.iter().enumerate() {
            if sum > rest {
                let first = block * BLOCK;
                let end = (first + BLOCK).min(self.of_token.len());
                return self.first_beyond(first as TokenId..end as TokenId, rest);
            }
            rest -= sum;
        }
        None
    }

    /// The draw from some tokens, in ascending order of ids.
    pub(super) fn draw_from(&self, tokens: &[TokenId], random: u64) -> Option<TokenId> {
        let total = self.sum_of(tokens.iter().copied());
        self.first_beyond(tokens.iter().copied(), point_in(total, random))
    }

    /// The token at which the running sum exceeds `target`.
    fn first_beyond(
        &self,
        mut tokens: impl Iterator<Item = TokenId>,
        target: u64,
    ) -> Option<TokenId> {
        let mut sum = 0;
        tokens.find(|&token| {
            sum += self.of(token);
            sum > target
        })
    }
}

/// Turns one block of logits into weights; returns their sum.
struct Fill<'a> {
    weights: &'a mut [f32],
    largest: f32,
    temperature: f32,
    min_p: f32,
}

impl Program for Fill<'_> {
    type Output = u64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> u64 {
        let mut sum = 0;
        for weight in self.weights.iter_mut() {
            let exact = exp_of_negative((*weight - self.largest) / self.temperature);
            *weight = if exact >= self.min_p { exact } else { 0.0 };
            sum = u64::wrapping_add(sum, fixed(*weight));
        }
        sum
    }
}

/// `exp(x)` for `x <= 0`, within 2 units in the last place; 0 below -87. Cephes' polynomial in
/// plain multiplications and additions, which every instruction set computes alike.
#[inline(always)]
pub(super) fn exp_of_negative(x: f32) -> f32 {
    const ROUNDER: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > -87.0 { x } else { -87.0 };
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
    let shifted = clamped * std::f32::consts::LOG2_E + ROUNDER;
    let n = shifted - ROUNDER;
    let r = clamped - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.987_569_2e-4;
    for coefficient in [
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        5e-1,
    ] {
        p = p * r + coefficient;
    }
    let fraction = p * (r * r) + r + 1.0;
    let exponent = shifted
        .to_bits()
        .wrapping_sub(ROUNDER.to_bits())
        .wrapping_add(127);
    let result = fraction * f32::from_bits(exponent << 23);
    if x > -87.0 { result } else { 0.0 }
}
