//! What the HTTP front end costs, without a model behind it:
//! `cargo run --release -p backstop-benches --bin front_end -- MODEL_DIRECTORY [DIRECTORY]`.
//!
//! The program starts itself once more as the server: the real one, with an engine whose executor
//! computes nothing and whose steps take no time, or ten milliseconds. The client runs on the same
//! machine and takes its share of it.

mod client;
mod engine;
mod process;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backstop_benches::machine;
use backstop_benches::report::{self, Table};
use backstop_benches::statistics::{median, percentile};
use serde_json::{Value, json};

use self::process::{CpuTime, FrontEnd};

const USAGE: &str = "usage: front_end MODEL_DIRECTORY [DIRECTORY]";
/// Every measurement is taken this often, and the median is reported.
const REPEATS: usize = 3;
/// How long a step takes, streams at once, and how often each client asks.
const LOADS: [(u64, usize, usize); 6] = [
    (0, 1, 50),
    (0, 64, 4),
    (0, 1000, 1),
    (10, 1, 5),
    (10, 64, 2),
    (10, 1000, 1),
];
const ANSWER_TOKENS: usize = 256;
const SHORT_CLIENTS: usize = 64;
const SHORT_REQUESTS: usize = 100;
const SHORT_TOKENS: usize = 8;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [role, model, step_ms] if role == "serve" => {
            let step_ms = step_ms.parse().map_err(io::Error::other)?;
            engine::serve(Path::new(model), Duration::from_millis(step_ms))
        }
        [model] => measure(model, None),
        [model, directory] => measure(model, Some(PathBuf::from(directory))),
        _ => Err(io::Error::other(USAGE)),
    }
}

fn measure(model: &str, directory: Option<PathBuf>) -> io::Result<()> {
    let machine = machine::facts();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let short = repeated(|| {
        let server = FrontEnd::start(model, 0)?;
        let run = client::short_answers;
        let rate = runtime.block_on(run(
            server.address,
            SHORT_CLIENTS,
            SHORT_REQUESTS,
            SHORT_TOKENS,
        ))?;
        Ok(json!({"requests_per_second": rate}))
    })?;
    let mut streams = Vec::new();
    for (step_ms, clients, rounds) in LOADS {
        let runs = repeated(|| run_streams(&runtime, model, step_ms, clients, rounds))?;
        let requests = clients * rounds;
        streams.push(json!({
            "step_ms": step_ms, "streams": clients, "requests": requests, "runs": runs,
        }));
    }
    let (short, streams) = (Value::from(short), Value::from(streams));
    let tables = [
        short_table(&short),
        streams_table(&streams),
        cost_table(&streams),
        scrape_table(&streams),
    ];
    let text = report::markdown("front_end", &machine, &tables);
    io::stdout().write_all(text.as_bytes())?;
    let measurements = json!({"short_answers": short, "streams": streams});
    match directory {
        Some(directory) => report::write(&directory, "front_end", &machine, &measurements, &tables),
        None => Ok(()),
    }
}

fn repeated(mut run: impl FnMut() -> io::Result<Value>) -> io::Result<Vec<Value>> {
    (0..REPEATS).map(|_| run()).collect()
}

