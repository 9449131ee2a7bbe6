//! A model of full size, with weights made on the device, behind the server and its HTTP API.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use backstop_benches::http::Server;
use backstop_benches::load::{self, Random};
use backstop_benches::process::{ServerProcess, Start};
use backstop_benches::report::Table;
use backstop_benches::schedule::{self, Answered, Request, random_prompt};
use backstop_benches::statistics::{median, percentile};
use backstop_load::Segment;
use serde_json::{Value, json};

use crate::settings::{DeviceKind, Settings};
use crate::stage::Record;

/// What all servers of the gate say, one after the other.
pub(crate) const SERVERS_LOG: &str = "servers.log";
/// Longest time until the server is ready, and longest silence of it.
const READY_WITHIN: Duration = Duration::from_secs(60);
const SILENCE_MAX: Duration = Duration::from_secs(15);
const DECODE_ANSWER: usize = 128;
/// Tokens of new prompts that are sent at once: their prefill must not look like a hang.
const PREFILL_AT_ONCE: usize = 1 << 17;
const MIXED_SECONDS: f64 = 10.0;
/// Prompts and answers of the mixed load, their logarithms uniform.
const MIXED_PROMPT: (f64, f64) = (128.0, 4096.0);
const MIXED_ANSWER: (f64, f64) = (32.0, 256.0);
/// What counts as a good answer for goodput, in milliseconds.
const GOOD_FIRST_MS: f64 = 2000.0;
const GOOD_PER_TOKEN_MS: f64 = 50.0;

/// Sequences that decode at once.
#[derive(Clone, Copy)]
struct DecodeLoad {
    /// Tokens before the answer.
    context: usize,
    /// How many sequences there are, one after the other.
    batches: &'static [usize],
}

impl DecodeLoad {
    const fn behind(context: usize, batches: &'static [usize]) -> Self {
        Self { context, batches }
    }
}

/// What is measured.
struct Loads {
    decode: [DecodeLoad; 2],
    /// Lengths of prompts, and how many of them, one after the other.
    prefill: &'static [(usize, usize)],
    /// Requests per second, sent at random times whether or not those before are answered.
    mixed_rates: &'static [f64],
    /// Seconds without which none of these begins.
    seconds_min: [u64; 3],
}

const FULL: Loads = Loads {
    decode: [
        DecodeLoad::behind(1024, &[1, 2, 4, 8, 16, 32, 64, 128, 256]),
        DecodeLoad::behind(8192, &[1, 8, 32, 64]),
    ],
    prefill: &[(1024, 5), (8192, 3), (65_536, 1)],
    mixed_rates: &[2.0, 6.0, 12.0],
    seconds_min: [12, 10, 15],
};

const QUICK: Loads = Loads {
    decode: [
        DecodeLoad::behind(1024, &[1, 8, 64, 128]),
        DecodeLoad::behind(8192, &[1, 64]),
    ],
    prefill: &[(1024, 3), (8192, 3)],
    mixed_rates: &[6.0],
    seconds_min: [6, 5, 14],
};

/// A model to serve, and how.
struct Subject {
    model: PathBuf,
    arguments: &'static [&'static str],
    loads: &'static Loads,
    /// Divides lengths, for rehearsals.
    shrink: usize,
}

impl Subject {
    fn new(settings: &Settings) -> Self {
        let models = settings.pack.join("models");
        let loads = if settings.quick { &QUICK } else { &FULL };
        match settings.device {
            DeviceKind::Cuda => Self {
                // The name of its manifest, which the server finds beside itself.
                model: "north-mini-code-fp8".into(),
                arguments: &[
                    "--device",
                    "cuda",
                    "--load-format",
                    "synthetic",
                    "--max-num-seqs",
                    "256",
                    "--max-model-len",
                    "131072",
                ],
                loads,
                shrink: 1,
            },
            DeviceKind::Host => Self {
                model: models.join("demo"),
                arguments: &["--device", "cpu"],
                loads,
                shrink: 64,
            },
        }
    }

