//! What records come to, in the terms of vLLM's benchmark (`calculate_metrics` in its `benchmarks/serve.py`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::objectives::Objectives;
use crate::record::{Latencies, Record, TokenCount};
use crate::statistics::Spread;

/// Seconds of a run of which tokens a second are counted.
const SECONDS_MAX: usize = 1 << 20;

/// What is asked of records.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What a good answer is.
    pub objectives: Objectives,
    /// Percentiles of every spread, from 0 to 100.
    pub percents: Vec<f64>,
}

/// What a run came to. Times are seconds. Latencies, tokens and rates are of answered requests alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Requests that were sent.
    pub requests: u64,
    /// Those that were answered.
    pub completed: u64,
    /// The others.
    pub failed: u64,
    /// The others over all.
    pub error_rate: f64,
    /// Kinds of errors and how many there were of each.
    pub errors: BTreeMap<String, u64>,
    /// For each kind, what the server said first.
    pub messages: BTreeMap<String, String>,
    /// From the beginning to the end of the last answer.
    pub duration_s: f64,
    /// Tokens of prompts.
    pub total_input_tokens: u64,
    /// Of these, from a cache.
    pub cached_tokens: u64,
    /// Tokens of answers.
    pub total_output_tokens: u64,
    /// Answers whose tokens this program had to count by events.
    pub counted_by_pieces: u64,
    /// Answered requests a second.
    pub request_throughput: f64,
    /// Good answers a second, if there are objectives.
    pub request_goodput: Option<f64>,
    /// Good answers over all requests, if there are objectives.
    pub good_fraction: Option<f64>,
    /// The same with latencies from the planned time on.
    pub good_fraction_from_planned: Option<f64>,
    /// Tokens of answers a second.
    pub output_throughput: f64,
    /// Tokens of prompts and answers a second.
    pub total_token_throughput: f64,
    /// The most events with a choice in a second of the run.
    pub max_output_tokens_per_s: f64,
    /// The most answered requests in flight at once.
    pub max_concurrent_requests: u64,
    /// Tokens a second that a user sees: one over the time per output token.
    pub output_throughput_per_user: Option<Spread>,
    /// Time to first token.
    pub ttft_s: Option<Spread>,
    /// Time per output token, of answers of more than one.
    pub tpot_s: Option<Spread>,
    /// Inter-token latency, of all answers together.
    pub itl_s: Option<Spread>,
    /// End-to-end latency.
    pub e2el_s: Option<Spread>,
    /// Time to the first event with content; a server may send an event without at once.
    pub ttfc_s: Option<Spread>,
    /// Time to first token from the planned time on.
    pub ttft_from_planned_s: Option<Spread>,
    /// End-to-end latency from the planned time on.
    pub e2el_from_planned_s: Option<Spread>,
    /// What requests waited since no more than so many may be in flight.
    pub client_queue_time_s: Option<Spread>,
    /// How late this program sent requests that had to wait for nobody.
    pub generator_lag_s: Option<Spread>,
    /// Tokens of a prompt.
    pub input_tokens: Option<Spread>,
    /// Tokens of an answer.
    pub output_tokens: Option<Spread>,
    /// Answers that were shorter than asked for.
    pub short_answers: u64,
}

