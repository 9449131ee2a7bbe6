//! What the programs beside the server have in common: how they tell what they do, and how they end.

use std::fmt::Display;
use std::io::IsTerminal;
use std::process::ExitCode;

/// Messages go to standard error, so that standard output can have results, and without the time, for somebody waits for
/// them. `RUST_LOG` filters.
pub fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
}

/// How a program ends: as it says itself, or with 1 and the reason in the log.
pub fn end<E: Display>(outcome: Result<ExitCode, E>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        tracing::error!("{error}");
        ExitCode::FAILURE
    })
}

/// Waits until the process is told to end, by SIGINT or SIGTERM.
///
/// # Errors
///
/// If signals cannot be waited for.
#[cfg(feature = "signals")]
pub async fn told_to_end() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
