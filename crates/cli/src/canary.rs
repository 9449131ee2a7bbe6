//! `backstop canary`: records the answer that later starts must reproduce.

use std::process::ExitCode;

use backstop_engine::{Lifecycle, LifecycleState};
use backstop_types::SampledToken;

use crate::args::CanaryArgs;
use crate::{load, start, warm_up};

pub(crate) fn run(args: CanaryArgs) -> Result<ExitCode, String> {
    crate::runtime()?.block_on(record(args))
}

#[expect(
    clippy::print_stdout,
    reason = "the section is what the command is for"
)]
async fn record(args: CanaryArgs) -> Result<ExitCode, String> {
    let lifecycle = Lifecycle::new();
    let open = load::open(&args.model)?;
    let prompt = open.text.tokenizer.encode(&args.prompt, true);
    let prompt = prompt.map_err(|error| error.to_string())?;
    let prepared = start::Prepared::new(&args.model, &open, lifecycle.timeline())?;
    let running =
        tokio::task::block_in_place(|| start::start(&args.model, open, prepared, 1, &lifecycle))?;
    lifecycle.advance(LifecycleState::Warming);
    let answer = warm_up::generate(&running.engine, &prompt, args.tokens.max(1)).await;
    tokio::task::block_in_place(|| running.thread.stop());
    let answer = answer?;
    let ids: Vec<u32> = answer.iter().map(|token| token.id).collect();
    let logprobs: Vec<String> = answer
        .iter()
        .map(|token| format!("{:.4}", logprob(token)))
        .collect();
    println!("[canary]");
    println!("prompt_tokens = {prompt:?}");
    println!("tokens = {ids:?}");
    println!("logprobs = [{}]", logprobs.join(", "));
    println!("tolerance = {}", args.tolerance);
    Ok(ExitCode::SUCCESS)
}

/// Never positive, nor minus zero, which a manifest would not take for a log-probability.
fn logprob(token: &SampledToken) -> f32 {
    let logprob = token
        .logprobs
        .as_ref()
        .map_or(f32::NAN, |logprobs| logprobs.logprob);
    if logprob > -0.00005 { 0.0 } else { logprob }
}
