//! Loads of many clients at once, and what each of them saw.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstop_client::Endpoint;
use backstop_load::{
    Backend, Content, Events, LoadError, Pace, Prompts, Record, Segment, Session, Target, Wire,
    Workload,
};
use serde_json::{Map, Value, json};

use crate::http::Server;
use crate::statistics::{median, percentile};

/// Silence ends a request long before.
const PATIENCE: Duration = Duration::from_secs(86_400);
/// Threads that read answers.
const THREADS_MAX: usize = 8;

/// What every client of a round asks for.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Clients at once.
    pub clients: usize,
    /// Requests for each, one after the other.
    pub rounds: usize,
    /// Tokens of each prompt.
    pub prompt_tokens: usize,
    /// Tokens of each answer.
    pub answer_tokens: usize,
}

/// One stream, as its client saw it.
#[derive(Clone, Debug)]
pub struct Stream {
    /// When the request was sent.
    pub sent: Instant,
    /// When text came, in order; at least once.
    pub texts: Vec<Instant>,
}

/// What a load came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The load.
    pub load: Load,
    /// From the first request to the end of the last answer.
    pub seconds: f64,
    /// Time to the first text, of each request, in milliseconds.
    pub first_ms: Vec<f64>,
    /// Pauses between texts that came one after the other, in milliseconds.
    pub pauses_ms: Vec<f64>,
    /// Tokens per second of each stream after its first text.
    pub decode_rates: Vec<f64>,
}

impl Outcome {
    /// Generated tokens per second over all clients, prefill time included.
    pub fn answer_rate(&self) -> f64 {
        self.requests() * self.load.answer_tokens as f64 / self.seconds
    }

    /// Prompt tokens per second over all clients.
    pub fn prompt_rate(&self) -> f64 {
        self.requests() * self.load.prompt_tokens as f64 / self.seconds
    }

    fn requests(&self) -> f64 {
        (self.load.clients * self.load.rounds) as f64
    }

    /// All numbers.
    pub fn to_json(&self) -> Value {
        let spread = |values: &[f64]| {
            let [p50, p90, p99] = [50.0, 90.0, 99.0].map(|percent| percentile(values, percent));
            json!({"p50": p50, "p90": p90, "p99": p99, "count": values.len()})
        };
        json!({
            "clients": self.load.clients,
            "requests_per_client": self.load.rounds,
            "prompt_tokens": self.load.prompt_tokens,
            "answer_tokens": self.load.answer_tokens,
            "seconds": self.seconds,
            "answer_tokens_per_second": self.answer_rate(),
            "prompt_tokens_per_second": self.prompt_rate(),
            "decode_tokens_per_second_per_client_median": median(&self.decode_rates),
            "time_to_first_token_ms": spread(&self.first_ms),
            "inter_token_ms": spread(&self.pauses_ms),
        })
    }
}

/// Runs a load. No two prompts of one process begin alike, so that the prefix cache never helps.
pub fn run(server: impl Into<Server>, load: Load) -> io::Result<Outcome> {
    let sessions = (0..load.clients * load.rounds).map(|number| {
        let prompt = Segment {
            stream: stream_of(load) << 32 | number as u64,
            tokens: load.prompt_tokens as u32,
        };
        session(prompt, load.answer_tokens, None)
    });
    let pace = Pace::Closed {
        clients: load.clients,
    };
    let streams = ask(server.into(), sessions.collect(), &pace)?;
    summarise(load, &streams)
}

/// Asks for an answer of exactly this length. With a seed, tokens are drawn from the model's raw
/// distribution; without one, the likeliest are taken.
pub fn stream(
    server: impl Into<Server>,
    prompt: Segment,
    answer_tokens: usize,
    seed: Option<u64>,
) -> io::Result<Stream> {
    let pace = Pace::Closed { clients: 1 };
    let sessions = vec![session(prompt, answer_tokens, seed)];
    let mut streams = ask(server.into(), sessions, &pace)?;
    streams
        .pop()
        .ok_or_else(|| io::Error::other("there was no load"))
}

/// Different for every load.
fn stream_of(load: Load) -> u64 {
    (load.clients * 1_000_003 + load.prompt_tokens * 7919 + load.answer_tokens) as u64
}

/// A single request.
pub(crate) fn session(prompt: Segment, answer_tokens: usize, seed: Option<u64>) -> Session {
    let mut session = Session::single(Content::Segments(vec![prompt]), answer_tokens as u32);
    for turn in &mut session.turns {
        turn.fields = Map::from_iter([
            ("temperature".to_owned(), json!(u8::from(seed.is_some()))),
            ("top_p".to_owned(), json!(1)),
            ("seed".to_owned(), json!(seed.unwrap_or_default())),
        ]);
    }
    session
}

