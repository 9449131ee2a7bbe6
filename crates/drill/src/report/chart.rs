//! Latency over time, as an image in a page.

use std::fmt::Write;

use crate::judgement::Source;
use crate::load::Record;

// The image's own units; the page scales it.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 170.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 22.0;
const DOT: f64 = 3.5;
/// The least of the vertical axis, in seconds; what is faster lies on it.
const LEAST_S: f64 = 0.01;
/// Marks of the horizontal axis.
const MARKS: f64 = 6.0;

/// Where things lie: time from left to right, waits from bottom to top, in powers of ten.
struct Plane {
    end_s: f64,
    decades: f64,
}

impl Plane {
    fn of(records: &[Record], to_s: f64) -> Self {
        let last_s = records
            .iter()
            .map(|record| record.at_s)
            .fold(to_s, f64::max);
        let most_s = records
            .iter()
            .map(|record| record.total_s)
            .fold(1.0, f64::max);
        Self {
            end_s: last_s.max(1.0) * 1.02,
            decades: (most_s / LEAST_S).log10().ceil(),
        }
    }

    fn x(&self, at_s: f64) -> f64 {
        LEFT + at_s / self.end_s * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, wait_s: f64) -> f64 {
        let decades = (wait_s.max(LEAST_S) / LEAST_S).log10();
        HEIGHT - BOTTOM - decades / self.decades * (HEIGHT - TOP - BOTTOM)
    }
}

/// Each request at the time when it was sent, as high as it took to its end. The window of a failure, in seconds, is
/// shaded.
pub(super) fn svg(records: &[Record], fails: Option<(f64, f64)>) -> String {
    let plane = Plane::of(records, fails.map_or(0.0, |(_, to_s)| to_s));
    let mut image = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Seconds to the end of each answer, over time\">"
    );
    if let Some((from_s, to_s)) = fails {
        // Writing to a string does not fail.
        let _ = write!(
            image,
            "<rect class=\"fails\" x=\"{:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            plane.x(from_s),
            plane.x(to_s) - plane.x(from_s),
            HEIGHT - TOP - BOTTOM
        );
    }
    axes(&mut image, &plane);
    for record in records {
        dot(&mut image, &plane, record);
    }
    image.push_str("</svg>");
    image
}

fn axes(image: &mut String, plane: &Plane) {
    let mut seconds = LEAST_S;
    for _ in 0..=plane.decades as u32 {
        let y = plane.y(seconds);
        let _ = write!(
            image,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{seconds} s</text>",
            WIDTH - RIGHT,
            LEFT - 5.0,
            y + 4.0
        );
        seconds *= 10.0;
    }
    let step = nice(plane.end_s / MARKS);
    let mut at_s = 0.0;
    while at_s <= plane.end_s {
        let _ = write!(
            image,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at_s}</text>",
            plane.x(at_s),
            HEIGHT - 6.0
        );
        at_s += step;
    }
}

fn dot(image: &mut String, plane: &Plane, record: &Record) {
    let (x, y) = (plane.x(record.at_s), plane.y(record.total_s));
    let title = title(record);
    if record.lost.is_some() || !record.flaws.is_empty() {
        let _ = write!(
            image,
            "<path class=\"lost\" d=\"M{:.1} {:.1}l8 8m0 -8l-8 8\"><title>{title}</title></path>",
            x - 4.0,
            y - 4.0
        );
        return;
    }
    let class = class(record.source);
    let _ = if record.stream {
        write!(
            image,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{DOT}\"><title>{title}</title></circle>"
        )
    } else {
        write!(
            image,
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{2}\" height=\"{2}\"><title>{title}</title></rect>",
            x - DOT,
            y - DOT,
            DOT * 2.0
        )
    };
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

/// The next of 1, 2 and 5 times a power of ten.
fn nice(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|factor| factor * power >= least);
    (factor.unwrap_or(10.0) * power).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_at_round_numbers() {
        for (least, expected) in [
            (0.2, 1.0),
            (1.1, 2.0),
            (2.0, 2.0),
            (3.0, 5.0),
            (7.0, 10.0),
            (12.0, 20.0),
        ] {
            assert_eq!(nice(least), expected);
        }
    }

    #[test]
    fn longer_waits_lie_higher_and_later_requests_further_right() {
        let plane = Plane {
            end_s: 10.0,
            decades: 3.0,
        };
        assert!(plane.y(10.0) < plane.y(1.0) && plane.x(5.0) < plane.x(6.0));
        assert_eq!(plane.y(0.0), HEIGHT - BOTTOM);
        assert!((plane.y(10.0) - TOP).abs() < 1e-9);
    }
}
