//! A benchmark as one page, with plots.

use backstop_load::{Record, Scale, Spread, Summary};
use backstop_pages::{
    Axis, Layer, Markup, Plot, Tone, badge, cumulative, facts, histogram, number, page, section,
    table, tiles,
};
use serde_json::Value;

use super::result::{BenchReport, RunReport};
use super::table::knee;

const BINS: usize = 40;
/// Runs whose curves are drawn into one plot; the page has six colours.
const CURVES_MAX: usize = 6;
const STYLE: &str = "";

/// How the latencies of a run are distributed, for plots.
#[derive(Clone, Debug, Default)]
pub(crate) struct Curves {
    ttft: Vec<(f64, f64)>,
    e2el: Vec<(f64, f64)>,
    ttft_bars: Vec<(f64, f64, f64)>,
}

impl Curves {
    /// From the planned time on, which is the sending time in a closed loop.
    pub(super) fn of(records: &[Record]) -> Self {
        let answered = || {
            records
                .iter()
                .filter_map(|record| Some((record, record.latencies()?)))
        };
        let ttft: Vec<f64> = answered()
            .map(|(record, one)| record.delay_s() + one.ttft)
            .collect();
        let e2el: Vec<f64> = answered()
            .map(|(record, one)| record.delay_s() + one.e2el)
            .collect();
        Self {
            ttft_bars: histogram(&ttft, BINS),
            ttft: cumulative(&ttft),
            e2el: cumulative(&e2el),
        }
    }
}

/// The whole document.
pub(super) fn html(report: &BenchReport) -> String {
    let parts = [
        Markup::raw("<h1>Speed under load</h1>"),
        head(report),
        best(report),
        section("runs", "Runs", &runs(report)),
        against_load(report),
        section(
            "distribution",
            "How latencies are distributed",
            &distributions(report),
        ),
        section("settings", "Settings", &settings(report)),
        section("definitions", "Definitions", &definitions()),
    ];
    page("Speed under load", STYLE, &parts.into_iter().collect())
}

fn head(report: &BenchReport) -> Markup {
    let subject = &report.subject;
    facts([
        ("Server".into(), subject.url.as_str().into()),
        ("Model".into(), subject.model.as_str().into()),
        ("Measured by".into(), report.program.as_str().into()),
    ])
}

/// The most that was reached, and the knee.
fn best(report: &BenchReport) -> Markup {
    let most = |value: fn(&Summary) -> f64| {
        let values = report
            .runs
            .iter()
            .filter(|run| run.valid)
            .map(|run| value(&run.summary));
        values
            .reduce(f64::max)
            .map_or_else(|| "–".to_owned(), number)
    };
    let mut shown = vec![
        (
            "tokens of answers a second, at most",
            most(|one| one.output_throughput),
        ),
        (
            "answered requests a second, at most",
            most(|one| one.request_throughput),
        ),
    ];
    if let Some(capacity) = &report.capacity {
        let name = match capacity.scale {
            Scale::Rate => "capacity, requests a second",
            Scale::Concurrency => "capacity, clients",
        };
        shown.push((
            name,
            capacity.load.map_or_else(|| "none".to_owned(), number),
        ));
    }
    let sentence = report
        .capacity
        .as_ref()
        .map_or_else(Markup::default, |capacity| {
            Markup::raw(format!("<p>{}</p>", Markup::from(knee(capacity))))
        });
    [tiles(&shown), sentence].into_iter().collect()
}

