//! What was measured, suite by suite, and how much of it is noise.

use std::collections::BTreeMap;

use backstop_pages::{Axis, Forest, ForestRow, Markup, number, table};

use super::super::model::Report;
use super::super::noise::is_noise;
use super::{figure, paragraph, percent};
use crate::record::Measure;

/// Rows of one chart; what is more stands in the table alone.
const CHART_ROWS_MAX: usize = 24;
/// Numbers of a suite up to which it has no chart of its own.
const SMALL_MAX: usize = 3;
/// Ends of names of metrics that are no rates, and what their numbers mean.
const UNITS: [(&str, &str); 4] = [
    ("_s", " s"),
    ("_tokens", " tokens"),
    ("_ms", " ms"),
    ("_chars", " characters"),
];

pub(super) fn of(report: &Report) -> Markup {
    let mut suites: BTreeMap<&str, Vec<&Measure>> = BTreeMap::new();
    for measure in report
        .measures
        .iter()
        .filter(|measure| !is_told_elsewhere(report, measure))
    {
        suites.entry(&measure.suite).or_default().push(measure);
    }
    if suites.is_empty() {
        return paragraph("The directory of results has no measures: no suite was run to its end.");
    }
    let (large, small): (Vec<_>, Vec<_>) = suites
        .into_iter()
        .partition(|(_, measures)| measures.len() > SMALL_MAX);
    let large = large
        .iter()
        .flat_map(|(suite, measures)| one_suite(suite, measures));
    small_suites(&small).into_iter().chain(large).collect()
}

/// Whether a section of its own has it: conformance, noise, and speed where a benchmark is part of the report.
fn is_told_elsewhere(report: &Report, measure: &Measure) -> bool {
    let is_speed = measure.suite.starts_with("bench/") && report.speed.is_some();
    measure.suite == "conformance" || is_speed || is_noise(measure)
}

/// Suites of few numbers share a chart.
fn small_suites(suites: &[(&str, Vec<&Measure>)]) -> Vec<Markup> {
    let measures: Vec<&Measure> = suites
        .iter()
        .flat_map(|(_, measures)| measures.iter().copied())
        .collect();
    if measures.is_empty() {
        return Vec::new();
    }
    let named = |measure: &Measure| format!("{}, {}", measure.suite, measure.metric);
    let mut parts = numbers("Results, with intervals", &measures, named);
    let rows = suites
        .iter()
        .map(|(suite, measures)| vec![(*suite).into(), conditions(measures)]);
    let rows = table(&["suite", "how it was measured"], rows);
    parts.push(Markup::raw(format!("<div class=\"prose\">{rows}</div>")));
    parts
}

fn one_suite(suite: &str, measures: &[&Measure]) -> Vec<Markup> {
    let heading = format!("<h3>{}</h3>", Markup::from(suite));
    let title = format!("Results of {suite}, with intervals");
    let mut parts = vec![Markup::raw(heading), conditions(measures)];
    parts.extend(numbers(&title, measures, |measure| measure.metric.clone()));
    parts
}

/// Rates as a chart, the rest as a table.
fn numbers(title: &str, measures: &[&Measure], name: impl Fn(&Measure) -> String) -> Vec<Markup> {
    let mut parts = Vec::new();
    let (rates, mut rest): (Vec<&Measure>, Vec<&Measure>) =
        measures.iter().partition(|measure| is_rate(measure));
    if !rates.is_empty() {
        let shown = rates.iter().take(CHART_ROWS_MAX);
        let forest = Forest {
            title: title.to_owned(),
            axis: Axis::linear("").percent().between(0.0, 1.0),
            rows: shown.map(|measure| row(name(measure), measure)).collect(),
        };
        parts.push(figure(&forest.svg()));
    }
    rest.extend(rates.into_iter().skip(CHART_ROWS_MAX));
    if !rest.is_empty() {
        let heads = ["metric", "value", "interval", "of"];
        parts.push(table(
            &heads,
            rest.iter().map(|measure| cells(name(measure), measure)),
        ));
    }
    parts
}

