//! From what a request says, and the model's defaults where it is silent, to what the engine
//! samples by.

use std::sync::Arc;

use backstop_protocol::{ApiError, SamplingFields};
use backstop_types::{SamplingParams, SharedConstraint, StopConditions};

use crate::entropy::random_u64;
use crate::model::{GenerationDefaults, ServedModel};

/// Below this a temperature means greedy decoding, as it does in vLLM.
const TEMPERATURE_GREEDY: f32 = 1e-5;
/// The least temperature above that; logits divided by less overflow.
const TEMPERATURE_MIN: f32 = 1e-2;

/// Checks the ids that a request names against the vocabulary.
pub(crate) fn check_token_ids(
    model: &ServedModel,
    fields: &SamplingFields,
) -> Result<(), ApiError> {
    const REQUIREMENT: &str = "must name tokens of the model's vocabulary";
    if fields
        .logit_bias
        .iter()
        .any(|(token, _)| !model.knows_token(*token))
    {
        return Err(ApiError::invalid_field("logit_bias", REQUIREMENT));
    }
    if fields
        .stop_token_ids
        .iter()
        .any(|token| !model.knows_token(*token))
    {
        return Err(ApiError::invalid_field("stop_token_ids", REQUIREMENT));
    }
    Ok(())
}

/// How to sample choice number `choice` of a prompt, along a grammar if there is one.
pub(crate) fn params(
    fields: &SamplingFields,
    defaults: &GenerationDefaults,
    choice: u32,
    constraint: Option<SharedConstraint>,
) -> Arc<SamplingParams> {
    let temperature = fields.temperature.or(defaults.temperature).unwrap_or(1.0);
    let seed = match fields.seed {
        // Equal seeds must not make equal choices.
        Some(seed) => seed.cast_unsigned().wrapping_add(u64::from(choice)),
        None => random_u64(),
    };
    Arc::new(SamplingParams {
        temperature: if temperature < TEMPERATURE_GREEDY {
            0.0
        } else {
            temperature.max(TEMPERATURE_MIN)
        },
        top_k: fields.top_k.or(defaults.top_k).unwrap_or(0),
        top_p: fields.top_p.or(defaults.top_p).unwrap_or(1.0),
        min_p: fields.min_p.or(defaults.min_p).unwrap_or(0.0),
        repetition_penalty: fields
            .repetition_penalty
            .or(defaults.repetition_penalty)
            .unwrap_or(1.0),
        frequency_penalty: fields.frequency_penalty.unwrap_or(0.0),
        presence_penalty: fields.presence_penalty.unwrap_or(0.0),
        logit_bias: fields.logit_bias.clone(),
        seed,
        logprobs: fields.logprobs,
        prompt_logprobs: fields.prompt_logprobs,
        constraint,
    })
}

/// When an answer of at most `max_tokens` ends.
pub(crate) fn stop_conditions(
    model: &ServedModel,
    fields: &SamplingFields,
    max_tokens: u32,
) -> Arc<StopConditions> {
    let mut stop_token_ids = fields.stop_token_ids.clone();
    if !fields.ignore_eos {
        stop_token_ids.extend_from_slice(&model.eos_token_ids);
    }
    stop_token_ids.sort_unstable();
    stop_token_ids.dedup();
    Arc::new(StopConditions {
        max_tokens,
        min_tokens: fields.min_tokens.min(max_tokens),
        stop_token_ids,
    })
}