/// Of records of one run, which took so many seconds.
pub fn summarise(records: &[Record], duration_s: f64, settings: &Settings) -> Summary {
    let answered: Vec<(&Record, Latencies)> = records
        .iter()
        .filter_map(|record| Some((record, record.latencies()?)))
        .collect();
    let failed: Vec<&Record> = records
        .iter()
        .filter(|record| record.latencies().is_none())
        .collect();
    let spread = |values: Vec<f64>| Spread::of(values, &settings.percents);
    let each = |value: &dyn Fn(&(&Record, Latencies)) -> Option<f64>| {
        spread(answered.iter().filter_map(value).collect())
    };
    let input: u64 = answered
        .iter()
        .map(|(record, _)| prompt_tokens(record))
        .sum();
    let output: u64 = answered
        .iter()
        .map(|(record, _)| record.output_tokens)
        .sum();
    let sum = |value: fn(&Record) -> u64| answered.iter().map(|(record, _)| value(record)).sum();
    let per_second = |amount: u64| amount as f64 / duration_s;
    let good = good(&answered, settings.objectives);
    let fraction = |good: u64| good as f64 / records.len().max(1) as f64;
    let delays = |queued: bool| {
        let of_kind = records.iter().filter(|record| record.queued == queued);
        of_kind.map(Record::delay_s).collect::<Vec<_>>()
    };
    Summary {
        requests: records.len() as u64,
        completed: answered.len() as u64,
        failed: failed.len() as u64,
        error_rate: fraction(failed.len() as u64),
        errors: errors(&failed),
        messages: messages(&failed),
        duration_s,
        total_input_tokens: input,
        cached_tokens: sum(|record| record.cached_tokens),
        total_output_tokens: output,
        counted_by_pieces: sum(|record| u64::from(record.counted_by == TokenCount::Pieces)),
        request_throughput: per_second(answered.len() as u64),
        request_goodput: good.map(|good| per_second(good.from_sent)),
        good_fraction: good.map(|good| fraction(good.from_sent)),
        good_fraction_from_planned: good.map(|good| fraction(good.from_planned)),
        output_throughput: per_second(output),
        total_token_throughput: per_second(input + output),
        max_output_tokens_per_s: tokens_of_best_second(&answered),
        max_concurrent_requests: most_at_once(&answered),
        output_throughput_per_user: each(&|(_, one)| {
            one.tpot.filter(|tpot| *tpot > 0.0).map(f64::recip)
        }),
        ttft_s: each(&|(_, one)| Some(one.ttft)),
        tpot_s: each(&|(_, one)| one.tpot),
        itl_s: spread(
            answered
                .iter()
                .flat_map(|(record, _)| record.pauses_s())
                .collect(),
        ),
        e2el_s: each(&|(_, one)| Some(one.e2el)),
        ttfc_s: each(&|(record, _)| record.first_content_s),
        ttft_from_planned_s: each(&|(record, one)| Some(record.delay_s() + one.ttft)),
        e2el_from_planned_s: each(&|(record, one)| Some(record.delay_s() + one.e2el)),
        client_queue_time_s: spread(delays(true)),
        generator_lag_s: spread(delays(false)),
        input_tokens: each(&|(record, _)| Some(prompt_tokens(record) as f64)),
        output_tokens: each(&|(record, _)| Some(record.output_tokens as f64)),
        short_answers: sum(|record| {
            u64::from(record.output_tokens < u64::from(record.asked_output_tokens))
        }),
    }
}

/// As the server counted them, or else as they were asked for.
fn prompt_tokens(record: &Record) -> u64 {
    let asked = record.asked_prompt_tokens.map(u64::from);
    record.prompt_tokens.or(asked).unwrap_or_default()
}

#[derive(Clone, Copy)]
struct Good {
    from_sent: u64,
    from_planned: u64,
}

fn good(answered: &[(&Record, Latencies)], objectives: Objectives) -> Option<Good> {
    if objectives.is_empty() {
        return None;
    }
    let from_sent = answered.iter().filter(|(_, one)| objectives.are_met(one));
    let from_planned = answered.iter().filter(|(record, one)| {
        objectives.are_met(&Latencies {
            ttft: one.ttft + record.delay_s(),
            e2el: one.e2el + record.delay_s(),
            ..*one
        })
    });
    Some(Good {
        from_sent: from_sent.count() as u64,
        from_planned: from_planned.count() as u64,
    })
}

fn errors(failed: &[&Record]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for record in failed {
        *counts.entry(kind(record)).or_default() += 1;
    }
    counts
}

fn messages(failed: &[&Record]) -> BTreeMap<String, String> {
    let mut messages = BTreeMap::new();
    for record in failed {
        let message = record.message.clone().unwrap_or_default();
        messages.entry(kind(record)).or_insert(message);
    }
    messages
}

fn kind(record: &Record) -> String {
    record
        .error
        .clone()
        .unwrap_or_else(|| "no_event".to_owned())
}

/// Seconds are counted from the first request that was answered.
fn tokens_of_best_second(answered: &[(&Record, Latencies)]) -> f64 {
    let first = answered
        .iter()
        .map(|(record, _)| record.sent_s)
        .fold(f64::INFINITY, f64::min);
    let mut seconds: Vec<u64> = Vec::new();
    for (record, _) in answered {
        for us in &record.events_us {
            let second = (record.sent_s - first + f64::from(*us) / 1e6) as usize;
            if second >= seconds.len() && second < SECONDS_MAX {
                seconds.resize(second + 1, 0);
            }
            if let Some(tokens) = seconds.get_mut(second) {
                *tokens += 1;
            }
        }
    }
    seconds.into_iter().max().unwrap_or_default() as f64
}

