//! What is shown in a terminal.

use std::fmt::Write;

use super::args::LatencyName;
use super::result::{BenchReport, RunReport, latency, latency_name};

/// Everything, for people.
pub(super) fn text(report: &BenchReport, metrics: &[LatencyName]) -> String {
    let mut text = String::new();
    for run in &report.runs {
        text.push_str(&one(run, metrics));
        text.push('\n');
    }
    if report.runs.len() > 1 {
        text.push_str(&side_by_side(&report.runs));
        text.push('\n');
    }
    if let Some(capacity) = &report.capacity {
        text.push_str(&knee(capacity));
        text.push('\n');
    }
    text
}

/// What a search came to, in a sentence.
pub(super) fn knee(capacity: &backstop_load::Capacity) -> String {
    let unit = match capacity.scale {
        backstop_load::Scale::Rate => "requests/s",
        backstop_load::Scale::Concurrency => "clients",
    };
    let needed = capacity.needed * 100.0;
    let begun = match capacity.load {
        Some(load) => {
            format!("Capacity: {load} {unit} with at least {needed} % of all answers good")
        }
        None => {
            format!("Capacity: none; not even the least load had {needed} % of all answers good")
        }
    };
    let end = match (capacity.fails_at, capacity.is_settled) {
        (Some(fails), true) => format!("; {fails} {unit} was too much."),
        (Some(fails), false) => {
            format!(
                "; {fails} {unit} was too much. The search ended before it was sure: raise --capacity-probes."
            )
        }
        (None, true) => "; that is the highest load that is tried.".to_owned(),
        (None, false) => "; the search ended before any load was too much.".to_owned(),
    };
    begun + &end
}

fn one(run: &RunReport, metrics: &[LatencyName]) -> String {
    let summary = &run.summary;
    let mut text = format!("{}\n", run.label);
    let mut line = |name: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {name:<36} {value}");
    };
    for reason in &run.invalid_because {
        line("INVALID", reason.clone());
    }
    line(
        "requests answered",
        format!("{} of {}", summary.completed, summary.requests),
    );
    for (kind, count) in &summary.errors {
        let said = summary.messages.get(kind).map_or("", String::as_str);
        line(&format!("  {kind}"), format!("{count}  {said}"));
    }
    line("duration", format!("{:.2} s", summary.duration_s));
    line(
        "tokens of prompts, of answers",
        format!(
            "{}, {}",
            summary.total_input_tokens, summary.total_output_tokens
        ),
    );
    line(
        "request throughput",
        format!("{:.3} /s", summary.request_throughput),
    );
    if let Some(goodput) = summary.request_goodput {
        let percent = |fraction: Option<f64>| fraction.unwrap_or_default() * 100.0;
        line(
            "request goodput",
            format!(
                "{goodput:.3} /s; {:.1} % of all are good, {:.1} % from the planned time on",
                percent(summary.good_fraction),
                percent(summary.good_fraction_from_planned)
            ),
        );
    }
    line(
        "output throughput",
        format!("{:.1} tokens/s", summary.output_throughput),
    );
    line(
        "total token throughput",
        format!("{:.1} tokens/s", summary.total_token_throughput),
    );
    if let Some(user) = &summary.output_throughput_per_user {
        line(
            "output throughput for each user",
            format!("{:.1} tokens/s in the median", user.median),
        );
    }
    if let Some(energy) = &run.energy {
        line(
            "power",
            format!(
                "{:.1} W; {:.3} tokens of answers for each joule",
                energy.watts, energy.output_tokens_per_joule
            ),
        );
    }
    for note in &run.notes {
        line("note", note.clone());
    }
    text.push_str(&latencies(run, metrics));
    text
}

