//! `bench serve`: a server of OpenAI's API under load, measured as `vllm bench serve` does.

mod args;
mod measures;
mod measuring;
mod page;
mod plan;
mod result;
mod search;
mod server;
mod table;
mod writing;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

pub use args::{
    BackendName, Bench, BenchArgs, DatasetName, GoodputArgs, LatencyName, LoadArgs, OutputArgs,
    PowerName, PromptArgs, ScaleName, ServeArgs, ServerArgs, TokenEvents,
};

use crate::QualifyError;
use measuring::Measuring;
use result::BenchReport;

/// What the process ends with if a number that was measured is not to be used.
const INVALID: u8 = 3;
/// Threads of clients.
const THREADS_MAX: usize = 8;

/// Measures, and writes down what came of it.
///
/// # Errors
///
/// If the server does not answer, or something cannot be read or written.
pub fn run(args: &BenchArgs) -> Result<ExitCode, QualifyError> {
    let Bench::Serve(args) = &args.what;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.min(THREADS_MAX))
        .enable_all()
        .build()
        .map_err(|error| QualifyError::new(format!("no threads for clients: {error}")))?;
    let report = runtime.block_on(serve(args))?;
    let is_valid = report.runs.iter().all(|run| run.valid);
    Ok(if is_valid {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(INVALID)
    })
}

/// Runs all loads, and writes everything down after each, so that what is interrupted is not lost.
async fn serve(args: &ServeArgs) -> Result<BenchReport, QualifyError> {
    let mut measuring = Measuring::start(args).await?;
    if let Some(scale) = args.goodput.find_capacity {
        search::run(&mut measuring, scale.into()).await?;
    } else {
        for point in plan::points(args)? {
            measuring.run(&point).await?;
        }
    }
    let report = measuring.into_report();
    let is_json = args.output.json.as_deref() == Some(Path::new("-"));
    let text = if is_json {
        writing::json(&report)?
    } else {
        table::text(&report, &args.output.percentile_metrics)
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| QualifyError::new(format!("standard output: {error}")))?;
    Ok(report)
}
