//! Latency over time, as an image in a page.

use backstop_pages::{Axis, Layer, Mark, Markup, Plot, Shape};

use crate::judgement::Source;
use crate::load::Record;

const HEIGHT: f64 = 190.0;
/// The least of the vertical axis, in seconds; what is faster lies on it.
const LEAST_S: f64 = 0.01;

/// Each request at the time when it was sent, as high as it took to its end. The window of a failure, in seconds, is
/// shaded.
pub(super) fn svg(records: &[Record], fails: Option<(f64, f64)>) -> Markup {
    let most = |of: fn(&Record) -> f64, least| records.iter().map(of).fold(least, f64::max);
    let last_s = most(|record| record.at_s, fails.map_or(1.0, |(_, to_s)| to_s));
    let most_s = most(|record| record.total_s, 1.0);
    let layers = fails.map(|(from_s, to_s)| Layer::Shade(from_s, to_s));
    let marks = records.iter().map(mark).collect();
    let plot = Plot {
        title: "Seconds to the end of each answer, over time".to_owned(),
        x: Axis::linear("").between(0.0, last_s * 1.02),
        y: Axis::logarithmic("")
            .unit(" s")
            .between(LEAST_S, 10_f64.powf(most_s.log10().ceil())),
        layers: layers.into_iter().chain([Layer::Marks(marks)]).collect(),
        height: HEIGHT,
    };
    plot.svg()
}

fn mark(record: &Record) -> Mark {
    let is_lost = record.lost.is_some() || !record.flaws.is_empty();
    Mark {
        x: record.at_s,
        y: record.total_s,
        shape: match (is_lost, record.stream) {
            (true, _) => Shape::Cross,
            (false, true) => Shape::Circle,
            (false, false) => Shape::Square,
        },
        class: if is_lost {
            "lost"
        } else {
            class(record.source)
        },
        title: title(record),
    }
}

fn title(record: &Record) -> String {
    let form = if record.stream {
        "stream"
    } else {
        "in one piece"
    };
    let by = if record.lost.is_some() {
        "lost"
    } else {
        class(record.source)
    };
    format!(
        "{by}, {form}, sent at {:.1} s, took {:.2} s",
        record.at_s, record.total_s
    )
}

/// Also a name in the style sheet.
fn class(source: Source) -> &'static str {
    match source {
        Source::Primary => "primary",
        Source::Fallback => "fallback",
        Source::Continued => "continued",
        Source::Refusal => "refusal",
        Source::Unknown | Source::None => "unknown",
    }
}
