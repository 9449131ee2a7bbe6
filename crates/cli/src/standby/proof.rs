//! Proves a model: a real generation, compared with the one that is recorded, or with the first one of this process.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use backstop_engine::{EngineHandle, GenerationEvent, GenerationRequest};
use backstop_models::Canary;
use backstop_server::{CanaryResult, Server};
use backstop_types::{FinishReason, SampledToken, SamplingParams, StopConditions, TokenId};

/// How far log-probabilities may be off within one process, where a batch never changes an answer.
const STEADY_TOLERANCE: f32 = 1e-4;
/// The same where it may, and from one start to another.
const LOOSE_TOLERANCE: f32 = 0.05;
/// A generation of a few tokens that takes longer is given up. Whether the engine is stuck is for others to say.
const LONGEST_PROOF: Duration = Duration::from_secs(600);

/// Why a proof failed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NotProven {
    /// The model answered, and not as it must.
    Wrong(String),
    /// There was no answer to look at.
    NotRun(String),
}

impl fmt::Display for NotProven {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(reason) | Self::NotRun(reason) => formatter.write_str(reason),
        }
    }
}

/// What a model is asked at its first proof.
#[derive(Clone, Debug)]
pub(crate) struct FirstProof {
    /// The recorded answer, if there is one.
    pub(crate) recorded: Option<Canary>,
    /// What to ask without one.
    pub(crate) prompt: Vec<TokenId>,
    /// How many tokens to answer then.
    pub(crate) tokens: u32,
    /// A batch never changes an answer.
    pub(crate) batch_invariant: bool,
}

/// Proves a model again and again.
#[derive(Clone, Debug)]
pub(crate) struct Prover {
    /// What it answered in this process.
    expected: Canary,
}

impl Prover {
    /// Asks for the first time. An error means that the model must not serve.
    pub(crate) async fn first(
        server: &Server,
        engine: &EngineHandle,
        first: FirstProof,
    ) -> Result<Self, NotProven> {
        let prompt = match &first.recorded {
            Some(canary) => canary.prompt_tokens.clone(),
            None => first.prompt,
        };
        let count = match &first.recorded {
            Some(canary) => u32::try_from(canary.tokens.len()).unwrap_or(u32::MAX),
            None => first.tokens,
        };
        let started = Instant::now();
        let answer = generate(engine, &prompt, count).await;
        if let Some(canary) = &first.recorded {
            let compared = judge(canary, &answer);
            record(server, started, &compared);
            compared?;
        }
        let answer = answer.map_err(NotProven::NotRun)?;
        let tolerance = match first.batch_invariant {
            true => STEADY_TOLERANCE,
            false => LOOSE_TOLERANCE,
        };
        Ok(Self {
            expected: canary_of(prompt, &answer, tolerance),
        })
    }

    /// What the model answered at first, as a later start is to compare it: one of another version, perhaps.
    pub(crate) fn canary(&self) -> Canary {
        Canary {
            tolerance: LOOSE_TOLERANCE,
            ..self.expected.clone()
        }
    }

    /// Asks again.
    pub(crate) async fn again(
        &self,
        server: &Server,
        engine: &EngineHandle,
    ) -> Result<(), NotProven> {
        let started = Instant::now();
        let count = u32::try_from(self.expected.tokens.len()).unwrap_or(u32::MAX);
        let answer = generate(engine, &self.expected.prompt_tokens, count);
        let answer = tokio::time::timeout(LONGEST_PROOF, answer).await;
        let none = || Err(format!("the canary had no answer after {LONGEST_PROOF:?}"));
        let compared = judge(&self.expected, &answer.unwrap_or_else(|_| none()));
        record(server, started, &compared);
        compared.map(|_| ())
    }
}

/// An answer as it is recorded.
pub(crate) fn canary_of(
    prompt_tokens: Vec<TokenId>,
    answer: &[SampledToken],
    tolerance: f32,
) -> Canary {
    Canary {
        prompt_tokens,
        tokens: answer.iter().map(|token| token.id).collect(),
        // Rounding can leave one a little above zero, which no manifest would take.
        logprobs: answer.iter().map(|token| logprob(token).min(0.0)).collect(),
        tolerance,
    }
}

fn logprob(token: &SampledToken) -> f32 {
    let logprobs = token.logprobs.as_ref();
    logprobs.map_or(f32::NAN, |logprobs| logprobs.logprob)
}

/// The largest difference of a log-probability, if the answer is as it must be.
fn judge(canary: &Canary, answer: &Result<Vec<SampledToken>, String>) -> Result<f32, NotProven> {
    match answer {
        Ok(tokens) => compare(canary, tokens).map_err(NotProven::Wrong),
        Err(reason) => Err(NotProven::NotRun(reason.clone())),
    }
}

/// Keeps what came of a proof, for metrics and for people who look. One that was not run says nothing of the model.
fn record(server: &Server, started: Instant, compared: &Result<f32, NotProven>) {
    if let Err(NotProven::NotRun(_)) = compared {
        return;
    }
    server.record_canary(CanaryResult {
        at: SystemTime::now(),
        passed: compared.is_ok(),
        took: started.elapsed(),
        difference: compared.as_ref().ok().copied(),
    });
}

fn compare(canary: &Canary, tokens: &[SampledToken]) -> Result<f32, String> {
    if tokens.len() != canary.tokens.len() {
        return Err(format!(
            "the canary answer has {} tokens instead of the recorded {}",
            tokens.len(),
            canary.tokens.len()
        ));
    }
    let mut largest = 0.0_f32;
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
        largest = largest.max(difference);
    }
    Ok(largest)
}

/// One that finds no cached prefix: a proof must compute, not remember.
fn new_salt() -> u64 {
    static PROOFS: AtomicU64 = AtomicU64::new(0);
    u64::MAX - PROOFS.fetch_add(1, Ordering::Relaxed)
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
        // Few tokens, before all others: a proof that waits for a place in the queue proves nothing about now.
        priority: i32::MIN,
        tenant: 0,
        cache_salt: new_salt(),
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