fn runs(report: &BenchReport) -> Markup {
    let heads = [
        "load",
        "",
        "errors",
        "requests/s",
        "good/s",
        "tokens/s",
        "tokens/s a user",
        "TTFT p50 ms",
        "TTFT p99 ms",
        "TTFC p50 ms",
        "TPOT p50 ms",
        "TPOT p99 ms",
        "E2EL p99 ms",
        "tokens/J",
    ];
    let row = |run: &RunReport| {
        let summary = &run.summary;
        let milliseconds = |spread: &Option<Spread>, percent| {
            at(spread, percent).map_or("–".into(), |value| number(value * 1e3).into())
        };
        let rate =
            |value: Option<f64>| value.map_or("–".into(), |value| Markup::from(number(value)));
        let user = summary
            .output_throughput_per_user
            .as_ref()
            .map(|user| user.median);
        vec![
            run.label.as_str().into(),
            if run.valid {
                Markup::default()
            } else {
                badge(Tone::Bad, "invalid")
            },
            format!("{:.1} %", summary.error_rate * 100.0).into(),
            rate(Some(summary.request_throughput)),
            rate(summary.request_goodput),
            rate(Some(summary.output_throughput)),
            rate(user),
            milliseconds(&summary.ttft_s, 50.0),
            milliseconds(&summary.ttft_s, 99.0),
            milliseconds(&summary.ttfc_s, 50.0),
            milliseconds(&summary.tpot_s, 50.0),
            milliseconds(&summary.tpot_s, 99.0),
            milliseconds(&summary.e2el_s, 99.0),
            rate(
                run.energy
                    .as_ref()
                    .map(|energy| energy.output_tokens_per_joule),
            ),
        ]
    };
    let flaws = said(report, |run| &run.invalid_because);
    let notes = said(report, |run| &run.notes);
    let notes = match notes.is_empty() {
        true => notes,
        false => Markup::raw(format!(
            "<details><summary>What is to be known about them</summary>{notes}</details>"
        )),
    };
    [table(&heads, report.runs.iter().map(row)), flaws, notes]
        .into_iter()
        .collect()
}

/// A list of what is said of runs.
fn said(report: &BenchReport, texts: fn(&RunReport) -> &Vec<String>) -> Markup {
    let items = report.runs.iter().flat_map(|run| {
        let of_run = texts(run).iter();
        of_run.map(|text| Markup::from(format!("{}: {text}", run.label)))
    });
    let items: String = items.map(|item| format!("<li>{item}</li>")).collect();
    match items.is_empty() {
        true => Markup::default(),
        false => Markup::raw(format!("<ul>{items}</ul>")),
    }
}

fn at(spread: &Option<Spread>, percent: f64) -> Option<f64> {
    let spread = spread.as_ref()?;
    match percent {
        50.0 => Some(spread.median),
        _ => spread.percentile(percent),
    }
}

/// Plots over the load, if there are several of one kind.
fn against_load(report: &BenchReport) -> Markup {
    let is_rate = report.runs.iter().all(|run| run.request_rate.is_some());
    let is_closed = report.runs.iter().all(|run| run.arrivals == "closed");
    if report.runs.len() < 2 || !(is_rate || is_closed) {
        return Markup::default();
    }
    let load = |run: &RunReport| match is_rate {
        true => run.request_rate,
        false => run.max_concurrency.map(|clients| clients as f64),
    };
    let points = |value: &dyn Fn(&RunReport) -> Option<f64>| -> Vec<(f64, f64)> {
        let valid = report.runs.iter().filter(|run| run.valid);
        let mut points: Vec<(f64, f64)> = valid
            .filter_map(|run| Some((load(run)?, value(run)?)))
            .collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        points
    };
    let line = |name: &str, value: &dyn Fn(&RunReport) -> Option<f64>| {
        Layer::Line(name.to_owned(), points(value))
    };
    let axis = || {
        Axis::logarithmic(if is_rate {
            "requests a second"
        } else {
            "clients"
        })
    };
    let knee = report.capacity.as_ref().and_then(|capacity| capacity.load);
    let plot = |title: &str, y: Axis, mut layers: Vec<Layer>| {
        layers.extend(knee.map(|knee| Layer::RuleX("capacity".to_owned(), knee)));
        Plot::new(title, axis(), y, layers).svg()
    };
    let seconds = |label: &str| Axis::logarithmic(label.to_owned()).unit(" s");
    let latency = |title: &str, of: fn(&Summary) -> &Option<Spread>| {
        let layers = vec![
            line("p50", &|run| at(of(&run.summary), 50.0)),
            line("p99", &|run| at(of(&run.summary), 99.0)),
        ];
        plot(title, seconds(title), layers)
    };
    let plots = [
        latency("Time to first token, from the planned time on", |one| {
            &one.ttft_from_planned_s
        }),
        latency("Time per output token", |one| &one.tpot_s),
        latency("End-to-end latency, from the planned time on", |one| {
            &one.e2el_from_planned_s
        }),
        plot(
            "Tokens of answers a second",
            Axis::linear("tokens a second").from_zero(),
            vec![
                line("all users", &|run| Some(run.summary.output_throughput)),
                line("one user, median", &|run| {
                    Some(run.summary.output_throughput_per_user.as_ref()?.median)
                }),
            ],
        ),
        plot(
            "Requests a second",
            Axis::linear("requests a second").from_zero(),
            vec![
                line("answered", &|run| Some(run.summary.request_throughput)),
                line("good", &|run| run.summary.request_goodput),
            ],
        ),
    ];
    section("load", "Against the load", &plots.into_iter().collect())
}

