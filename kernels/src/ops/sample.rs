//! Choice of the next token from one row of logits.
//!
//! In this order: the mask of allowed tokens, masked tokens, logit bias, penalties; then, unless the temperature is 0 (below
//! 1e-5), in which case the largest logit wins: temperature, `min_p`, `top_k`, `top_p` over what
//! is left, and one draw from the rest. Log-probabilities are those of the raw logits. Wherever
//! logits are equal, the smaller token id comes first.
//!
//! The draw is a function of the kept tokens' weights `exp((logit - largest) / temperature)` and
//! of a number `u` in `[0, 1)` that [`random_bits`] makes of the seed and the position: the first
//! token, in ascending order of ids, at which the running sum of weights exceeds `u` times their
//! total. All of it is arithmetic that every processor does alike, without fused multiply-adds
//! and with sums of integers, so that neither the instruction set nor the device matters.

mod logprobs;
mod nucleus;
mod select;
#[cfg(test)]
mod tests;
mod weights;

use backstop_types::{SampledToken, SamplingParams, TokenId, TokenLogprobs};

use crate::features::InstructionSet;
use nucleus::Nucleus;
use select::Selector;
use weights::{Weights, share_of};

/// Temperatures below this one mean greedy decoding.
pub const GREEDY_TEMPERATURE_MAX: f32 = 1e-5;
/// Most likely tokens that are looked at first when only `top_p` truncates.
const TOP_P_CANDIDATES: usize = 512;

/// Arguments.
#[derive(Clone, Copy, Debug)]
pub struct SampleArgs<'a> {
    /// `[vocabulary]`.
    pub logits: &'a [f32],
    /// How to sample.
    pub params: &'a SamplingParams,
    /// Tokens of the prompt, for the repetition penalty.
    pub prompt: &'a [TokenId],
    /// Tokens generated so far, for all penalties.
    pub output: &'a [TokenId],
    /// Tokens that must not be sampled, such as stop tokens before `min_tokens`.
    pub masked: &'a [TokenId],
    /// A bit for each token, from the lowest of each word on; only tokens whose bit is set may be
    /// sampled.
    pub allowed: Option<&'a [u32]>,
    /// Position of the token that is sampled; the random number is a function of it and the seed.
    pub position: u32,
}

/// Memory that is kept between calls.
#[derive(Debug, Default)]
pub struct SampleScratch {
    /// Logits after masks, bias and penalties.
    adjusted: Vec<f32>,
    /// For each token, how often it stands in the history; all zero between calls.
    counts: Vec<u32>,
    weights: Weights,
    selector: Selector,
    nucleus: Nucleus,
}

/// Samples one token. `None` if a logit is NaN or plus infinity, or if none that may be sampled
/// is finite.
pub fn sample(args: &SampleArgs<'_>, scratch: &mut SampleScratch) -> Option<SampledToken> {
    sample_with(InstructionSet::detect(), args, scratch)
}

/// [`sample`] with given instructions, which do not influence the result.
pub fn sample_with(
    instructions: InstructionSet,
    args: &SampleArgs<'_>,
    scratch: &mut SampleScratch,
) -> Option<SampledToken> {
    let raw_largest = weights::largest(instructions, args.logits)?;
    adjust(args, scratch);
    let largest = weights::largest(instructions, &scratch.adjusted)?;
    let id = if args.params.temperature < GREEDY_TEMPERATURE_MAX {
        scratch
            .adjusted
            .iter()
            .position(|&logit| logit == largest)? as TokenId
    } else {
        draw(instructions, args, largest, scratch)?
    };
    let count = args.params.logprobs;
    let logprobs =
        count.map(|count| raw_logprobs(instructions, args.logits, raw_largest, id, count, scratch));
    Some(SampledToken { id, logprobs })
}

/// What [`sample`] reports of a token that it sampled, with these many most likely tokens, for one
/// that is known already, such as a prompt's. `None` if a logit is NaN or plus infinity, or the
/// token's own is not finite.
pub fn rate(
    logits: &[f32],
    token: TokenId,
    alternatives: u32,
    scratch: &mut SampleScratch,
) -> Option<TokenLogprobs> {
    let instructions = InstructionSet::detect();
    let largest = weights::largest(instructions, logits)?;
    let usable = logits.get(token as usize)?.is_finite();
    usable.then(|| raw_logprobs(instructions, logits, largest, token, alternatives, scratch))
}

