//! Loads of many clients at once, and what each of them saw.

use std::io;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::http::{self, Server, Timed};
use crate::statistics::{median, percentile};

/// Token ids that are plain text in any vocabulary worth serving; lower ones can be special.
const FIRST_TOKEN: u64 = 300;
const TOKENS: u64 = 3000;

/// What every client of a round asks for.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Clients at once.
    pub clients: usize,
    /// Requests of each, one after the other.
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
    let server = server.into();
    let barrier = Barrier::new(load.clients);
    let results: Vec<io::Result<Vec<Stream>>> = thread::scope(|scope| {
        let start = |client: usize| {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                (0..load.rounds)
                    .map(|round| ask(server, load, client, round))
                    .collect()
            })
        };
        let threads: Vec<_> = (0..load.clients).map(start).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, io::Result<Vec<Stream>>>| {
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a client panicked")))
        };
        threads.into_iter().map(join).collect()
    });
    let streams: Vec<Stream> = results
        .into_iter()
        .collect::<io::Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect();
    summarise(load, &streams)
}

fn ask(server: Server, load: Load, client: usize, round: usize) -> io::Result<Stream> {
    stream(
        server,
        &prompt(load, client, round),
        load.answer_tokens,
        None,
    )
}

/// Asks for an answer of exactly this length. With a seed, tokens are drawn from the model's raw
/// distribution; without one, the likeliest are taken.
pub fn stream(
    server: impl Into<Server>,
    prompt: &[u64],
    answer_tokens: usize,
    seed: Option<u64>,
) -> io::Result<Stream> {
    let body = json!({
        "prompt": prompt,
        "max_tokens": answer_tokens,
        "ignore_eos": true,
        "temperature": u8::from(seed.is_some()),
        "top_p": 1,
        "seed": seed.unwrap_or_default(),
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    let answer = http::post(server, "/v1/completions", &body.to_string())?;
    parse(&answer, answer_tokens)
}

/// Different from the first token on for every load, client and round.
fn prompt(load: Load, client: usize, round: usize) -> Vec<u64> {
    let shape = load.clients * 1_000_003 + load.prompt_tokens * 7919 + load.answer_tokens;
    let mut random = Random((shape as u64) << 32 | (client as u64) << 16 | round as u64);
    (0..load.prompt_tokens).map(|_| random.token()).collect()
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

    /// A token that is plain text.
    pub fn token(&mut self) -> u64 {
        FIRST_TOKEN + self.bits() % TOKENS
    }

    /// Above 0, and at most 1.
    pub fn fraction(&mut self) -> f64 {
        (self.bits() + 1) as f64 / (1u64 << 31) as f64
    }
}

/// Checks that the answer is whole, and notes when its texts came.
fn parse(answer: &Timed, answer_tokens: usize) -> io::Result<Stream> {
    let wrong =
        |what: &str| io::Error::other(format!("{what}: {} {}", answer.status, answer.body()));
    if answer.status != 200 {
        return Err(wrong("refused"));
    }
    let mut texts = Vec::new();
    let mut finished = None;
    let mut counted = 0;
    for (time, line) in &answer.lines {
        let Some(data) = line.strip_prefix("data: ").filter(|data| *data != "[DONE]") else {
            continue;
        };
        let event: Value = serde_json::from_str(data)?;
        if event.get("error").is_some() {
            return Err(wrong("failed"));
        }
        let has_text = event["choices"][0]["text"]
            .as_str()
            .is_some_and(|text| !text.is_empty());
        if has_text {
            texts.push(*time);
        }
        if event["choices"][0]["finish_reason"].is_string() {
            finished.get_or_insert(*time);
        }
        counted = event["usage"]["completion_tokens"]
            .as_u64()
            .unwrap_or(counted);
    }
    if texts.is_empty() {
        // Tokens without a text, such as part of a character, are known by the end of the answer.
        texts.extend(finished);
    }
    if counted != answer_tokens as u64 || texts.is_empty() {
        return Err(wrong("not as long as asked for"));
    }
    Ok(Stream {
        sent: answer.sent,
        texts,
    })
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
    use super::*;

    #[test]
    fn an_answer_without_a_text_came_when_it_ended() {
        let now = Instant::now();
        let event = |finish: &str| {
            format!(
                "data: {{\"choices\":[{{\"text\":\"\",\"finish_reason\":{finish}}}],\
                 \"usage\":{{\"completion_tokens\":1}}}}"
            )
        };
        let answer = |finish| Timed {
            status: 200,
            sent: now,
            lines: vec![(now, event(finish)), (now, "data: [DONE]".to_owned())],
        };
        let stream = parse(&answer("\"length\""), 1).unwrap();
        assert_eq!(stream.texts, [now]);
        assert!(parse(&answer("null"), 1).is_err());
        assert!(parse(&answer("\"length\""), 2).is_err());
    }

    #[test]
    fn no_two_prompts_begin_alike() {
        let load = |clients, prompt_tokens, answer_tokens| Load {
            clients,
            rounds: 4,
            prompt_tokens,
            answer_tokens,
        };
        let mut beginnings = Vec::new();
        for load in [
            load(1, 32, 64),
            load(8, 32, 64),
            load(64, 32, 64),
            load(64, 2048, 1),
        ] {
            for client in 0..load.clients {
                for round in 0..load.rounds {
                    beginnings.push(prompt(load, client, round)[..8].to_vec());
                }
            }
        }
        let count = beginnings.len();
        beginnings.sort();
        beginnings.dedup();
        assert_eq!(beginnings.len(), count);
    }
}
