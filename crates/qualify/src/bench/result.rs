//! What a benchmark came to, as it is written down.

use std::collections::BTreeMap;

use backstop_load::{Capacity, Energy, Flaws, Record, Spread, Summary};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::args::LatencyName;
use super::page::Curves;
use super::plan::{Pacing, Point};
use crate::record::Subject;

/// Everything that a benchmark came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BenchReport {
    /// This program, `NAME VERSION`.
    pub(crate) program: String,
    /// Seconds since 1970.
    pub(crate) began_unix_s: u64,
    /// Whom.
    pub(crate) subject: Subject,
    /// All that decides what was asked.
    pub(crate) settings: BTreeMap<String, Value>,
    /// In the order in which they were run.
    pub(crate) runs: Vec<RunReport>,
    /// If it was looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) capacity: Option<Capacity>,
}

/// What came of one load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunReport {
    /// For people.
    pub(crate) label: String,
    /// Whether its numbers are to be used.
    pub(crate) valid: bool,
    /// Why not.
    pub(crate) invalid_because: Vec<String>,
    /// What is to be known about them.
    pub(crate) notes: Vec<String>,
    /// Requests a second, if these had times of their own.
    pub(crate) request_rate: Option<f64>,
    /// Clients, or the most requests in flight.
    pub(crate) max_concurrency: Option<usize>,
    /// `closed`, `poisson`, `gamma`, `constant` or `recorded`.
    pub(crate) arrivals: &'static str,
    /// Under the names that `vllm bench serve` gives its results.
    #[serde(flatten)]
    pub(crate) flat: Map<String, Value>,
    /// All numbers.
    pub(crate) summary: Summary,
    /// What the machine took, if it could be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) energy: Option<EnergyReport>,
    /// How its latencies are distributed.
    #[serde(skip)]
    pub(crate) curves: Curves,
    /// All requests, if they are wanted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) records: Vec<Record>,
}

/// What the machine took during a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct EnergyReport {
    /// Of all sources.
    pub(crate) joules: f64,
    /// In the mean.
    pub(crate) watts: f64,
    /// Of answers.
    pub(crate) output_tokens_per_joule: f64,
    /// Each of them.
    pub(crate) measured: Energy,
}

impl EnergyReport {
    pub(super) fn new(measured: Energy, output_tokens: u64) -> Self {
        let joules = measured.joules();
        Self {
            joules,
            watts: measured.watts(),
            output_tokens_per_joule: output_tokens as f64 / joules,
            measured,
        }
    }
}

/// What is written of a run beside its numbers.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) metrics: &'a [LatencyName],
    pub(super) burstiness: f64,
    pub(super) detailed: bool,
}

/// What came of a load.
pub(super) struct Measured {
    pub(super) summary: Summary,
    pub(super) flaws: Flaws,
    pub(super) energy: Option<Energy>,
    pub(super) records: Vec<Record>,
}

impl RunReport {
    pub(super) fn new(point: &Point, measured: Measured, shown: Shown<'_>) -> Self {
        let Measured {
            summary,
            flaws,
            energy,
            records,
        } = measured;
        let tokens = summary.total_output_tokens;
        Self {
            label: point.label(),
            valid: flaws.invalid.is_empty(),
            invalid_because: flaws.invalid,
            notes: flaws.notes,
            request_rate: match point.pacing {
                Pacing::Rate(rate) => Some(rate),
                Pacing::Closed | Pacing::Recorded => None,
            },
            max_concurrency: match point.pacing {
                Pacing::Closed => Some(point.clients()),
                Pacing::Rate(_) | Pacing::Recorded => point.max_concurrency,
            },
            arrivals: match point.pacing {
                Pacing::Closed => "closed",
                Pacing::Recorded => "recorded",
                Pacing::Rate(_) if shown.burstiness == 1.0 => "poisson",
                Pacing::Rate(_) if shown.burstiness.is_infinite() => "constant",
                Pacing::Rate(_) => "gamma",
            },
            flat: flat(&summary, shown.metrics),
            energy: energy.map(|energy| EnergyReport::new(energy, tokens)),
            curves: Curves::of(&records),
            records: if shown.detailed { records } else { Vec::new() },
            summary,
        }
    }
}

