//! What the command line asks for.

use std::io::Write;
use std::process::ExitCode;

use crate::DrillError;
use crate::args::{CommandLine, StandInArgs};
use crate::drill::drill;
use crate::faults::{FAULTS, Fault};
use crate::report::{Report, write_html, write_json, write_metrics, write_watch_html};
use crate::stand_in::StandIn;
use crate::verdict::Verdict;
use crate::watch::watch;

/// The drill was held, and failed.
const EXIT_FAILED: u8 = 3;

/// Does what the command line says, until it is done or the process is told to end.
///
/// # Errors
///
/// If the drill could not be held, or its report could not be written.
pub fn run(command_line: &CommandLine) -> Result<ExitCode, DrillError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| DrillError::new(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(async {
        tokio::select! {
            done = act(command_line) => done,
            // What runs is dropped, and a gateway that was started ends with it.
            ended = told_to_end() => Err(ended),
        }
    })
}

async fn act(command_line: &CommandLine) -> Result<ExitCode, DrillError> {
    if command_line.list {
        return list();
    }
    if let Some(name) = &command_line.stand_in.fault {
        return stand_in_alone(&command_line.stand_in, name).await;
    }
    let output = &command_line.output;
    if let (true, Some(url)) = (
        command_line.gateway.readonly,
        &command_line.gateway.gateway_url,
    ) {
        return look_on(command_line, url).await;
    }
    let report = drill(command_line).await?;
    if let Some(path) = &output.json {
        write_json(&report, path)?;
    }
    if let Some(path) = &output.html {
        write_html(&report, path)?;
    }
    if let Some(path) = &output.metrics_file {
        write_metrics(&report, path)?;
    }
    conclude(&report)
}

/// Asks a gateway as it is.
async fn look_on(command_line: &CommandLine, url: &str) -> Result<ExitCode, DrillError> {
    let watch = watch(command_line, url).await?;
    if let Some(path) = &command_line.output.json {
        write_json(&watch, path)?;
    }
    if let Some(path) = &command_line.output.html {
        write_watch_html(&watch, path)?;
    }
    let summary = &watch.summary;
    let times = summary
        .total_s
        .map(|total| format!("; p50 {:.2} s, p99 {:.2} s", total.p50, total.p99));
    let others = summary.requests - summary.lost - summary.from_fallback;
    tracing::info!(
        "{} requests: {} answered by Backstop, {others} by others, {} lost{}",
        summary.requests,
        summary.from_fallback,
        summary.lost,
        times.unwrap_or_default()
    );
    match watch.verdict {
        Verdict::Passed => Ok(ExitCode::SUCCESS),
        Verdict::Failed | Verdict::NotRehearsed => Ok(ExitCode::from(EXIT_FAILED)),
    }
}

/// Says how it went.
fn conclude(report: &Report) -> Result<ExitCode, DrillError> {
    let is_litellm = report.subject.settings.is_some();
    for advice in &report.advice {
        let failures = advice.failures.join(", ");
        if is_litellm {
            let now = advice
                .now
                .as_deref()
                .map(|now| format!(" ({now})"))
                .unwrap_or_default();
            tracing::info!(
                "`{}`{now}: {} Shown by {failures}.",
                advice.setting,
                advice.litellm
            );
        } else {
            let setting = advice.setting;
            tracing::info!(
                "{} LiteLLM has `{setting}` for that. Shown by {failures}.",
                advice.any_gateway
            );
        }
    }
    let count = |verdict| report.count(verdict);
    let counts = format!(
        "{} passed, {} failed, {} not rehearsed, in {:.0} s",
        count(Verdict::Passed),
        count(Verdict::Failed),
        count(Verdict::NotRehearsed),
        report.took_s
    );
    match report.verdict {
        Verdict::Passed => {
            tracing::info!("the drill was passed: {counts}");
            Ok(ExitCode::SUCCESS)
        }
        Verdict::Failed => {
            tracing::error!("the drill failed: {counts}");
            Ok(ExitCode::from(EXIT_FAILED))
        }
        Verdict::NotRehearsed => Err(DrillError::new(format!("nothing was rehearsed: {counts}"))),
    }
}

fn list() -> Result<ExitCode, DrillError> {
    let mut out = std::io::stdout().lock();
    let width = FAULTS
        .iter()
        .map(|fault| fault.name.len())
        .max()
        .unwrap_or(0);
    let written = FAULTS.iter().try_for_each(|fault| {
        let Fault {
            name,
            what,
            expected,
            ..
        } = fault;
        writeln!(out, "{name:width$}  {what}; {}", expected.text())
    });
    written.map_err(|error| DrillError::new(format!("standard output: {error}")))?;
    Ok(ExitCode::SUCCESS)
}

/// Fails until the process is told to end.
async fn stand_in_alone(args: &StandInArgs, name: &str) -> Result<ExitCode, DrillError> {
    let fault = if name == "none" {
        None
    } else {
        Some(Fault::named(name)?)
    };
    let stand_in = StandIn::start(args.stand_in)?;
    stand_in.set(fault).await;
    let what = fault.map_or("is well", |fault| fault.what);
    tracing::info!("a primary at http://{}/v1: {what}", stand_in.address());
    std::future::pending().await
}

async fn told_to_end() -> DrillError {
    match backstop_companion::told_to_end().await {
        Ok(()) => DrillError::new("told to end"),
        Err(error) => DrillError::new(format!("cannot wait for signals: {error}")),
    }
}
