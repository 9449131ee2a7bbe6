//! `backstop trace-exporter`: carries traces to a collector for a server, which starts it and talks to it over standard
//! input and output. Each line that comes is a batch; each line that goes says what became of it.

mod endpoint;
mod post;

use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use backstop_sandbox::{Sandbox, confine_calls_of_client};

pub(crate) use self::endpoint::Endpoint;
use self::post::{Outcome, post};
use crate::args::TraceExporterArgs;

/// What is said when batches may come.
pub(crate) const READY: &str = "ready";
/// What is said of a batch that the collector has taken.
pub(crate) const DONE: &str = "done";
/// Longest batch; a server's are much shorter.
const BATCH_BYTES_MAX: u64 = 16 << 20;
/// Pauses between attempts to bring a collector what it could not take.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

pub(crate) fn run(args: &TraceExporterArgs) -> Result<ExitCode, String> {
    let _signals = outlive_signals();
    match prepare(args) {
        Ok(addresses) => {
            say(READY)?;
            carry(&args.endpoint, &addresses)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(reason) => {
            say(&reason)?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The server's last spans come after the signal that ends it, which often goes to all of its processes. This one ends
/// when there is nothing more to read.
#[cfg(unix)]
fn outlive_signals() -> Option<tokio::runtime::Runtime> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let entered = runtime.enter();
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ] {
        // Nobody looks whether one has come; without it, a signal ends this process as usual.
        let _ignored = signal(kind);
    }
    drop(entered);
    Some(runtime)
}

#[cfg(not(unix))]
fn outlive_signals() {}

/// Asks once where the collector is, and gives up everything but connecting to its port.
fn prepare(args: &TraceExporterArgs) -> Result<Vec<SocketAddr>, String> {
    let Endpoint { host, port, .. } = &args.endpoint;
    let found = (host.as_str(), *port).to_socket_addrs();
    let found = found.map_err(|error| format!("there is no {host}: {error}"))?;
    if !args.no_sandbox {
        let sandbox = Sandbox {
            connect_ports: vec![*port],
            ..Sandbox::default()
        };
        sandbox.confine_files().map_err(|error| error.to_string())?;
        confine_calls_of_client().map_err(|error| error.to_string())?;
    }
    Ok(found.collect())
}

/// Carries batches until no more come.
fn carry(endpoint: &Endpoint, addresses: &[SocketAddr]) -> Result<(), String> {
    let mut input = std::io::stdin().lock();
    loop {
        let mut batch = String::new();
        let read = input.by_ref().take(BATCH_BYTES_MAX).read_line(&mut batch);
        if read.map_err(|error| error.to_string())? == 0 {
            return Ok(());
        }
        match bring(endpoint, addresses, batch.trim_end()) {
            Ok(()) => say(DONE)?,
            Err(reason) => say(&reason)?,
        }
    }
}

/// Brings one batch, and tries again while that may help.
fn bring(endpoint: &Endpoint, addresses: &[SocketAddr], batch: &str) -> Result<(), String> {
    let mut pauses = PAUSES.iter();
    loop {
        match post(endpoint, addresses, batch) {
            Outcome::Taken => return Ok(()),
            Outcome::Refused(reason) => return Err(reason),
            Outcome::NotNow(reason) => match pauses.next() {
                Some(pause) => sleep(*pause),
                None => return Err(reason),
            },
        }
    }
}

/// One line.
fn say(text: &str) -> Result<(), String> {
    let line = format!("{}\n", text.replace(['\r', '\n'], " "));
    let mut output = std::io::stdout().lock();
    let written = output
        .write_all(line.as_bytes())
        .and_then(|()| output.flush());
    written.map_err(|error| error.to_string())
}