/// The spread of a latency, in seconds.
pub(super) fn latency(summary: &Summary, name: LatencyName) -> Option<&Spread> {
    match name {
        LatencyName::Ttft => summary.ttft_s.as_ref(),
        LatencyName::Tpot => summary.tpot_s.as_ref(),
        LatencyName::Itl => summary.itl_s.as_ref(),
        LatencyName::E2el => summary.e2el_s.as_ref(),
        LatencyName::Ttfc => summary.ttfc_s.as_ref(),
        LatencyName::ClientQueueTime => summary.client_queue_time_s.as_ref(),
        LatencyName::E2elIncludingClientQueue => summary.e2el_from_planned_s.as_ref(),
    }
}

/// vLLM's name of a latency.
pub(super) fn latency_name(name: LatencyName) -> &'static str {
    match name {
        LatencyName::Ttft => "ttft",
        LatencyName::Tpot => "tpot",
        LatencyName::Itl => "itl",
        LatencyName::E2el => "e2el",
        LatencyName::Ttfc => "ttfc",
        LatencyName::ClientQueueTime => "client_queue_time",
        LatencyName::E2elIncludingClientQueue => "e2el_including_client_queue",
    }
}

fn flat(summary: &Summary, metrics: &[LatencyName]) -> Map<String, Value> {
    let mut flat = Map::new();
    let mut put = |name: String, value: Value| drop(flat.insert(name, value));
    put("num_prompts".into(), json!(summary.requests));
    put("completed".into(), json!(summary.completed));
    put("failed".into(), json!(summary.failed));
    put("duration".into(), json!(summary.duration_s));
    put(
        "total_input_tokens".into(),
        json!(summary.total_input_tokens),
    );
    put(
        "total_output_tokens".into(),
        json!(summary.total_output_tokens),
    );
    put(
        "request_throughput".into(),
        json!(summary.request_throughput),
    );
    put("request_goodput".into(), json!(summary.request_goodput));
    put("output_throughput".into(), json!(summary.output_throughput));
    put(
        "total_token_throughput".into(),
        json!(summary.total_token_throughput),
    );
    put(
        "max_output_tokens_per_s".into(),
        json!(summary.max_output_tokens_per_s),
    );
    put(
        "max_concurrent_requests".into(),
        json!(summary.max_concurrent_requests),
    );
    for &metric in metrics {
        let Some(spread) = latency(summary, metric) else {
            continue;
        };
        let name = latency_name(metric);
        put(format!("mean_{name}_ms"), json!(spread.mean * 1e3));
        put(format!("median_{name}_ms"), json!(spread.median * 1e3));
        put(format!("std_{name}_ms"), json!(spread.std * 1e3));
        for one in &spread.percentiles {
            put(
                format!("p{}_{name}_ms", one.percent),
                json!(one.value * 1e3),
            );
        }
    }
    flat
}

/// Two rates, of two requests each.
#[cfg(test)]
pub(super) fn example() -> BenchReport {
    let record = |planned_s: f64| Record {
        planned_s,
        sent_s: planned_s + 0.001,
        events_us: vec![20_000, 40_000],
        first_content_s: Some(0.03),
        output_tokens: 2,
        prompt_tokens: Some(8),
        ..Record::default()
    };
    let settings = backstop_load::Settings {
        objectives: backstop_load::Objectives::parse(["ttft:500"]).unwrap_or_default(),
        percents: vec![50.0, 99.0],
    };
    let run = |rate: f64| {
        let records = vec![record(0.0), record(1.0 / rate)];
        let summary = backstop_load::summarise(&records, 2.0 / rate, &settings);
        let measured = Measured {
            flaws: backstop_load::flaws(&records, &summary),
            summary,
            energy: None,
            records,
        };
        let point = Point {
            pacing: Pacing::Rate(rate),
            max_concurrency: None,
            requests: 2,
        };
        let shown = Shown {
            metrics: &[LatencyName::Ttft],
            burstiness: 1.0,
            detailed: false,
        };
        RunReport::new(&point, measured, shown)
    };
    BenchReport {
        program: "p 1".to_owned(),
        began_unix_s: 0,
        subject: Subject::default(),
        settings: BTreeMap::new(),
        runs: vec![run(1.0), run(2.0)],
        capacity: None,
    }
}
