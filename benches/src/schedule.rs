//! Requests that are sent at given times, whatever the server makes of those before them.

use std::io;
use std::time::{Duration, Instant};

use backstop_load::{Pace, Segment};

use crate::http::Server;
use crate::load::{self, Stream};

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    /// How long after the beginning.
    pub after: Duration,
    /// A made-up text.
    pub prompt: Segment,
    /// Tokens of the answer.
    pub answer_tokens: usize,
}

/// A request that was answered.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub answer_tokens: usize,
    /// What its client saw.
    pub stream: Stream,
}

fn milliseconds(from: Instant, to: Instant) -> f64 {
    to.duration_since(from).as_secs_f64() * 1e3
}

impl Answered {
    fn first(&self) -> Instant {
        self.stream.texts[0]
    }

    fn last(&self) -> Instant {
        self.stream.texts[self.stream.texts.len() - 1]
    }

    /// Time to the first token, in milliseconds.
    pub fn first_ms(&self) -> f64 {
        milliseconds(self.stream.sent, self.first())
    }

    /// Time for each token after the first, in milliseconds; 0 for answers of one token.
    pub fn per_token_ms(&self) -> f64 {
        let tokens = self.answer_tokens.saturating_sub(1).max(1);
        milliseconds(self.first(), self.last()) / tokens as f64
    }

    /// Pauses between texts that came one after the other, in milliseconds.
    pub fn pauses_ms(&self) -> impl Iterator<Item = f64> + '_ {
        let pairs = self.stream.texts.windows(2);
        pairs.map(|pair| milliseconds(pair[0], pair[1]))
    }
}

/// `tokens` random tokens; those of different seeds differ from the first few on.
pub fn random_prompt(seed: u64, tokens: usize) -> Segment {
    Segment {
        stream: seed,
        tokens: tokens as u32,
    }
}

/// Sends all requests and waits for their answers. Tokens are drawn at random: made-up weights
/// would otherwise repeat a few tokens in all answers, and these the same few experts.
pub fn run(server: impl Into<Server>, requests: &[Request]) -> io::Result<Vec<Answered>> {
    let sessions = (0..).zip(requests).map(|(seed, request): (u64, &Request)| {
        load::session(request.prompt, request.answer_tokens, Some(seed))
    });
    let pace = Pace::Open {
        arrivals: requests.iter().map(|request| request.after).collect(),
        in_flight_max: requests.len().max(1),
    };
    let streams = load::ask(server.into(), sessions.collect(), &pace)?;
    let answered = requests
        .iter()
        .zip(streams)
        .map(|(request, stream)| Answered {
            prompt_tokens: request.prompt.tokens as usize,
            answer_tokens: request.answer_tokens,
            stream,
        });
    Ok(answered.collect())
}

/// Tokens per second of all streams together while all of them were decoding; `None` if there was
/// no such time.
pub fn steady_rate(answers: &[Answered]) -> Option<f64> {
    let begin = answers.iter().map(Answered::first).max()?;
    let end = answers.iter().map(Answered::last).min()?;
    if end <= begin {
        return None;
    }
    let within = |answer: &Answered| {
        let texts = answer.stream.texts.iter();
        let count = texts.filter(|&&time| time > begin && time <= end).count();
        // A text holds more than one token if the client was slow.
        count as f64 * answer.answer_tokens as f64 / answer.stream.texts.len() as f64
    };
    let tokens: f64 = answers.iter().map(within).sum();
    Some(tokens / end.duration_since(begin).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(sent: Instant, texts_ms: &[u64]) -> Answered {
        let at = |&ms: &u64| sent + Duration::from_millis(ms);
        Answered {
            prompt_tokens: 1,
            answer_tokens: texts_ms.len(),
            stream: Stream {
                sent,
                texts: texts_ms.iter().map(at).collect(),
            },
        }
    }

    #[test]
    fn only_the_time_when_all_decode_counts() {
        let now = Instant::now();
        let early = answered(now, &[0, 10, 20, 30, 40]);
        let late = answered(now, &[20, 25, 30, 35, 40, 45, 50]);
        // From 20 to 40 ms: two tokens of one, four of the other.
        let rate = steady_rate(&[early.clone(), late]).expect("some time");
        assert!((rate - 300.0).abs() < 1e-6, "{rate}");
        assert_eq!(steady_rate(&[early, answered(now, &[50, 60])]), None);
    }

    #[test]
    fn latencies_are_those_of_the_stream() {
        let answer = answered(Instant::now(), &[5, 7, 15]);
        assert!((answer.first_ms() - 5.0).abs() < 1e-6);
        assert!((answer.per_token_ms() - 5.0).abs() < 1e-6);
        assert_eq!(answer.pauses_ms().count(), 2);
    }
}
