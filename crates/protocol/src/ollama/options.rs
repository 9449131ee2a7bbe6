//! `options`: how to sample and when to stop, in Ollama's names.

use crate::error::ApiError;
use crate::fields::Fields;
use crate::sampling::{
    MIN_REPETITION_PENALTY, SamplingFields, parse_cache_salt, parse_stop, parse_top_k,
};
use crate::unsupported;

/// The seed that asks for a random one.
const RANDOM_SEED: i64 = -1;

/// What `options` say.
pub(super) struct Options {
    /// All but the length of the answer.
    pub(super) sampling: SamplingFields,
    /// Tokens to generate at most, at least 1. It may be more than the context leaves.
    pub(super) max_tokens: Option<u32>,
}

/// What is not in `options` is as the model has it, not as Ollama has it.
pub(super) fn parse_options(body: &Fields<'_>, logprobs: Option<u32>) -> Result<Options, ApiError> {
    let plain = SamplingFields {
        logprobs,
        cache_salt: parse_cache_salt(body)?,
        ..SamplingFields::default()
    };
    let Some(options) = body.object("options")? else {
        return Ok(Options {
            sampling: plain,
            max_tokens: None,
        });
    };
    unsupported::check(&options)?;
    let sampling = SamplingFields {
        temperature: options.number("temperature", 0.0..=2.0)?,
        top_p: options
            .number("top_p", 0.0..=1.0)?
            .map(|top_p| top_p.max(f32::MIN_POSITIVE)),
        top_k: parse_top_k(&options)?,
        min_p: options.number("min_p", 0.0..=1.0)?,
        repetition_penalty: options.number("repeat_penalty", MIN_REPETITION_PENALTY..=2.0)?,
        frequency_penalty: options.number("frequency_penalty", -2.0..=2.0)?,
        presence_penalty: options.number("presence_penalty", -2.0..=2.0)?,
        seed: options
            .integer("seed", i64::MIN..=i64::MAX)?
            .filter(|seed| *seed != RANDOM_SEED),
        stop: parse_stop(&options)?,
        ..plain
    };
    // Penalties look back over everything here, so that only looking back at nothing is another
    // matter: it turns them off.
    let looks_back = options.integer("repeat_last_n", -1..=i64::from(i32::MAX))? != Some(0);
    let sampling = match looks_back {
        true => sampling,
        false => SamplingFields {
            repetition_penalty: Some(1.0),
            frequency_penalty: None,
            presence_penalty: None,
            ..sampling
        },
    };
    // -1 is without a limit, -2 until the context is full, and 0 no limit either.
    let num_predict = options.integer("num_predict", -2..=i64::from(i32::MAX))?;
    Ok(Options {
        sampling,
        max_tokens: num_predict
            .and_then(|tokens| u32::try_from(tokens).ok())
            .filter(|tokens| *tokens > 0),
    })
}