/// What the clients saw, in the order of the sessions. Every answer must have its length.
pub(crate) fn ask(server: Server, sessions: Vec<Session>, pace: &Pace) -> io::Result<Vec<Stream>> {
    let endpoint = Endpoint::new(&format!("http://{}", server.address), None, None);
    let target = Target {
        endpoint: endpoint
            .map_err(io::Error::other)?
            .with_silence_max(server.silence_max),
        path: Backend::Completions.path().to_owned(),
        patience: PATIENCE,
        events: Events::WithContent,
    };
    let workload = Arc::new(Workload {
        sessions,
        wire: Wire {
            backend: Backend::Completions,
            model: None,
            prompts: Prompts::TokenIds,
            seed: 0,
            ignore_eos: true,
            extra: Map::new(),
        },
        think: Duration::ZERO,
    });
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.min(THREADS_MAX))
        .enable_all()
        .build()?;
    let running = backstop_load::run(&target, workload, pace, |_| {});
    let mut outcome = runtime
        .block_on(running)
        .map_err(|error: LoadError| io::Error::other(error.to_string()))?;
    outcome.records.sort_by_key(|record| record.session);
    let streams = outcome
        .records
        .iter()
        .map(|record| seen(outcome.began, record));
    streams.collect()
}

/// Checks that the answer is whole, and notes when its texts came.
fn seen(began: Instant, record: &Record) -> io::Result<Stream> {
    if let Some(error) = &record.error {
        let message = record.message.clone().unwrap_or_default();
        let kind = match error.as_str() {
            "timeout" => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::Other,
        };
        return Err(io::Error::new(kind, format!("{error}: {message}")));
    }
    if record.output_tokens != u64::from(record.asked_output_tokens) {
        return Err(io::Error::other(format!(
            "not as long as asked for: {} tokens of {}",
            record.output_tokens, record.asked_output_tokens
        )));
    }
    let sent = began + Duration::from_secs_f64(record.sent_s);
    let at = |us: &u32| sent + Duration::from_micros(u64::from(*us));
    Ok(Stream {
        sent,
        texts: record.events_us.iter().map(at).collect(),
    })
}

/// Numbers that look random enough for loads; the same for the same seed.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// 31 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// Above 0, and at most 1.
    pub fn fraction(&mut self) -> f64 {
        (self.bits() + 1) as f64 / (1u64 << 31) as f64
    }
}

fn summarise(load: Load, streams: &[Stream]) -> io::Result<Outcome> {
    let milliseconds = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64() * 1e3;
    let first = streams.iter().map(|stream| stream.sent).min();
    let last = streams
        .iter()
        .filter_map(|stream| stream.texts.last().copied())
        .max();
    let (Some(first), Some(last)) = (first, last) else {
        return Err(io::Error::other("there was no load"));
    };
    let pauses = streams.iter().flat_map(|stream| {
        stream
            .texts
            .windows(2)
            .map(|pair| milliseconds(pair[0], pair[1]))
    });
    let rates = streams
        .iter()
        .filter(|stream| stream.texts.len() > 1)
        .map(|stream| {
            let decoding =
                milliseconds(stream.texts[0], stream.texts[stream.texts.len() - 1]) / 1e3;
            (load.answer_tokens - 1) as f64 / decoding
        });
    Ok(Outcome {
        load,
        seconds: last.duration_since(first).as_secs_f64(),
        first_ms: streams
            .iter()
            .map(|stream| milliseconds(stream.sent, stream.texts[0]))
            .collect(),
        pauses_ms: pauses.collect(),
        decode_rates: rates.collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_answer_must_be_whole_and_as_long_as_asked_for() {
        let began = Instant::now();
        let whole = Record {
            sent_s: 1.0,
            events_us: vec![5000],
            asked_output_tokens: 1,
            output_tokens: 1,
            ..Record::default()
        };
        let stream = seen(began, &whole).unwrap();
        assert_eq!(stream.sent, began + Duration::from_secs(1));
        assert_eq!(stream.texts, [began + Duration::from_millis(1005)]);
        let short = Record {
            asked_output_tokens: 2,
            ..whole.clone()
        };
        assert!(seen(began, &short).is_err());
        let silent = Record {
            error: Some("timeout".into()),
            ..whole
        };
        assert_eq!(
            seen(began, &silent).unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
    }

    #[test]
    fn loads_have_prompts_of_their_own() {
        let load = |clients, prompt_tokens, answer_tokens| Load {
            clients,
            rounds: 4,
            prompt_tokens,
            answer_tokens,
        };
        let loads = [
            load(1, 32, 64),
            load(8, 32, 64),
            load(64, 32, 64),
            load(64, 2048, 1),
        ];
        let streams: BTreeSet<u64> = loads.into_iter().map(stream_of).collect();
        assert_eq!(streams.len(), 4);
    }
}
