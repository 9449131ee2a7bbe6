//! How it behaves in operation: under load, behind a gateway, and when the primary is gone.

use backstop_pages::{Axis, Layer, Markup, Plot, Tone, badge, number, seconds, table};

use super::super::model::Report;
use super::super::speed::{Point, Scale, Speed};
use super::{figure, paragraph, percent};
use crate::conformance::{Check, CheckOutcome};

const CHART_HEIGHT: f64 = 220.0;

pub(super) fn speed(report: &Report) -> Markup {
    let Some(speed) = &report.speed else {
        return Markup::default();
    };
    let scales = [Scale::Clients, Scale::Rate].map(|scale| one_scale(speed, scale));
    let left_out = match speed.invalid {
        0 => Markup::default(),
        runs => paragraph(&format!(
            "{runs} runs are left out: the benchmark itself does not vouch for their numbers."
        )),
    };
    scales.into_iter().chain([left_out]).collect()
}

fn one_scale(speed: &Speed, scale: Scale) -> Markup {
    let points: Vec<&Point> = speed
        .points
        .iter()
        .filter(|point| point.scale == scale)
        .collect();
    if points.is_empty() {
        return Markup::default();
    }
    let label = match scale {
        Scale::Clients => "clients at once",
        Scale::Rate => "requests a second, sent",
    };
    let mut parts = Vec::new();
    if points.len() > 1 {
        parts.push(figure(&throughput(&points, label, speed.capacity).svg()));
        parts.push(figure(&latency(&points, label).svg()));
    }
    let heads = [
        label,
        "requests",
        "errors",
        "refused",
        "tokens/s written",
        "tokens/s read",
        "first token p50",
        "p99",
        "per token p50",
        "p99",
    ];
    parts.push(table(&heads, points.iter().map(|point| cells(point))));
    let shed = "Refused are answers with 429 or 503: a server that says so at once lets a gateway go elsewhere, one that queues without end does not.";
    parts.push(Markup::raw(format!("<p class=\"faint\">{shed}</p>")));
    parts.into_iter().collect()
}

fn line(name: &str, points: &[&Point], of: fn(&Point) -> Option<f64>) -> Option<Layer> {
    let values: Vec<(f64, f64)> = points
        .iter()
        .filter_map(|point| Some((point.load, of(point)?)))
        .collect();
    (!values.is_empty()).then(|| Layer::Line(name.to_owned(), values))
}

fn throughput(points: &[&Point], label: &str, capacity: Option<f64>) -> Plot {
    let layers = [
        line("written", points, |point| point.output_tokens_per_s),
        line("read", points, |point| point.input_tokens_per_s),
        capacity.map(|load| Layer::RuleX("highest good load".to_owned(), load)),
        points
            .iter()
            .find(|point| point.shed_rate.is_some_and(|rate| rate > 0.0))
            .map(|point| Layer::RuleX("refuses from here".to_owned(), point.load)),
    ];
    Plot {
        title: format!("Tokens a second, by {label}"),
        x: Axis::logarithmic(label),
        y: Axis::linear("tokens a second").from_zero(),
        layers: layers.into_iter().flatten().collect(),
        height: CHART_HEIGHT,
    }
}

fn latency(points: &[&Point], label: &str) -> Plot {
    let layers = [
        line("first token, p50", points, |point| point.ttft_p50_s),
        line("first token, p99", points, |point| point.ttft_p99_s),
        line("each further token, p50", points, |point| point.tpot_p50_s),
    ];
    Plot {
        title: format!("Latencies, by {label}"),
        x: Axis::logarithmic(label),
        y: Axis::logarithmic("wait").unit(" s"),
        layers: layers.into_iter().flatten().collect(),
        height: CHART_HEIGHT,
    }
}

fn cells(point: &Point) -> Vec<Markup> {
    let text = |value: Option<f64>, show: fn(f64) -> String| {
        Markup::from(value.map_or("–".to_owned(), show).replace(' ', "\u{a0}"))
    };
    vec![
        number(point.load).into(),
        point
            .requests
            .map_or("–".to_owned(), |requests| requests.to_string())
            .into(),
        text(point.error_rate, percent),
        text(point.shed_rate, percent),
        text(point.output_tokens_per_s, number),
        text(point.input_tokens_per_s, number),
        text(point.ttft_p50_s, seconds),
        text(point.ttft_p99_s, seconds),
        text(point.tpot_p50_s, seconds),
        text(point.tpot_p99_s, seconds),
    ]
}

pub(super) fn conformance(report: &Report) -> Markup {
    let Some(conformance) = &report.conformance else {
        return Markup::default();
    };
    let row = |check: &Check| {
        let (tone, text) = match check.outcome {
            CheckOutcome::Passed => (Tone::Good, "seen"),
            CheckOutcome::Failed => (Tone::Bad, "not so"),
            CheckOutcome::NotTried => (Tone::Open, "not tried"),
        };
        vec![
            check.name.as_str().into(),
            badge(tone, text),
            check.expected.as_str().into(),
            check.seen.as_str().into(),
        ]
    };
    let rows = table(
        &["behaviour", "", "what a gateway relies on", "what was seen"],
        conformance.checks.iter().map(row),
    );
    Markup::raw(format!("<div class=\"stacked\">{rows}</div>"))
}

pub(super) fn drill(report: &Report) -> Markup {
    let Some(drill) = &report.drill else {
        return Markup::default();
    };
    let tone = |verdict: &str| match verdict {
        "passed" => Tone::Good,
        "failed" => Tone::Bad,
        _ => Tone::Open,
    };
    let rows = drill.failures.iter().map(|failure| {
        let wait = failure.during.fallback_first_token_s.as_ref();
        vec![
            failure.name.as_str().into(),
            badge(tone(&failure.verdict), &failure.verdict),
            format!("{} of {}", failure.during.lost, failure.during.requests).into(),
            wait.map_or("–".to_owned(), |wait| seconds(wait.max)).into(),
            failure.reasons.join("; ").into(),
        ]
    });
    let wait = drill.longest_wait_s().map_or(String::new(), |wait| {
        format!(
            " The longest wait for the fallback's first token was {}.",
            seconds(wait)
        )
    });
    let text = format!(
        "{} of {}, by {}: the primary failed in {} ways while requests went through the gateway.{wait}",
        drill.subject.gateway,
        super::day(&super::super::timestamp(drill.began_unix_s)),
        drill.program,
        drill.failures.len()
    );
    let heads = ["failure", "", "lost", "first token, longest", "why not"];
    let rows = table(&heads, rows);
    [
        paragraph(&text),
        Markup::raw(format!("<div class=\"prose\">{rows}</div>")),
    ]
    .into_iter()
    .collect()
}
