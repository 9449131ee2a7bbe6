//! Metrics for the textfile collector of Prometheus' node_exporter.

use std::fmt::Write;
use std::path::Path;

use super::{Report, replace};
use crate::DrillError;
use crate::statistics::Summary;
use crate::verdict::Verdict;

const LAST_PASSED: &str = "backstop_drill_last_passed_timestamp_seconds";
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Replaces the file as a whole; a drill that was not passed keeps the date of the last one that was.
pub(crate) fn write(report: &Report, path: &Path) -> Result<(), DrillError> {
    let passed_s = if report.verdict == Verdict::Passed {
        Some(report.ended_unix_s())
    } else {
        last_passed(path)?
    };
    replace(path, text(report, passed_s).as_bytes())
}

/// What an earlier drill wrote.
fn last_passed(path: &Path) -> Result<Option<f64>, DrillError> {
    if !path.exists() {
        return Ok(None);
    }
    let text = backstop_input::read_text_file(path, FILE_BYTES_MAX)
        .map_err(|error| DrillError::at(path, error))?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(LAST_PASSED)?.strip_prefix(' '));
    Ok(value.and_then(|value| value.trim().parse().ok()))
}

fn text(report: &Report, passed_s: Option<f64>) -> String {
    let mut page = Page(String::new());
    if let Some(seconds) = passed_s {
        page.gauge(
            LAST_PASSED,
            "End of the last drill that was passed.",
            seconds,
        );
    }
    let name = "backstop_drill_last_run_timestamp_seconds";
    page.gauge(name, "End of the last drill.", report.ended_unix_s());
    page.gauge(
        "backstop_drill_duration_seconds",
        "How long the last drill took.",
        report.took_s,
    );
    let passed = f64::from(u8::from(report.verdict == Verdict::Passed));
    page.gauge(
        "backstop_drill_passed",
        "Whether the last drill was passed.",
        passed,
    );
    let name = "backstop_drill_failures";
    page.describe(
        name,
        "Failures of the primary in the last drill, by what came of them.",
    );
    for verdict in [Verdict::Passed, Verdict::Failed, Verdict::NotRehearsed] {
        let labels = format!("{{verdict=\"{}\"}}", verdict.text());
        page.sample(name, &labels, report.count(verdict) as f64);
    }
    let sum = |of: fn(&Summary) -> usize| {
        let phases = report
            .failures
            .iter()
            .flat_map(|failure| [&failure.before, &failure.during, &failure.after]);
        phases.map(of).sum::<usize>() as f64
    };
    page.gauge(
        "backstop_drill_requests",
        "Requests of the last drill.",
        sum(|phase| phase.requests),
    );
    page.gauge(
        "backstop_drill_requests_lost",
        "Requests without an answer.",
        sum(|phase| phase.lost),
    );
    let waits = report
        .failures
        .iter()
        .filter_map(|failure| failure.during.fallback_first_token_s);
    let longest_s = waits.map(|waits| waits.max).fold(0.0, f64::max);
    let help = "The longest wait for the first token of the fallback.";
    page.gauge("backstop_drill_first_token_seconds_max", help, longest_s);
    page.0
}

struct Page(String);

impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.describe(name, help);
        self.sample(name, "", value);
    }

    // Writing to a string does not fail.

    fn describe(&mut self, name: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
    }

    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}