    /// Numbers of sequences, only a few of them in rehearsals.
    fn batches<'a>(&self, all: &'a [usize]) -> &'a [usize] {
        if self.shrink == 1 {
            all
        } else {
            &all[..3.min(all.len())]
        }
    }
}

pub(crate) fn run(settings: &Settings, record: &mut Record) -> io::Result<()> {
    let subject = Subject::new(settings);
    if let Some(address) = settings.server {
        record.note(format!("The server at {address} was running already."));
        return measure(address.into(), &subject, record);
    }
    let process = ServerProcess::launch(&Start {
        binary: &settings.pack.join("backstop"),
        model: &subject.model.to_string_lossy(),
        arguments: subject.arguments,
        log: Some(&settings.out.join(SERVERS_LOG)),
        ready_within: settings.device.limit(READY_WITHIN, 10 * READY_WITHIN),
        silence_max: settings.device.limit(SILENCE_MAX, 20 * SILENCE_MAX),
    })?;
    record.measured("server_arguments", json!(subject.arguments));
    measure_start(&process, record)?;
    measure(process.server(), &subject, record)
}

/// All loads, the most important first, as there may not be time for all.
fn measure(server: Server, subject: &Subject, record: &mut Record) -> io::Result<()> {
    let [short, long] = subject.loads.decode;
    decode(server, short, subject, record)?;
    prefill(server, subject, record)?;
    mixed(server, subject, record)?;
    decode(server, long, subject, record)
}

/// The first answer ends the start.
fn measure_start(server: &ServerProcess, record: &mut Record) -> io::Result<()> {
    let stream = load::stream(server.server(), random_prompt(1 << 40, 16), 1, None)?;
    let first = stream.texts[0].duration_since(server.started).as_secs_f64();
    let ready = server.ready_after.as_secs_f64();
    let mut table = Table::new("Start", &["from process start to", "s"]);
    for (name, seconds) in [("ready", ready), ("first token", first)] {
        table
            .rows
            .push(vec![name.to_owned(), format!("{seconds:.2}")]);
    }
    record.measured("start", json!({"ready_s": ready, "first_token_s": first}));
    record.table(table);
    record.save(false)
}

/// Whether there is time for something of about this length; if not, that is a failure.
fn has_time(record: &mut Record, what: &str, seconds: u64) -> bool {
    let enough = record.left() > Duration::from_secs(seconds);
    if !enough {
        record.fail(format!("no time for {what}"));
    }
    enough
}

fn at_once(prompts: &[Segment], answer_tokens: usize) -> Vec<Request> {
    let request = |prompt: &Segment| Request {
        after: Duration::ZERO,
        prompt: *prompt,
        answer_tokens,
    };
    prompts.iter().map(request).collect()
}

