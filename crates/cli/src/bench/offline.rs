//! `backstop bench offline`: how many tokens a second a model has if all requests are there at once, as `vllm bench
//! throughput` defines it. Without HTTP, templates and tokenisation, so it bounds from above what a server can have.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstop_engine::{
    EngineHandle, Generation, GenerationEvent, GenerationRequest, Lifecycle, LifecycleState,
};
use backstop_types::{FinishReason, SamplingParams, StopConditions, TokenId};
use serde_json::json;

use crate::args::OfflineArgs;
use crate::{load, start};

/// Before anything is timed, all of this is asked once: memory is touched, threads are there.
const WARM_UP_PROMPTS: u32 = 2;

pub(crate) fn run(args: OfflineArgs) -> Result<ExitCode, String> {
    crate::runtime()?.block_on(measure(args))
}

async fn measure(args: OfflineArgs) -> Result<ExitCode, String> {
    let lifecycle = Lifecycle::new();
    let open = load::open(&args.model)?;
    let name = open.name.clone();
    let vocabulary = open.spec().vocabulary_size;
    let prepared = start::Prepared::new(&args.model, &open, lifecycle.timeline())?;
    let place = prepared.place;
    let waiting = args.num_prompts.max(WARM_UP_PROMPTS);
    let running = tokio::task::block_in_place(|| {
        start::start(&args.model, open, prepared, waiting, &lifecycle)
    })?;
    lifecycle.advance(LifecycleState::Ready);
    let length = args.input_len.saturating_add(args.output_len);
    if length > running.max_model_len {
        return Err(format!(
            "--input-len and --output-len come to {length} tokens, and a sequence may have {}: see --max-model-len",
            running.max_model_len
        ));
    }
    let prompts = Prompts {
        args: &args,
        vocabulary,
    };
    tracing::info!(
        "{} prompts of {} tokens, answers of {}",
        args.num_prompts,
        args.input_len,
        args.output_len
    );
    // Numbered behind those that are timed, so that none of these finds a prefix.
    answer_all(&running.engine, &prompts, args.num_prompts, WARM_UP_PROMPTS).await?;
    let outcome = answer_all(&running.engine, &prompts, 0, args.num_prompts).await;
    tokio::task::block_in_place(|| running.thread.stop());
    let outcome = outcome?;
    tell(&outcome, &args, &name, place).map_err(|error| format!("cannot write: {error}"))?;
    Ok(ExitCode::SUCCESS)
}

/// What came of all prompts.
struct Outcome {
    elapsed: Duration,
    prompt_tokens: u64,
    cached_tokens: u64,
    generated_tokens: u64,
}

/// Hands in all prompts at once, and waits for all answers.
async fn answer_all(
    engine: &EngineHandle,
    prompts: &Prompts<'_>,
    first: u32,
    count: u32,
) -> Result<Outcome, String> {
    let began = Instant::now();
    let mut generations = Vec::new();
    for number in first..first + count {
        let generation = engine.submit(prompts.request(number)).await;
        generations.push(generation.map_err(|error| error.to_string())?);
    }
    let mut outcome = Outcome {
        elapsed: Duration::ZERO,
        prompt_tokens: 0,
        cached_tokens: 0,
        generated_tokens: 0,
    };
    for generation in generations {
        follow(generation, prompts.args.output_len, &mut outcome).await?;
    }
    outcome.elapsed = began.elapsed();
    Ok(outcome)
}

async fn follow(
    mut generation: Generation,
    expected: u32,
    outcome: &mut Outcome,
) -> Result<(), String> {
    while let Some(event) = generation.next().await {
        let GenerationEvent::Finished { reason, usage } = event else {
            continue;
        };
        if reason != FinishReason::Length || usage.generated_tokens != expected {
            return Err(format!(
                "an answer ended after {} of {expected} tokens: {reason:?}",
                usage.generated_tokens
            ));
        }
        outcome.prompt_tokens += u64::from(usage.prompt_tokens);
        outcome.cached_tokens += u64::from(usage.cached_tokens);
        outcome.generated_tokens += u64::from(usage.generated_tokens);
        return Ok(());
    }
    Err("the engine ended".into())
}

