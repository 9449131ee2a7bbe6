//! `backstop canary`: records the answer that later starts must reproduce.

use std::process::ExitCode;

use crate::args::CanaryArgs;
use crate::standby::{canary_of, generate};
use crate::{load, start};
use backstop_engine::{Lifecycle, LifecycleState};

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
    let answer = generate(&running.engine, &prompt, args.tokens.max(1)).await;
    tokio::task::block_in_place(|| running.thread.stop());
    let canary = canary_of(prompt, &answer?, args.tolerance);
    let logprobs = canary.logprobs.iter().map(|logprob| shown(*logprob));
    println!("[canary]");
    println!("prompt_tokens = {:?}", canary.prompt_tokens);
    println!("tokens = {:?}", canary.tokens);
    println!(
        "logprobs = [{}]",
        logprobs.collect::<Vec<String>>().join(", ")
    );
    println!("tolerance = {}", args.tolerance);
    Ok(ExitCode::SUCCESS)
}

/// Never minus zero, which a manifest would not take for a log-probability.
fn shown(logprob: f32) -> String {
    let logprob = if logprob > -0.00005 { 0.0 } else { logprob };
    format!("{logprob:.4}")
}
