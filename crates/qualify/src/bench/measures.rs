//! The numbers of a benchmark as measures of a qualification.

use std::collections::BTreeMap;

use backstop_load::Spread;
use serde_json::{Value, json};

use super::result::{BenchReport, RunReport};
use crate::record::Measure;

const SUITE: &str = "bench/serve";
/// What decides how the numbers are to be read, beside the load itself.
const SETTINGS: [&str; 9] = [
    "backend",
    "dataset_name",
    "random_input_len",
    "random_output_len",
    "random_range_ratio",
    "ignore_eos",
    "temperature",
    "seed",
    "goodput",
];

/// Of all valid runs.
pub(super) fn measures(report: &BenchReport) -> Vec<Measure> {
    let mut measures: Vec<Measure> = report
        .runs
        .iter()
        .filter(|run| run.valid)
        .flat_map(|run| of_run(report, run))
        .collect();
    if let Some(capacity) = &report.capacity {
        let metric = match capacity.scale {
            backstop_load::Scale::Rate => "capacity_requests_per_s",
            backstop_load::Scale::Concurrency => "capacity_clients",
        };
        let mut settings = settings(report);
        settings.insert("needed_good_fraction".into(), json!(capacity.needed));
        settings.insert("fails_at".into(), json!(capacity.fails_at));
        settings.insert("is_settled".into(), json!(capacity.is_settled));
        measures.push(Measure {
            suite: SUITE.to_owned(),
            metric: metric.to_owned(),
            value: capacity.load.unwrap_or(0.0),
            interval: None,
            count: capacity.probes.len() as u64,
            samples: 1,
            settings,
            source: report.program.clone(),
        });
    }
    measures
}

fn settings(report: &BenchReport) -> BTreeMap<String, Value> {
    let known = SETTINGS.iter().filter_map(|name| {
        let value = report.settings.get(*name)?;
        Some(((*name).to_owned(), value.clone()))
    });
    known.collect()
}

fn of_run(report: &BenchReport, run: &RunReport) -> Vec<Measure> {
    let mut settings = settings(report);
    settings.insert("arrivals".into(), json!(run.arrivals));
    settings.insert("request_rate".into(), json!(run.request_rate));
    settings.insert("max_concurrency".into(), json!(run.max_concurrency));
    let summary = &run.summary;
    let measure = |metric: &str, value: f64, count: u64| Measure {
        suite: SUITE.to_owned(),
        metric: metric.to_owned(),
        value,
        interval: None,
        count,
        samples: 1,
        settings: settings.clone(),
        source: report.program.clone(),
    };
    let all = summary.requests;
    let answered = summary.completed;
    let mut measures = vec![
        measure("error_rate", summary.error_rate, all),
        measure(
            "request_throughput_per_s",
            summary.request_throughput,
            answered,
        ),
        measure(
            "output_throughput_tokens_per_s",
            summary.output_throughput,
            answered,
        ),
        measure(
            "total_throughput_tokens_per_s",
            summary.total_token_throughput,
            answered,
        ),
    ];
    for (kind, count) in &summary.errors {
        let rate = *count as f64 / all.max(1) as f64;
        measures.push(measure(&format!("error_rate_{kind}"), rate, all));
    }
    let optional = [
        ("goodput_requests_per_s", summary.request_goodput),
        ("good_fraction", summary.good_fraction),
        (
            "good_fraction_from_planned",
            summary.good_fraction_from_planned,
        ),
        ("energy_j", run.energy.as_ref().map(|energy| energy.joules)),
        (
            "output_tokens_per_j",
            run.energy
                .as_ref()
                .map(|energy| energy.output_tokens_per_joule),
        ),
    ];
    measures.extend(
        optional
            .into_iter()
            .filter_map(|(name, value)| Some(measure(name, value?, all))),
    );
    let spreads = [
        ("ttft", "s", &summary.ttft_s),
        ("tpot", "s", &summary.tpot_s),
        ("itl", "s", &summary.itl_s),
        ("e2el", "s", &summary.e2el_s),
        ("ttft_from_planned", "s", &summary.ttft_from_planned_s),
        ("e2el_from_planned", "s", &summary.e2el_from_planned_s),
        (
            "output_throughput_per_user",
            "tokens_per_s",
            &summary.output_throughput_per_user,
        ),
    ];
    for (name, unit, spread) in spreads {
        let Some(spread) = spread else { continue };
        for (which, value) in values(spread) {
            measures.push(measure(
                &format!("{name}_{which}_{unit}"),
                value,
                spread.count,
            ));
        }
    }
    measures
}

fn values(spread: &Spread) -> Vec<(String, f64)> {
    let mut values = vec![
        ("mean".to_owned(), spread.mean),
        ("std".to_owned(), spread.std),
    ];
    let percentiles = spread.percentiles.iter();
    values.extend(percentiles.map(|one| (format!("p{}", one.percent), one.value)));
    values
}