fn distributions(report: &BenchReport) -> Markup {
    let shown = || report.runs.iter().filter(|run| run.valid).take(CURVES_MAX);
    let curves = |title: &str, of: fn(&Curves) -> &Vec<(f64, f64)>| {
        let layers = shown().map(|run| Layer::Steps(run.label.clone(), of(&run.curves).clone()));
        let x = Axis::logarithmic("seconds").unit(" s");
        let y = Axis::linear(title).between(0.0, 1.0).percent();
        Plot::new(title, x, y, layers.collect()).svg()
    };
    let histogram = report.runs.iter().rfind(|run| run.valid).map(|run| {
        let title = format!("Time to first token: answers, {}", run.label);
        let bars = vec![Layer::Bars(
            "answers".to_owned(),
            run.curves.ttft_bars.clone(),
        )];
        let x = Axis::linear("seconds").unit(" s");
        Plot::new(title.clone(), x, Axis::linear(title).from_zero(), bars).svg()
    });
    [
        curves("Answers whose first token came within", |curves| {
            &curves.ttft
        }),
        curves("Answers that ended within", |curves| &curves.e2el),
    ]
    .into_iter()
    .chain(histogram)
    .collect()
}

fn settings(report: &BenchReport) -> Markup {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let set = report.settings.iter().filter(|(_, value)| !value.is_null());
    facts(set.map(|(name, value)| (Markup::from(name.as_str()), text(value).into())))
}

fn definitions() -> Markup {
    let rows = [
        (
            "TTFT",
            "time to first token: from sending a request to the first event with a choice",
        ),
        (
            "TTFC",
            "time to first content: to the first event with text, reasoning or a call",
        ),
        (
            "TPOT",
            "time per output token: from the first token to the last, over the tokens after the first",
        ),
        (
            "E2EL",
            "end-to-end latency: from sending a request to the last event with a choice",
        ),
        ("good", "within all the objectives that are stated"),
        (
            "from the planned time on",
            "from when a request was to be sent, whatever held it up; in a closed loop, from when it was sent",
        ),
    ];
    let text = Markup::raw("<p>As vLLM's benchmark defines them, of answered requests.</p>");
    [
        text,
        facts(rows.map(|(name, meaning)| (name.into(), meaning.into()))),
    ]
    .into_iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_as_many_cells_as_the_head() {
        let page = html(&crate::bench::result::example());
        let table = page
            .split("<table")
            .find(|part| part.contains("TTFC p50 ms"))
            .unwrap();
        let heads = table.matches("scope=\"col\"").count();
        let rows: Vec<&str> = table.split("<tr>").skip(2).collect();
        assert_eq!(rows.len(), 2);
        for row in rows {
            assert_eq!(row.matches("<td>").count() + 1, heads);
        }
        assert!(page.contains("Against the load"));
    }

    #[test]
    fn curves_are_of_answered_requests_from_their_planned_time_on() {
        let answered = Record {
            planned_s: 1.0,
            sent_s: 1.5,
            events_us: vec![500_000, 1_000_000],
            output_tokens: 2,
            ..Record::default()
        };
        let failed = Record {
            error: Some("timeout".into()),
            ..Record::default()
        };
        let curves = Curves::of(&[answered, failed]);
        assert_eq!(curves.ttft, [(1.0, 1.0)]);
        assert_eq!(curves.e2el, [(1.5, 1.0)]);
    }
}
