//! Weights of all tokens, and the draw.

use backstop_types::TokenId;

use crate::features::InstructionSet;
use crate::simd::{self, Program, Simd};

/// Tokens whose weights are summed together.
const BLOCK: usize = 1024;
/// Partial sums of a block; token `i` of a block belongs to sum `i % SUMS`.
const SUMS: usize = 16;

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
        let mut lanes = [f32::NEG_INFINITY; SUMS];
        let (whole, rest) = self.logits.as_chunks::<SUMS>();
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

/// `exp((logit - largest) / temperature)` of every token, 0 where `min_p` drops it.
#[derive(Debug, Default)]
pub(super) struct Weights {
    of_token: Vec<f32>,
    of_block: Vec<f64>,
    /// Sum of all weights.
    pub(super) total: f64,
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
            self.of_block
                .push(f64::from(simd::dispatch(instructions, fill)));
        }
        self.total = self.of_block.iter().sum();
    }

    /// Sum over some tokens.
    pub(super) fn sum_of(&self, tokens: impl Iterator<Item = TokenId>) -> f64 {
        tokens
            .map(|token| f64::from(self.of_token[token as usize]))
            .sum()
    }

    /// Of every token.
    pub(super) fn all(&self) -> &[f32] {
        &self.of_token
    }

    /// How many of `tokens`, from the first on, it takes for their sum to reach `target`: at
    /// least 1, and never one without weight. `None` if all of them do not.
    pub(super) fn count_reaching(
        &self,
        tokens: impl Iterator<Item = TokenId>,
        target: f64,
    ) -> Option<usize> {
        let mut sum = 0.0;
        let mut count = 0;
        for token in tokens {
            let weight = self.of_token[token as usize];
            if weight == 0.0 {
                break;
            }
            sum += f64::from(weight);
            count += 1;
            if sum >= target {
                return Some(count);
            }
        }
        None
    }

    /// The draw from all tokens: first the block, then the token within it.
    pub(super) fn draw_from_all(&self, random: f64) -> Option<TokenId> {
        let target = random * self.total;
        let mut before = 0.0;
        let mut chosen = None;
        for (block, &sum) in self.of_block.iter().enumerate() {
            if sum > 0.0 {
                chosen = Some((block, before));
                if before + sum > target {
                    break;
                }
            }
            before += sum;
        }
        let (block, before) = chosen?;
        let first = block * BLOCK;
        let end = (first + BLOCK).min(self.of_token.len());
        self.first_beyond(first as TokenId..end as TokenId, target - before)
    }

    /// The draw from some tokens, in ascending order of ids.
    pub(super) fn draw_from(&self, tokens: &[TokenId], random: f64) -> Option<TokenId> {
        let total = self.sum_of(tokens.iter().copied());
        self.first_beyond(tokens.iter().copied(), random * total)
    }

    /// The token at which the running sum exceeds `target`, or the last one with any weight if
    /// rounding keeps the sum below it.
    fn first_beyond(&self, tokens: impl Iterator<Item = TokenId>, target: f64) -> Option<TokenId> {
        let mut sum = 0.0;
        let mut last = None;
        for token in tokens {
            let weight = self.of_token[token as usize];
            if weight > 0.0 {
                sum += f64::from(weight);
                last = Some(token);
                if sum > target {
                    break;
                }
            }
        }
        last
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
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f32 {
        for weight in self.weights.iter_mut() {
            let exact = exp_of_negative((*weight - self.largest) / self.temperature);
            *weight = if exact >= self.min_p { exact } else { 0.0 };
        }
        let mut sums = [0.0; SUMS];
        let (whole, rest) = self.weights.as_chunks::<SUMS>();
        for chunk in whole {
            for (sum, &weight) in sums.iter_mut().zip(chunk) {
                *sum += weight;
            }
        }
        for (sum, &weight) in sums.iter_mut().zip(rest) {
            *sum += weight;
        }
        sums.iter().sum()
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
