//! Proves the model before any client may use it: a real generation, compared with the recorded
//! one where the manifest has one.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use backstop_engine::{EngineHandle, GenerationEvent, GenerationRequest};
use backstop_models::Canary;
use backstop_server::{CanaryResult, Server};
use backstop_types::{FinishReason, SampledToken, SamplingParams, StopConditions, TokenId};

/// Tokens that a warm-up without a recorded answer generates: the prompt's step, one with a plan
/// behind it, and one more.
const WARM_UP_TOKENS: u32 = 3;

/// Runs the canary, or without one any generation. An error means that the model must not serve.
pub(crate) async fn warm_up(
    server: &Server,
    engine: &EngineHandle,
    canary: Option<&Canary>,
    fallback_prompt: &[TokenId],
) -> Result<(), String> {
    match canary {
        None => generate(engine, fallback_prompt, WARM_UP_TOKENS)
            .await
            .map(|_| ()),
        Some(canary) => run_canary(server, engine, canary).await,
    }
}

/// Generates the canary's answer and compares it with the recorded one; the server remembers how that ended.
async fn run_canary(server: &Server, engine: &EngineHandle, canary: &Canary) -> Result<(), String> {
    let began = Instant::now();
    let count = u32::try_from(canary.tokens.len()).unwrap_or(u32::MAX);
    let answer = generate(engine, &canary.prompt_tokens, count).await;
    let difference = answer.as_ref().ok();
    let difference = difference.and_then(|tokens| largest_difference(canary, tokens));
    let outcome = answer.and_then(|tokens| compare(canary, &tokens));
    server.record_canary(CanaryResult {
        at: SystemTime::now(),
        passed: outcome.is_ok(),
        took: began.elapsed(),
        difference,
    });
    outcome
}

/// The largest difference of a log-probability from the recorded one; `None` if the tokens are others.
fn largest_difference(canary: &Canary, tokens: &[SampledToken]) -> Option<f32> {
    let same = tokens
        .iter()
        .map(|token| token.id)
        .eq(canary.tokens.iter().copied());
    let pairs = tokens.iter().zip(&canary.logprobs).filter(|_| same);
    let differences = pairs.map(|(token, recorded)| (logprob(token) - recorded).abs());
    // What is not a number is larger than any.
    differences.max_by(f32::total_cmp)
}

fn logprob(token: &SampledToken) -> f32 {
    let logprobs = token.logprobs.as_ref();
    logprobs.map_or(f32::NAN, |logprobs| logprobs.logprob)
}

fn compare(canary: &Canary, tokens: &[SampledToken]) -> Result<(), String> {
    if tokens.len() != canary.tokens.len() {
        return Err(format!(
            "the canary answer has {} tokens instead of the recorded {}",
            tokens.len(),
            canary.tokens.len()
        ));
    }
    for (index, (token, recorded)) in tokens.iter().zip(&canary.tokens).enumerate() {
        let logprob = logprob(token);
        let difference = (logprob - canary.logprobs[index]).abs();
        // A difference that is not a number must fail as well.
        if token.id != *recorded || difference.is_nan() || difference > canary.tolerance {
            return Err(format!(
                "the canary answer differs from the recorded one at token {index}: {} with \
                 log-probability {logprob}, recorded {recorded} with {} (tolerance {}); the \
                 weights are damaged or this machine computes wrongly",
                token.id, canary.logprobs[index], canary.tolerance
            ));
        }
    }
    Ok(())
}

/// A greedy generation of exactly `count` tokens, with log-probabilities.
pub(crate) async fn generate(
    engine: &EngineHandle,
    prompt: &[TokenId],
    count: u32,
) -> Result<Vec<SampledToken>, String> {
    let request = GenerationRequest {
        prompt: prompt.into(),
        sampling: Arc::new(SamplingParams {
            logprobs: Some(0),
            ..SamplingParams::default()
        }),
        stop: Arc::new(StopConditions {
            max_tokens: count,
            min_tokens: 0,
            stop_token_ids: Vec::new(),
        }),
        priority: 0,
        // Its own prefix-cache salt: the canary must compute, not remember.
        tenant: 0,
        cache_salt: u64::MAX,
        queue_timeout: None,
    };
    let mut generation = engine
        .submit_warm_up(request)
        .await
        .map_err(|error| format!("warm-up: {error}"))?;
    let mut tokens = Vec::new();
    while let Some(event) = generation.next().await {
        match event {
            GenerationEvent::Admitted { .. } | GenerationEvent::PromptLogprobs(_) => {}
            GenerationEvent::Token(token) => tokens.push(token),
            GenerationEvent::Finished {
                reason: FinishReason::Length,
                ..
            } => return Ok(tokens),
            GenerationEvent::Finished { reason, .. } => {
                return Err(format!("warm-up: the generation ended with {reason:?}"));
            }
        }
    }
    Err("warm-up: the engine died".into())
}