/// Rates while all sequences decode. Their prompts are in the prefix cache by then, each with
/// keys and values of its own, so that all begin at the same time.
fn decode(
    server: Server,
    load: DecodeLoad,
    subject: &Subject,
    record: &mut Record,
) -> io::Result<()> {
    let context = load.context / subject.shrink;
    let columns = [
        "sequences",
        "tokens/s, all",
        "first token p50 ms",
        "per token p50 ms",
        "per token p99 ms",
        "between tokens p50 ms",
        "between tokens p99 ms",
    ];
    let title = format!("Decode behind {context} tokens, {DECODE_ANSWER}-token answers");
    let mut table = Table::new(title, &columns);
    let mut all = Vec::new();
    let mut prompts: Vec<Segment> = Vec::new();
    for &batch in subject.batches(load.batches) {
        let what = format!("decoding {batch} sequences behind {context} tokens");
        if !has_time(record, &what, subject.loads.seconds_min[0]) {
            break;
        }
        while prompts.len() < batch {
            let seed = (context * 1000 + prompts.len()) as u64;
            let together = prompts.len().clamp(1, (PREFILL_AT_ONCE / context).max(1));
            let missing = together.min(batch - prompts.len()) as u64;
            let new = (0..missing).map(|index| random_prompt(seed + index, context));
            let new: Vec<_> = new.collect();
            schedule::run(server, &at_once(&new, 1))?;
            prompts.extend(new);
        }
        let answers = schedule::run(server, &at_once(&prompts, DECODE_ANSWER))?;
        let Some(rate) = schedule::steady_rate(&answers) else {
            record.fail(format!("{what}: they never decoded all at once"));
            continue;
        };
        let latencies = Latencies::of(&answers);
        table.rows.push(vec![
            batch.to_string(),
            format!("{rate:.0}"),
            format!("{:.1}", percentile(&latencies.first_ms, 50.0)),
            format!("{:.2}", percentile(&latencies.per_token_ms, 50.0)),
            format!("{:.2}", percentile(&latencies.per_token_ms, 99.0)),
            format!("{:.2}", percentile(&latencies.pauses_ms, 50.0)),
            format!("{:.2}", percentile(&latencies.pauses_ms, 99.0)),
        ]);
        let mut numbers = latencies.to_json();
        numbers["batch"] = json!(batch);
        numbers["decode_tokens_per_second"] = json!(rate);
        all.push(numbers);
        record.table(table.clone());
        record.measured(&format!("decode_{context}"), json!(all));
        record.save(false)?;
    }
    Ok(())
}

/// Time to the first token of prompts that come one after the other.
fn prefill(server: Server, subject: &Subject, record: &mut Record) -> io::Result<()> {
    let columns = ["prompt tokens", "first token median ms", "prompt tokens/s"];
    let mut table = Table::new("Prefill, one prompt at a time", &columns);
    let mut all = Vec::new();
    let [_, seconds_min, _] = subject.loads.seconds_min;
    for &(tokens, rounds) in subject.loads.prefill {
        let tokens = tokens / subject.shrink;
        if !has_time(record, &format!("prefill of {tokens} tokens"), seconds_min) {
            break;
        }
        let times = (0..rounds).map(|round| {
            let prompt = random_prompt((1 << 41) + (tokens * 100 + round) as u64, tokens);
            let answers = schedule::run(server, &at_once(&[prompt], 1))?;
            Ok(answers[0].first_ms())
        });
        let times = times.collect::<io::Result<Vec<f64>>>()?;
        let middle = median(&times);
        let rate = tokens as f64 / middle * 1e3;
        let cells = [
            tokens.to_string(),
            format!("{middle:.1}"),
            format!("{rate:.0}"),
        ];
        table.rows.push(cells.to_vec());
        all.push(json!({
            "prompt_tokens": tokens,
            "first_token_ms": times,
            "prompt_tokens_per_second": rate,
        }));
        record.table(table.clone());
        record.measured("prefill", json!(all));
        record.save(false)?;
    }
    Ok(())
}

/// Requests of mixed lengths at random times.
fn mixed(server: Server, subject: &Subject, record: &mut Record) -> io::Result<()> {
    let columns = [
        "requests/s",
        "answered",
        "good requests/s",
        "tokens/s",
        "first token p50 ms",
        "first token p99 ms",
        "per token p50 ms",
        "per token p99 ms",
        "between tokens p99 ms",
    ];
    let title = format!(
        "Mixed load: good means a first token within {GOOD_FIRST_MS:.0} ms and \
         {GOOD_PER_TOKEN_MS:.0} ms per token after it"
    );
    let mut table = Table::new(title, &columns);
    let mut all = Vec::new();
    let [_, _, seconds_min] = subject.loads.seconds_min;
    for &rate in subject.loads.mixed_rates {
        if !has_time(record, &format!("{rate} requests per second"), seconds_min) {
            break;
        }
        let requests = arrivals(rate, subject.shrink);
        let answers = schedule::run(server, &requests)?;
        let numbers = mixed_numbers(rate, &answers);
        let cell = |name: &str, digits: usize| {
            format!("{:.digits$}", numbers[name].as_f64().unwrap_or(f64::NAN))
        };
        let at = |name: &str, percent: &str| {
            format!("{:.1}", numbers[name][percent].as_f64().unwrap_or(f64::NAN))
        };
        table.rows.push(vec![
            format!("{rate}"),
            answers.len().to_string(),
            cell("good_requests_per_second", 2),
            cell("answer_tokens_per_second", 0),
            at("time_to_first_token_ms", "p50"),
            at("time_to_first_token_ms", "p99"),
            at("time_per_token_ms", "p50"),
            at("time_per_token_ms", "p99"),
            at("inter_token_ms", "p99"),
        ]);
        all.push(numbers);
        record.table(table.clone());
        record.measured("mixed", json!(all));
        record.save(false)?;
    }
    Ok(())
}

