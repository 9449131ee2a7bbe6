//! What became of one request.

use std::time::Duration;

use backstop_client::{Answer, Failure, FailureKind};
use serde::{Deserialize, Serialize};

/// What became of one request. Times are seconds since the beginning of the run, but for those that say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Which conversation it belongs to, from 0 on.
    pub session: u32,
    /// Which turn of it, from 0 on.
    pub turn: u32,
    /// When it was to be sent.
    pub planned_s: f64,
    /// When it was sent.
    pub sent_s: f64,
    /// Whether it had to wait for others, since no more than so many may be in flight.
    pub queued: bool,
    /// When events came, in microseconds since it was sent; [`Events`] says which.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub events_us: Vec<u32>,
    /// Seconds from sending to the first event that had text, reasoning or a call.
    pub first_content_s: Option<f64>,
    /// Seconds from sending to the end of the answer, whatever it was.
    pub ended_after_s: f64,
    /// Tokens of the prompt that were asked for, if the workload knows.
    pub asked_prompt_tokens: Option<u32>,
    /// The longest answer that was asked for.
    pub asked_output_tokens: u32,
    /// Tokens of the prompt, as the server counted them.
    pub prompt_tokens: Option<u64>,
    /// Of these, from a cache.
    pub cached_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// Who counted these.
    pub counted_by: TokenCount,
    /// Why the answer ended.
    pub finish_reason: Option<String>,
    /// Why there is none, by kind: `http_429`, `connection`, `event`, `broken`, `timeout`, `too_long`, `no_event`.
    pub error: Option<String>,
    /// The same for people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
}

/// Which events count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Events {
    /// Those with a choice, whether or not it has any content: what vLLM's benchmark takes for tokens.
    #[default]
    WithChoice,
    /// Those with text, reasoning or calls; of an answer without any, the last with a choice.
    WithContent,
}

/// Who counted the tokens of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenCount {
    /// The server, in `usage`.
    #[default]
    Usage,
    /// This program, which counted events with content.
    Pieces,
}

/// The latencies of an answer, in seconds, as vLLM's benchmark defines them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latencies {
    /// Time to first token: from sending to the first event with a choice.
    pub ttft: f64,
    /// Time per output token: the time after the first token over the tokens after the first. `None` for a single token.
    pub tpot: Option<f64>,
    /// End-to-end latency: from sending to the last event with a choice.
    pub e2el: f64,
}

impl Record {
    /// Takes what an answer says.
    pub(crate) fn take(&mut self, answer: &Answer, events: Events) {
        let counted = match events {
            Events::WithContent if !answer.pieces.is_empty() => &answer.pieces[..],
            Events::WithContent => answer.choices.last().map_or(&[][..], std::slice::from_ref),
            Events::WithChoice => &answer.choices[..],
        };
        self.events_us = counted.iter().copied().map(microseconds).collect();
        self.first_content_s = answer.first().map(|first| first.as_secs_f64());
        self.ended_after_s = answer.total.as_secs_f64();
        self.finish_reason.clone_from(&answer.finish_reason);
        match answer.usage.filter(|usage| usage.completion_tokens > 0) {
            Some(usage) => {
                self.prompt_tokens = Some(usage.prompt_tokens);
                self.cached_tokens = usage.cached_tokens;
                self.output_tokens = usage.completion_tokens;
            }
            None => {
                self.output_tokens = (answer.pieces.len() as u64).max(1);
                self.counted_by = TokenCount::Pieces;
            }
        }
        if let Some(failure) = &answer.failure {
            self.error = Some(kind(failure, answer.status));
            self.message = Some(failure.message.clone());
        } else if self.events_us.is_empty() {
            self.error = Some("no_event".to_owned());
            self.message = Some("the answer has no choices".to_owned());
        }
    }

    /// Whether it was answered.
    pub fn is_answered(&self) -> bool {
        self.error.is_none()
    }

    /// `None` if there was no answer.
    pub fn latencies(&self) -> Option<Latencies> {
        if !self.is_answered() {
            return None;
        }
        let seconds = |us: &u32| f64::from(*us) / 1e6;
        let ttft = seconds(self.events_us.first()?);
        let e2el = seconds(self.events_us.last()?);
        let tpot =
            (self.output_tokens > 1).then(|| (e2el - ttft) / (self.output_tokens - 1) as f64);
        Some(Latencies { ttft, tpot, e2el })
    }