/// Prompts that are different from their first token on, and the same for the same seed.
struct Prompts<'a> {
    args: &'a OfflineArgs,
    vocabulary: u32,
}

impl Prompts<'_> {
    fn request(&self, number: u32) -> GenerationRequest {
        GenerationRequest {
            prompt: self.prompt(number),
            sampling: Arc::new(SamplingParams {
                temperature: self.args.temperature,
                seed: self.args.seed.wrapping_add(u64::from(number)),
                ..SamplingParams::default()
            }),
            stop: Arc::new(StopConditions {
                max_tokens: self.args.output_len,
                min_tokens: 0,
                stop_token_ids: Vec::new(),
            }),
            priority: 0,
            tenant: 0,
            // So that blocks are never shared, even if prompts should agree.
            cache_salt: u64::from(number),
            queue_timeout: None,
        }
    }

    fn prompt(&self, number: u32) -> Arc<[TokenId]> {
        let mut state = self.args.seed ^ (u64::from(number) << 32);
        let tokens = (0..self.args.input_len).map(|_| {
            // SplitMix64 (Steele, Lea and Flood, 2014).
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) % u64::from(self.vocabulary)) as TokenId
        });
        tokens.collect()
    }
}

/// Prints the numbers, and writes them with vLLM's names.
fn tell(outcome: &Outcome, args: &OfflineArgs, model: &str, place: &str) -> std::io::Result<()> {
    let seconds = outcome.elapsed.as_secs_f64();
    let all = outcome.prompt_tokens + outcome.generated_tokens;
    let rate = |count: u64| count as f64 / seconds;
    let numbers = json!({
        "model": model,
        "device": place,
        "elapsed_time": seconds,
        "num_requests": args.num_prompts,
        "requests_per_second": rate(u64::from(args.num_prompts)),
        "total_num_tokens": all,
        "tokens_per_second": rate(all),
        "total_prompt_tokens": outcome.prompt_tokens,
        "cached_prompt_tokens": outcome.cached_tokens,
        "total_output_tokens": outcome.generated_tokens,
        "output_tokens_per_second": rate(outcome.generated_tokens),
        "input_len": args.input_len,
        "output_len": args.output_len,
        "temperature": args.temperature,
        "seed": args.seed,
    });
    let mut output = std::io::stdout().lock();
    match args.output_json.as_deref() {
        Some(path) if path == Path::new("-") => return writeln!(output, "{numbers:#}"),
        Some(path) => std::fs::write(path, format!("{numbers:#}\n"))?,
        None => {}
    }
    let shown = |name: &str| numbers[name].as_f64().unwrap_or_default();
    writeln!(
        output,
        "{model} on {place}: {:.2} requests/s, {:.1} tokens/s in all, {:.1} generated tokens/s ({} requests in {:.2} s)",
        shown("requests_per_second"),
        shown("tokens_per_second"),
        shown("output_tokens_per_second"),
        args.num_prompts,
        seconds
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: OfflineArgs,
    }

    #[test]
    fn prompts_differ_from_their_first_token_on_and_stay_the_same() {
        let args = Line::parse_from(["bench", "--input-len", "4"]).args;
        let prompts = Prompts {
            args: &args,
            vocabulary: 1 << 20,
        };
        let firsts: std::collections::BTreeSet<TokenId> =
            (0..100).map(|number| prompts.prompt(number)[0]).collect();
        assert!(firsts.len() > 95);
        assert_eq!(prompts.prompt(7), prompts.prompt(7));
        assert!(prompts.prompt(7).iter().all(|token| *token < 1 << 20));
    }
}