/// A request that ends when another begins is not in flight with it.
fn most_at_once(answered: &[(&Record, Latencies)]) -> u64 {
    let changes = answered
        .iter()
        .flat_map(|(record, _)| [(record.sent_s, 1_i64), (record.answered_at_s(), -1)]);
    let mut changes: Vec<(f64, i64)> = changes.collect();
    changes.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
    let at_once = changes.iter().scan(0, |sum, (_, change)| {
        *sum += change;
        Some(*sum)
    });
    at_once
        .max()
        .unwrap_or_default()
        .try_into()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(planned_s: f64, sent_s: f64, events_ms: &[u32], output_tokens: u64) -> Record {
        Record {
            planned_s,
            sent_s,
            events_us: events_ms.iter().map(|ms| ms * 1000).collect(),
            first_content_s: events_ms.get(1).map(|ms| f64::from(*ms) / 1e3),
            asked_output_tokens: 4,
            prompt_tokens: Some(10),
            output_tokens,
            ..Record::default()
        }
    }

    fn failed(error: &str) -> Record {
        Record {
            error: Some(error.to_owned()),
            message: Some(format!("it said {error}")),
            ..Record::default()
        }
    }

    fn summary(records: &[Record], objectives: &[&str]) -> Summary {
        let settings = Settings {
            objectives: Objectives::parse(objectives.iter().copied()).unwrap(),
            percents: vec![50.0, 99.0],
        };
        summarise(records, 2.0, &settings)
    }

    fn near(one: f64, other: f64) {
        assert!((one - other).abs() < 1e-9, "{one} is not {other}");
    }

    /// The numbers that `calculate_metrics` gives for the same outputs: `ttft` 0.1 and 0.3, `itl` [0.1, 0.1, 0.1] and [0.2],
    /// `latency` 0.4 and 0.5, four and three tokens, in two seconds.
    #[test]
    fn a_timeline_made_by_hand_comes_to_what_vllm_says() {
        let records = [
            record(0.0, 0.0, &[100, 200, 300, 400], 4),
            record(0.2, 0.2, &[300, 500], 3),
            failed("http_503"),
        ];
        let summary = summary(&records, &["ttft:200", "tpot:101"]);
        assert_eq!((summary.completed, summary.failed), (2, 1));
        near(summary.request_throughput, 1.0);
        near(summary.output_throughput, 3.5);
        near(summary.total_token_throughput, 13.5);
        near(summary.ttft_s.as_ref().unwrap().mean, 0.2);
        near(
            summary.ttft_s.as_ref().unwrap().percentile(99.0).unwrap(),
            0.298,
        );
        let tpot = summary.tpot_s.as_ref().unwrap();
        near(tpot.mean, 0.1);
        near(tpot.std, 0.0);
        let itl = summary.itl_s.as_ref().unwrap();
        assert_eq!(itl.count, 4);
        near(itl.mean, 0.125);
        near(itl.median, 0.1);
        near(summary.e2el_s.as_ref().unwrap().mean, 0.45);
        near(summary.request_goodput.unwrap(), 0.5);
        near(summary.good_fraction.unwrap(), 1.0 / 3.0);
        near(summary.max_output_tokens_per_s, 6.0);
        assert_eq!(summary.max_concurrent_requests, 2);
        near(summary.output_throughput_per_user.unwrap().mean, 10.0);
        assert_eq!(summary.short_answers, 1);
    }

    #[test]
    fn a_wait_before_sending_is_seen_from_the_planned_time_on() {
        let late = Record {
            queued: true,
            ..record(0.0, 1.0, &[100, 200], 2)
        };
        let summary = summary(&[record(0.0, 0.001, &[100, 200], 2), late], &["ttft:500"]);
        near(summary.ttft_s.unwrap().max, 0.1);
        near(summary.ttft_from_planned_s.unwrap().max, 1.1);
        near(summary.e2el_from_planned_s.unwrap().max, 1.2);
        near(summary.good_fraction.unwrap(), 1.0);
        near(summary.good_fraction_from_planned.unwrap(), 0.5);
        near(summary.client_queue_time_s.unwrap().max, 1.0);
        near(summary.generator_lag_s.unwrap().max, 0.001);
    }

    #[test]
    fn errors_are_counted_by_kind() {
        let summary = summary(
            &[failed("http_429"), failed("http_429"), failed("timeout")],
            &[],
        );
        assert_eq!(summary.errors["http_429"], 2);
        assert_eq!(summary.messages["timeout"], "it said timeout");
        near(summary.error_rate, 1.0);
        assert_eq!((summary.ttft_s, summary.request_goodput), (None, None));
    }

    #[test]
    fn a_request_that_ends_as_another_begins_is_not_beside_it() {
        let one = record(0.0, 0.0, &[100, 500], 2);
        let other = record(0.5, 0.5, &[100], 1);
        assert_eq!(summary(&[one, other], &[]).max_concurrent_requests, 1);
    }
}