fn latencies(run: &RunReport, metrics: &[LatencyName]) -> String {
    let summary = &run.summary;
    let mut spreads: Vec<_> = metrics
        .iter()
        .filter_map(|&name| Some((latency_name(name), latency(summary, name)?)))
        .collect();
    if run.arrivals != "closed" {
        let planned = [
            ("ttft from planned", &summary.ttft_from_planned_s),
            ("e2el from planned", &summary.e2el_from_planned_s),
            ("generator lag", &summary.generator_lag_s),
        ];
        spreads.extend(
            planned
                .into_iter()
                .filter_map(|(name, spread)| Some((name, spread.as_ref()?))),
        );
    }
    let Some((_, first)) = spreads.first() else {
        return String::new();
    };
    let percents = first
        .percentiles
        .iter()
        .map(|one| format!("p{}", one.percent));
    let head = ["ms", "mean", "std"]
        .map(str::to_owned)
        .into_iter()
        .chain(percents);
    let mut rows = vec![head.collect::<Vec<_>>()];
    for (name, spread) in spreads {
        let values = [spread.mean, spread.std];
        let percentiles = spread.percentiles.iter().map(|one| one.value);
        let cells = values.into_iter().chain(percentiles).map(milliseconds);
        rows.push(std::iter::once(name.to_owned()).chain(cells).collect());
    }
    aligned(&rows)
}

fn side_by_side(runs: &[RunReport]) -> String {
    let head = [
        "load",
        "errors",
        "req/s",
        "good/s",
        "tok/s",
        "tok/s a user",
        "TTFT p50",
        "TTFT p99",
        "TPOT p50",
        "TPOT p99",
        "E2EL p99",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for run in runs {
        let summary = &run.summary;
        let at = |name, percent| {
            let spread = latency(summary, name);
            let value = spread.and_then(|spread| {
                if percent == 50.0 {
                    Some(spread.median)
                } else {
                    spread.percentile(percent)
                }
            });
            value.map_or_else(|| "-".to_owned(), milliseconds)
        };
        let user = summary.output_throughput_per_user.as_ref();
        let flag = if run.valid { "" } else { " INVALID" };
        rows.push(vec![
            format!("{}{flag}", run.label),
            format!("{:.1} %", summary.error_rate * 100.0),
            format!("{:.2}", summary.request_throughput),
            summary
                .request_goodput
                .map_or_else(|| "-".to_owned(), |good| format!("{good:.2}")),
            format!("{:.1}", summary.output_throughput),
            user.map_or_else(|| "-".to_owned(), |user| format!("{:.1}", user.median)),
            at(LatencyName::Ttft, 50.0),
            at(LatencyName::Ttft, 99.0),
            at(LatencyName::Tpot, 50.0),
            at(LatencyName::Tpot, 99.0),
            at(LatencyName::E2el, 99.0),
        ]);
    }
    aligned(&rows)
}

/// Three digits or more.
fn milliseconds(seconds: f64) -> String {
    let value = seconds * 1e3;
    let digits = match value.abs() {
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

/// The first column to the left, all others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        text.push_str("  ");
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 => write!(text, "{cell:<width$}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |cells: &[&str]| {
            cells
                .iter()
                .map(|cell| (*cell).to_owned())
                .collect::<Vec<_>>()
        };
        let text = aligned(&[row(&["ms", "mean"]), row(&["ttft", "1234"])]);
        assert_eq!(text, "  ms    mean\n  ttft  1234\n");
    }

    #[test]
    fn every_row_has_as_many_cells_as_the_head() {
        let report = crate::bench::result::example();
        let metrics = [
            LatencyName::Ttft,
            LatencyName::Ttfc,
            LatencyName::ClientQueueTime,
        ];
        let tables = [
            latencies(&report.runs[1], &metrics),
            side_by_side(&report.runs),
        ];
        for table in tables {
            let widths: Vec<usize> = table.lines().map(|line| line.chars().count()).collect();
            assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{table}");
        }
    }

    #[test]
    fn times_have_three_digits_at_least() {
        assert_eq!(
            [0.001_234, 0.012_34, 1.234].map(milliseconds),
            ["1.23", "12.3", "1234"]
        );
    }

    #[test]
    fn a_knee_is_told_in_a_sentence() {
        let capacity = |load, fails_at, is_settled| backstop_load::Capacity {
            scale: backstop_load::Scale::Rate,
            needed: 0.95,
            load,
            fails_at,
            is_settled,
            probes: Vec::new(),
        };
        assert_eq!(
            knee(&capacity(Some(2.5), Some(2.6), true)),
            "Capacity: 2.5 requests/s with at least 95 % of all answers good; 2.6 requests/s was too much."
        );
        assert!(knee(&capacity(Some(2.5), None, true)).ends_with("highest load that is tried."));
        assert!(knee(&capacity(None, Some(1.0), false)).contains("none"));
    }
}