fn raw_logprobs(
    instructions: InstructionSet,
    logits: &[f32],
    largest: f32,
    token: TokenId,
    alternatives: u32,
    scratch: &mut SampleScratch,
) -> TokenLogprobs {
    let SampleScratch {
        weights, selector, ..
    } = scratch;
    weights.fill(instructions, logits, largest, 1.0, 0.0);
    selector.select(logits, alternatives as usize);
    logprobs::of_token(logits, largest, weights.total, selector.sorted(), token)
}

/// The random number of a position, as the 64 bits behind the binary point: the SplitMix64
/// finaliser (Steele, Lea & Flood 2014) of the position's multiple of the golden gamma, added to
/// the finalised seed.
pub fn random_bits(seed: u64, position: u32) -> u64 {
    const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
    let step = (u64::from(position) + 1).wrapping_mul(GOLDEN_GAMMA);
    mix(mix(seed).wrapping_add(step))
}

/// The SplitMix64 finaliser.
pub fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Masks, bias and penalties. Tokens outside the vocabulary are ignored.
fn adjust(args: &SampleArgs<'_>, scratch: &mut SampleScratch) {
    let SampleScratch {
        adjusted, counts, ..
    } = scratch;
    let params = args.params;
    adjusted.clear();
    adjusted.extend_from_slice(args.logits);
    if let Some(allowed) = args.allowed {
        refuse(adjusted, allowed);
    }
    for &token in args.masked {
        if let Some(logit) = adjusted.get_mut(token as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
    for &(token, bias) in &params.logit_bias {
        if let Some(logit) = adjusted.get_mut(token as usize) {
            *logit += bias;
        }
    }
    counts.resize(adjusted.len(), 0);
    if params.repetition_penalty != 1.0 {
        for_each_distinct(args.prompt.iter().chain(args.output), counts, |token, _| {
            let logit = &mut adjusted[token];
            if *logit > 0.0 {
                *logit /= params.repetition_penalty;
            } else {
                *logit *= params.repetition_penalty;
            }
        });
    }
    if params.frequency_penalty != 0.0 || params.presence_penalty != 0.0 {
        for_each_distinct(args.output.iter(), counts, |token, count| {
            adjusted[token] -= params.frequency_penalty * count as f32 + params.presence_penalty;
        });
    }
}

/// Minus infinity wherever a mask has no bit.
fn refuse(logits: &mut [f32], allowed: &[u32]) {
    let words = logits.len().div_ceil(32);
    assert_eq!(allowed.len(), words, "a bit for each token");
    for (logits, &word) in logits.chunks_mut(32).zip(allowed) {
        for (bit, logit) in logits.iter_mut().enumerate() {
            if word >> bit & 1 == 0 {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

/// Calls `visit(token, occurrences)` once for each distinct token. `counts` is zero before and
/// after.
fn for_each_distinct<'a>(
    tokens: impl Iterator<Item = &'a TokenId> + Clone,
    counts: &mut [u32],
    mut visit: impl FnMut(usize, u32),
) {
    for &token in tokens.clone() {
        if let Some(count) = counts.get_mut(token as usize) {
            *count += 1;
        }
    }
    for &token in tokens {
        if let Some(count) = counts.get_mut(token as usize)
            && *count > 0
        {
            visit(token as usize, std::mem::take(count));
        }
    }
}

/// Temperature, truncation and the draw.
fn draw(
    instructions: InstructionSet,
    args: &SampleArgs<'_>,
    largest: f32,
    scratch: &mut SampleScratch,
) -> Option<TokenId> {
    let SampleScratch {
        adjusted,
        weights,
        selector,
        nucleus,
        ..
    } = scratch;
    let params = args.params;
    let random = random_bits(params.seed, args.position);
    weights.fill(
        instructions,
        adjusted,
        largest,
        params.temperature,
        params.min_p,
    );
    if params.top_k > 0 && (params.top_k as usize) < adjusted.len() {
        selector.select(adjusted, params.top_k as usize);
        let total = weights.sum_of(selector.sorted());
        let target = share_of(params.top_p, total);
        let kept = weights.count_reaching(selector.sorted(), target);
        return weights.draw_from(selector.keep(kept.unwrap_or(usize::MAX)), random);
    }
    if params.top_p >= 1.0 {
        return weights.draw_from_all(random);
    }
    let target = share_of(params.top_p, weights.total);
    selector.select(adjusted, TOP_P_CANDIDATES);
    if let Some(kept) = weights.count_reaching(selector.sorted(), target) {
        return weights.draw_from(selector.keep(kept), random);
    }
    let kept = nucleus.find(adjusted, largest, params.temperature, weights, target);
    weights.draw_from(kept, random)
}
