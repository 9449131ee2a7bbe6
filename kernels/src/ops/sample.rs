//! Choice of the next token from one row of logits.

use backstop_types::{SampledToken, SamplingParams, TokenId};

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
    /// Position of the token that is sampled; the random number is a function of it and the seed.
    pub position: u32,
}

/// Memory that is kept between calls.
#[derive(Debug, Default)]
pub struct SampleScratch {
    adjusted: Vec<f32>,
}

/// Samples one token; `None` if no logit is finite or one of them is not a number.
pub fn sample(args: &SampleArgs<'_>, scratch: &mut SampleScratch) -> Option<SampledToken> {
    scratch.adjusted.clear();
    scratch.adjusted.extend_from_slice(args.logits);
    for &token in args.masked {
        scratch.adjusted[token as usize] = f32::NEG_INFINITY;
    }
    let best = scratch.adjusted.iter().enumerate().fold(
        None,
        |best: Option<(usize, f32)>, (id, &logit)| match best {
            Some((_, other)) if other >= logit => best,
            _ => Some((id, logit)),
        },
    )?;
    best.1.is_finite().then_some(SampledToken {
        id: best.0 as TokenId,
        logprobs: None,
    })
}
