//! Values with their intervals, one below the other, and what somebody else says of each.

use std::fmt::Write;

use super::axis::Axis;
use super::{CHARACTER, WIDTH, open, shortened};
use crate::Tone;
use crate::markup::{Markup, escape};

const ROW: f64 = 24.0;
const MARKS: f64 = 20.0;
const LABEL: f64 = 16.0;
const TOP: f64 = 6.0;
const NAME_CHARACTERS_MAX: usize = 34;
const TEXT_CHARACTERS_MAX: usize = 26;

/// A chart of values with intervals.
#[derive(Clone, Debug)]
pub struct Forest {
    /// What it shows, for those who do not see it.
    pub title: String,
    /// From left to right.
    pub axis: Axis,
    /// From top to bottom.
    pub rows: Vec<ForestRow>,
}

/// A value, how sure it is, and what it is compared with.
#[derive(Clone, Debug)]
pub struct ForestRow {
    /// What it is of, on the left.
    pub name: String,
    /// The value.
    pub value: f64,
    /// From where to where it may be.
    pub interval: Option<(f64, f64)>,
    /// What somebody else says, shown as a diamond.
    pub reference: Option<f64>,
    /// In words, on the right.
    pub text: String,
    /// What it means.
    pub tone: Option<Tone>,
}

impl Forest {
    /// An image for a page.
    pub fn svg(&self) -> Markup {
        let width = |of: fn(&ForestRow) -> &str, most: usize| {
            let lengths = self
                .rows
                .iter()
                .map(|row| of(row).chars().count().min(most));
            lengths.max().unwrap_or(0) as f64 * CHARACTER + 22.0
        };
        let left = width(|row| &row.name, NAME_CHARACTERS_MAX);
        let right = WIDTH - width(|row| &row.text, TEXT_CHARACTERS_MAX);
        let label = if self.axis.label.is_empty() {
            0.0
        } else {
            LABEL
        };
        let bottom = TOP + self.rows.len() as f64 * ROW;
        let height = bottom + MARKS + label;
        let values = self.rows.iter().flat_map(ForestRow::values);
        let span = self.axis.span(values, left, right);
        let mut image = open(height, &self.title);
        // Writing to a string does not fail.
        for mark in span.marks() {
            let x = span.at(mark);
            let _ = write!(
                image,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom:.1}\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 14.0,
                escape(&self.axis.text(mark))
            );
        }
        let _ = write!(
            image,
            "<text x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            bottom + 29.0,
            escape(&self.axis.label)
        );
        for (number, row) in self.rows.iter().enumerate() {
            let y = TOP + (number as f64 + 0.5) * ROW;
            row.draw(&mut image, y, |value| span.at(value));
        }
        image.push_str("</svg>");
        Markup::raw(image)
    }
}

impl ForestRow {
    fn values(&self) -> impl Iterator<Item = f64> {
        let (low, high) = self.interval.unwrap_or((self.value, self.value));
        [self.value, low, high].into_iter().chain(self.reference)
    }

    fn draw(&self, image: &mut String, y: f64, at: impl Fn(f64) -> f64) {
        let class = self.tone.map_or("series-1", Tone::class);
        let (name, text) = (escape(&self.name), escape(&self.text));
        let short_name = escape(&shortened(&self.name, NAME_CHARACTERS_MAX));
        let short_text = escape(&shortened(&self.text, TEXT_CHARACTERS_MAX));
        let base = y + 4.0;
        let _ = write!(
            image,
            "<g><title>{name}: {text}</title><text class=\"strong\" x=\"0\" y=\"{base:.1}\">{short_name}</text>\
             <text class=\"strong\" x=\"{WIDTH}\" y=\"{base:.1}\" text-anchor=\"end\">{short_text}</text>"
        );
        if let Some((low, high)) = self
            .interval
            .filter(|(low, high)| low.is_finite() && high.is_finite())
        {
            let (low, high) = (at(low), at(high));
            let _ = write!(
                image,
                "<path class=\"whisker {class}\" d=\"M{low:.1} {y:.1}H{high:.1}M{low:.1} {0:.1}v8M{high:.1} {0:.1}v8\"/>",
                y - 4.0
            );
        }
        if self.value.is_finite() {
            let _ = write!(
                image,
                "<circle class=\"dot {class}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>",
                at(self.value)
            );
        }
        if let Some(reference) = self.reference.filter(|value| value.is_finite()) {
            let _ = write!(
                image,
                "<path class=\"reference\" d=\"M{:.1} {:.1}l6 6l-6 6l-6 -6Z\"/>",
                at(reference),
                y - 6.0
            );
        }
        image.push_str("</g>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_its_value_its_interval_and_what_it_is_compared_with() {
        let row = |value, interval, reference| ForestRow {
            name: "HumanEval <pass@1>, a long name that does not fit the column".into(),
            value,
            interval,
            reference,
            text: "61.0 % (53–68)".into(),
            tone: Some(Tone::Good),
        };
        let rows = vec![
            row(0.61, Some((0.53, 0.68)), Some(0.616)),
            row(f64::NAN, Some((f64::NAN, 1.0)), None),
        ];
        let axis = Axis::linear("right").percent().between(0.0, 1.0);
        let forest = Forest {
            title: "Suites".into(),
            axis,
            rows,
        };
        let image = forest.svg().to_string();
        assert!(
            !image.contains("NaN") && !image.contains("<pass"),
            "{image}"
        );
        assert_eq!(image.matches("class=\"reference\"").count(), 1);
        assert_eq!(image.matches("class=\"whisker good\"").count(), 1);
        assert!(image.contains("a long name that does not fit the column: 61.0 %"));
    }
}