/// Differences and ratios of two are none, however large they are.
fn is_rate(measure: &Measure) -> bool {
    let is_of_two = ["_difference", "_ratio"]
        .iter()
        .any(|end| measure.metric.ends_with(end));
    !is_of_two && (0.0..=1.0).contains(&measure.value) && unit(&measure.metric).is_empty()
}

fn unit(metric: &str) -> &'static str {
    let found = UNITS.iter().find(|(end, _)| metric.ends_with(end));
    found.map_or("", |(_, unit)| unit)
}

fn row(name: String, measure: &Measure) -> ForestRow {
    let interval = measure.interval.as_ref();
    let range = interval.map(|interval| {
        format!(
            " ({:.0}–{:.0}), n = {}",
            interval.low * 100.0,
            interval.high * 100.0,
            measure.count
        )
    });
    ForestRow {
        name,
        value: measure.value,
        interval: interval.map(|interval| (interval.low, interval.high)),
        reference: None,
        text: format!("{}{}", percent(measure.value), range.unwrap_or_default()),
        tone: None,
    }
}

fn cells(name: String, measure: &Measure) -> Vec<Markup> {
    let unit = unit(&measure.metric);
    let interval = measure.interval.as_ref();
    let interval = interval.map_or("–".to_owned(), |interval| {
        format!(
            "{} to {}{unit}",
            number(interval.low),
            number(interval.high)
        )
    });
    vec![
        name.into(),
        format!("{}{unit}", number(measure.value)).into(),
        interval.into(),
        measure.count.to_string().into(),
    ]
}

/// What all of a suite's measures say of how they were taken.
fn conditions(measures: &[&Measure]) -> Markup {
    let Some((first, others)) = measures.split_first() else {
        return Markup::default();
    };
    let shared = first.settings.iter().filter(|(name, value)| {
        others
            .iter()
            .all(|measure| measure.settings.get(*name) == Some(value))
    });
    let mut said: Vec<String> = shared
        .filter(|(_, value)| !value.is_object() && !value.is_null())
        .map(|(name, value)| match value.as_str() {
            Some(text) => format!("{name} {text}"),
            None => format!("{name} {value}"),
        })
        .collect();
    if first.samples > 1 {
        said.push(format!("{} answers to each task", first.samples));
    }
    said.push(format!("by {}", first.source));
    Markup::raw(format!(
        "<p class=\"faint\">{}</p>",
        Markup::from(said.join(" · "))
    ))
}

/// The same questions, asked again.
pub(super) fn noise(report: &Report) -> Markup {
    if report.noise.is_empty() {
        return Markup::default();
    }
    let heads = [
        "suite",
        "runs",
        "answers",
        "the same to the letter",
        "the same outcome",
        "scores moved by",
    ];
    let rows = report.noise.iter().map(|noise| {
        let points = |(metric, spread): (&String, &f64)| {
            let unit = unit(metric);
            match unit.is_empty() && *spread <= 1.0 {
                true => format!("{metric} {:.1} points", spread * 100.0),
                false => format!("{metric} {}{unit}", number(*spread)),
            }
        };
        let moved = noise.spreads.iter().filter(|(_, spread)| **spread > 0.0);
        let moved: Vec<String> = moved.map(points).collect();
        vec![
            noise.suite.as_str().into(),
            noise.runs.to_string().into(),
            noise.answers.to_string().into(),
            percent(noise.identical).into(),
            percent(noise.same_outcome).into(),
            match moved.is_empty() {
                true => "nothing".into(),
                false => moved.join(", ").into(),
            },
        ]
    });
    let text = "The same run, again: same questions, same seeds. A difference between two servers that is smaller than this is none.";
    let rows = table(&heads, rows);
    let rows = Markup::raw(format!("<div class=\"prose\">{rows}</div>"));
    [paragraph(text), rows].into_iter().collect()
}
