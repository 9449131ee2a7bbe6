//! The whole server under load, over HTTP:
//! `cargo run --release -p backstop-benches --bin serve_load -- BINARY MODEL_DIRECTORY [DIRECTORY]`.
//!
//! The client runs on the same machine and takes its share of it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use backstop_benches::load::{self, Load, Outcome};
use backstop_benches::process::{ServerProcess, checkpoint_bytes};
use backstop_benches::report::{self, Table};
use backstop_benches::statistics::{median, percentile};
use backstop_benches::{http, machine};
use serde_json::{Value, json};

const USAGE: &str = "usage: serve_load BINARY MODEL_DIRECTORY [DIRECTORY]";
const STARTS: usize = 5;
/// Clients, and requests of each: few clients need more requests for their percentiles.
const CLIENTS: [(usize, usize); 3] = [(1, 8), (8, 4), (64, 2)];
const SHORT_PROMPT: usize = 32;
const LONG_PROMPT: usize = 2048;
const ANSWER: usize = 256;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (binary, model, directory) = match arguments.as_slice() {
        [binary, model] => (binary, model, None),
        [binary, model, directory] => (binary, model, Some(PathBuf::from(directory))),
        _ => return Err(io::Error::other(USAGE)),
    };
    let mut machine = machine::facts();
    machine["server_built"] = json!(machine::modified(Path::new(binary)));
    let (startup, startup_table) = measure_startup(Path::new(binary), model)?;

    let server = ServerProcess::start(Path::new(binary), model, &[])?;
    let memory_ready = server.memory_kib("VmRSS");
    warm_up(&server)?;
    let decode = run_all(&server, SHORT_PROMPT, ANSWER)?;
    let prefill = run_all(&server, LONG_PROMPT, 1)?;
    let (memory, memory_table) = memory(&server, memory_ready, checkpoint_bytes(Path::new(model))?);

    let tables = [
        startup_table,
        decode_table(&decode),
        prefill_table(&prefill),
        memory_table,
    ];
    let all = |outcomes: &[Outcome]| outcomes.iter().map(Outcome::to_json).collect::<Vec<_>>();
    let measurements = json!({
        "model": model,
        "startup": startup,
        "decode": all(&decode),
        "prefill": all(&prefill),
        "memory": memory,
    });
    let text = report::markdown("serve_load", &machine, &tables);
    io::stdout().write_all(text.as_bytes())?;
    match directory {
        Some(directory) => {
            report::write(&directory, "serve_load", &machine, &measurements, &tables)
        }
        None => Ok(()),
    }
}

/// From the start of a process until it is ready, and until the first token of its first chat.
fn measure_startup(binary: &Path, model: &str) -> io::Result<(Value, Table)> {
    let (mut ready_ms, mut first_token_ms) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let server = ServerProcess::start(binary, model, &[])?;
        let body = json!({
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 1,
            "stream": true,
        });
        let answer = http::post(server.address, "/v1/chat/completions", &body.to_string())?;
        let token = answer
            .lines
            .iter()
            .find(|(_, line)| line.contains("\"finish_reason\":\"length\""));
        let (time, _) = token.ok_or_else(|| io::Error::other(answer.body()))?;
        ready_ms.push(server.ready_after.as_secs_f64() * 1e3);
        first_token_ms.push(time.duration_since(server.started).as_secs_f64() * 1e3);
    }
    let columns = [
        "from process start to",
        "median ms",
        "fastest ms",
        "slowest ms",
    ];
    let title = format!("Start, {STARTS} fresh processes, files in the page cache");
    let mut table = Table::new(title, &columns);
    for (name, values) in [("ready", &ready_ms), ("first token", &first_token_ms)] {
        let cells = [50.0, 0.0, 100.0].map(|percent| format!("{:.0}", percentile(values, percent)));
        table
            .rows
            .push(std::iter::once(name.to_owned()).chain(cells).collect());
    }
    Ok((
        json!({"ready_ms": ready_ms, "first_token_ms": first_token_ms}),
        table,
    ))
}

/// Touches all memory and starts all threads before anything is timed.
fn warm_up(server: &ServerProcess) -> io::Result<()> {
    let load = Load {
        clients: 16,
        rounds: 1,
        prompt_tokens: 64,
        answer_tokens: 32,
    };
    load::run(server.address, load).map(drop)
}

fn run_all(
    server: &ServerProcess,
    prompt_tokens: usize,
    answer_tokens: usize,
) -> io::Result<Vec<Outcome>> {
    let loads = CLIENTS.into_iter().map(|(clients, rounds)| {
        load::run(
            server.address,
            Load {
                clients,
                rounds,
                prompt_tokens,
                answer_tokens,
            },
        )
    });
    loads.collect()
}

fn decode_table(outcomes: &[Outcome]) -> Table {
    let title = format!("Decode: {SHORT_PROMPT}-token prompts, {ANSWER}-token answers");
    let columns = [
        "streams",
        "tokens/s, all",
        "tokens/s per stream, median",
        "first token p50 ms",
        "first token p99 ms",
        "between tokens p50 ms",
        "between tokens p99 ms",
    ];
    let mut table = Table::new(title, &columns);
    for outcome in outcomes {
        table.rows.push(vec![
            outcome.load.clients.to_string(),
            format!("{:.0}", outcome.answer_rate()),
            format!("{:.1}", median(&outcome.decode_rates)),
            format!("{:.1}", percentile(&outcome.first_ms, 50.0)),
            format!("{:.1}", percentile(&outcome.first_ms, 99.0)),
            format!("{:.2}", percentile(&outcome.pauses_ms, 50.0)),
            format!("{:.2}", percentile(&outcome.pauses_ms, 99.0)),
        ]);
    }
    table
}

fn prefill_table(outcomes: &[Outcome]) -> Table {
    let title =
        format!("Prefill: {LONG_PROMPT}-token prompts without a common prefix, 1-token answers");
    let columns = [
        "requests at once",
        "prompt tokens/s, all",
        "first token p50 ms",
        "first token p99 ms",
    ];
    let mut table = Table::new(title, &columns);
    for outcome in outcomes {
        table.rows.push(vec![
            outcome.load.clients.to_string(),
            format!("{:.0}", outcome.prompt_rate()),
            format!("{:.0}", percentile(&outcome.first_ms, 50.0)),
            format!("{:.0}", percentile(&outcome.first_ms, 99.0)),
        ]);
    }
    table
}

fn memory(server: &ServerProcess, ready_kib: u64, checkpoint_bytes: u64) -> (Value, Table) {
    let after_kib = server.memory_kib("VmRSS");
    let peak_kib = server.memory_kib("VmHWM");
    let checkpoint_kib = checkpoint_bytes / 1024;
    let rows = [
        ("checkpoint files", checkpoint_kib),
        ("resident when ready", ready_kib),
        ("resident after all loads", after_kib),
        ("highest resident", peak_kib),
    ];
    let mut table = Table::new("Memory of the server process", &["what", "MiB"]);
    for (name, kib) in rows {
        table
            .rows
            .push(vec![name.to_owned(), format!("{:.1}", kib as f64 / 1024.0)]);
    }
    let json = json!({
        "checkpoint_kib": checkpoint_kib,
        "resident_ready_kib": ready_kib,
        "resident_after_kib": after_kib,
        "resident_peak_kib": peak_kib,
    });
    (json, table)
}