/// Streams at once on a fresh server, while its metrics are scraped.
fn run_streams(
    runtime: &tokio::runtime::Runtime,
    model: &str,
    step_ms: u64,
    clients: usize,
    rounds: usize,
) -> io::Result<Value> {
    let server = FrontEnd::start(model, step_ms)?;
    let address = server.address;
    // Connections, threads and memory are there before anything is timed.
    runtime.block_on(client::stream(address, clients.min(64), 1, 16))?;
    let before = CpuTime::of(server.id());
    let ended = AtomicBool::new(false);
    let (streams, scrapes) = std::thread::scope(|scope| {
        let scraper = scope.spawn(|| client::scrape(address, || ended.load(Ordering::Relaxed)));
        let streams = runtime.block_on(client::stream(address, clients, rounds, ANSWER_TOKENS));
        ended.store(true, Ordering::Relaxed);
        let scrapes = scraper
            .join()
            .map_err(|_| io::Error::other("the scraper panicked"));
        Ok::<_, io::Error>((streams?, scrapes??))
    })?;
    let used = CpuTime::of(server.id()).since(before);
    let tokens = (streams.each.len() * ANSWER_TOKENS) as f64;
    let first: Vec<f64> = streams.each.iter().map(|s| s.first_token_ms).collect();
    let bytes: u64 = streams.each.iter().map(|s| s.bytes).sum();
    Ok(json!({
        "seconds": streams.seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / streams.seconds,
        "bytes_per_token": bytes as f64 / tokens,
        "first_token_p50_ms": percentile(&first, 50.0),
        "first_token_p99_ms": percentile(&first, 99.0),
        "front_end_cpu_s_per_million_tokens": used.front_end_s / tokens * 1e6,
        "engine_cpu_s_per_million_tokens": used.engine_s / tokens * 1e6,
        "scrapes": scrapes.len(),
        "scrape_p50_ms": percentile(&scrapes, 50.0),
        "scrape_p99_ms": percentile(&scrapes, 99.0),
        "scrape_max_ms": percentile(&scrapes, 100.0),
    }))
}

/// The median of a number over the runs.
fn of(runs: &Value, field: &str) -> f64 {
    let values = runs.as_array().into_iter().flatten();
    let values: Vec<f64> = values.filter_map(|run| run[field].as_f64()).collect();
    median(&values)
}

fn short_table(runs: &Value) -> Table {
    let title = format!(
        "Short answers: {SHORT_CLIENTS} connections, {SHORT_TOKENS} tokens, not streamed, steps of 0 ms"
    );
    let mut table = Table::new(title, &["requests/s"]);
    table
        .rows
        .push(vec![format!("{:.0}", of(runs, "requests_per_second"))]);
    table
}

/// A row for each load: step, streams, and these numbers.
fn table(title: String, streams: &Value, columns: &[(&str, &str, usize)]) -> Table {
    let names = columns.iter().map(|(name, _, _)| *name);
    let names: Vec<&str> = ["step ms", "streams"].into_iter().chain(names).collect();
    let mut table = Table::new(title, &names);
    for load in streams.as_array().into_iter().flatten() {
        let mut row = vec![load["step_ms"].to_string(), load["streams"].to_string()];
        for (_, field, digits) in columns {
            row.push(format!("{:.*}", *digits, of(&load["runs"], field)));
        }
        table.rows.push(row);
    }
    table
}

fn streams_table(streams: &Value) -> Table {
    let title = format!("Streams that begin at once, {ANSWER_TOKENS} tokens each");
    let columns = [
        ("tokens/s, all", "tokens_per_second", 0),
        ("first token p50 ms", "first_token_p50_ms", 2),
        ("first token p99 ms", "first_token_p99_ms", 2),
        ("bytes per token", "bytes_per_token", 0),
    ];
    table(title, streams, &columns)
}

fn cost_table(streams: &Value) -> Table {
    let columns = [
        ("front end", "front_end_cpu_s_per_million_tokens", 1),
        ("engine thread", "engine_cpu_s_per_million_tokens", 1),
    ];
    let title = "Processor seconds of the server for a million streamed tokens".to_owned();
    table(title, streams, &columns)
}

fn scrape_table(streams: &Value) -> Table {
    let columns = [
        ("scrapes a run", "scrapes", 0),
        ("p50 ms", "scrape_p50_ms", 2),
        ("p99 ms", "scrape_p99_ms", 2),
        ("slowest ms", "scrape_max_ms", 2),
    ];
    let title = "GET /metrics every 50 ms during the streams above".to_owned();
    table(title, streams, &columns)
}