/// A Poisson process, the same for the same rate.
fn arrivals(rate: f64, shrink: usize) -> Vec<Request> {
    let mut random = Random((rate * 1000.0) as u64 + 1);
    let between = |(low, high): (f64, f64), fraction: f64| {
        ((low * (high / low).powf(fraction)) as usize / shrink).max(2)
    };
    let mut requests = Vec::new();
    let mut after = 0.0;
    while after < MIXED_SECONDS / shrink as f64 {
        requests.push(Request {
            after: Duration::from_secs_f64(after),
            prompt: random_prompt(
                (1 << 42) + ((rate * 1e3) as u64) * 10_000 + requests.len() as u64,
                between(MIXED_PROMPT, random.fraction()),
            ),
            answer_tokens: between(MIXED_ANSWER, random.fraction()),
        });
        after += -random.fraction().ln() / rate;
    }
    requests
}

fn mixed_numbers(rate: f64, answers: &[Answered]) -> Value {
    let begin = answers.iter().map(|answer| answer.stream.sent).min();
    let end = answers
        .iter()
        .filter_map(|answer| answer.stream.texts.last().copied())
        .max();
    let seconds = begin.zip(end).map_or(f64::NAN, |(begin, end)| {
        end.duration_since(begin).as_secs_f64()
    });
    let good = answers.iter().filter(|answer| {
        answer.first_ms() <= GOOD_FIRST_MS && answer.per_token_ms() <= GOOD_PER_TOKEN_MS
    });
    let tokens: usize = answers.iter().map(|answer| answer.answer_tokens).sum();
    let mut numbers = Latencies::of(answers).to_json();
    numbers["requests_per_second"] = json!(rate);
    numbers["requests"] = json!(answers.len());
    numbers["seconds"] = json!(seconds);
    numbers["good_requests_per_second"] = json!(good.count() as f64 / seconds);
    numbers["answer_tokens_per_second"] = json!(tokens as f64 / seconds);
    numbers
}

struct Latencies {
    first_ms: Vec<f64>,
    per_token_ms: Vec<f64>,
    pauses_ms: Vec<f64>,
}

impl Latencies {
    fn of(answers: &[Answered]) -> Self {
        Self {
            first_ms: answers.iter().map(Answered::first_ms).collect(),
            per_token_ms: answers.iter().map(Answered::per_token_ms).collect(),
            pauses_ms: answers.iter().flat_map(Answered::pauses_ms).collect(),
        }
    }

    fn to_json(&self) -> Value {
        let spread = |values: &[f64]| {
            let [p50, p90, p99] = [50.0, 90.0, 99.0].map(|percent| percentile(values, percent));
            json!({"p50": p50, "p90": p90, "p99": p99, "count": values.len()})
        };
        json!({
            "time_to_first_token_ms": spread(&self.first_ms),
            "time_per_token_ms": spread(&self.per_token_ms),
            "inter_token_ms": spread(&self.pauses_ms),
        })
    }
}