    /// Inter-token latencies: the pauses between events with a choice, in seconds.
    pub fn pauses_s(&self) -> impl Iterator<Item = f64> + '_ {
        let pairs = self.events_us.windows(2);
        pairs.map(|pair| f64::from(pair[1].saturating_sub(pair[0])) / 1e6)
    }

    /// How much later than planned it was sent.
    pub fn delay_s(&self) -> f64 {
        (self.sent_s - self.planned_s).max(0.0)
    }

    /// When the last event with a choice came.
    pub(crate) fn answered_at_s(&self) -> f64 {
        let last = self.events_us.last().copied().unwrap_or_default();
        self.sent_s + f64::from(last) / 1e6
    }
}

/// An hour and eleven minutes at most; no client is as patient as that.
fn microseconds(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

fn kind(failure: &Failure, status: Option<u16>) -> String {
    match (failure.kind, status) {
        (FailureKind::Status, Some(status)) => format!("http_{status}"),
        (FailureKind::Status, None) => "http".to_owned(),
        (FailureKind::Connection, _) => "connection".to_owned(),
        (FailureKind::Event, _) => "event".to_owned(),
        (FailureKind::Broken, _) => "broken".to_owned(),
        (FailureKind::Timeout, _) => "timeout".to_owned(),
        (FailureKind::TooLong, _) => "too_long".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `calculate_metrics` of vLLM's `benchmarks/serve.py` has it: `ttft`, `(latency - ttft) / (output_len - 1)`.
    #[test]
    fn latencies_are_those_of_vllm() {
        let record = Record {
            events_us: vec![100_000, 150_000, 250_000],
            output_tokens: 4,
            ..Record::default()
        };
        let latencies = record.latencies().unwrap();
        assert_eq!((latencies.ttft, latencies.e2el), (0.1, 0.25));
        assert!((latencies.tpot.unwrap() - 0.05).abs() < 1e-12);
        let pauses: Vec<f64> = record.pauses_s().collect();
        assert_eq!(pauses, [0.05, 0.1]);
    }

    #[test]
    fn a_single_token_has_no_time_per_token() {
        let record = Record {
            events_us: vec![100_000],
            output_tokens: 1,
            ..Record::default()
        };
        assert_eq!(record.latencies().unwrap().tpot, None);
        assert_eq!(Record::default().latencies(), None);
    }

    #[test]
    fn tokens_are_the_servers_count_or_else_the_pieces() {
        let mut answer = Answer {
            pieces: vec![Duration::from_millis(1); 3],
            choices: vec![Duration::from_millis(1); 4],
            ..Answer::default()
        };
        let mut record = Record::default();
        record.take(&answer, Events::WithChoice);
        assert_eq!(
            (record.output_tokens, record.counted_by),
            (3, TokenCount::Pieces)
        );
        answer.usage = Some(backstop_client::Usage {
            prompt_tokens: 7,
            cached_tokens: 2,
            completion_tokens: 9,
        });
        let mut record = Record::default();
        record.take(&answer, Events::WithChoice);
        assert_eq!(
            (record.output_tokens, record.counted_by),
            (9, TokenCount::Usage)
        );
        assert_eq!((record.prompt_tokens, record.cached_tokens), (Some(7), 2));
    }

    #[test]
    fn events_with_content_count_alone_if_that_is_wanted() {
        let at = Duration::from_millis;
        let mut answer = Answer {
            pieces: vec![at(2), at(3)],
            choices: vec![at(1), at(2), at(3), at(4)],
            ..Answer::default()
        };
        let taken = |answer: &Answer, events| {
            let mut record = Record::default();
            record.take(answer, events);
            record.events_us
        };
        assert_eq!(taken(&answer, Events::WithContent), [2000, 3000]);
        assert_eq!(taken(&answer, Events::WithChoice).len(), 4);
        answer.pieces.clear();
        assert_eq!(taken(&answer, Events::WithContent), [4000]);
    }
}
