//! Axes: from values to places, and marks at round numbers.

use crate::parts::number;

/// Marks along an axis, about.
const MARKS: f64 = 6.0;
/// Marks of a logarithmic axis at most, before those between powers of ten are left out.
const LOGARITHMIC_MARKS_MAX: usize = 8;
/// What a logarithmic axis is made for; what lies beyond is drawn at its ends.
const LOGARITHMIC: std::ops::Range<f64> = 1e-100..1e100;
/// Powers of ten of a logarithmic axis.
const DECADES_MAX: i32 = 40;

/// What an axis shows, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    pub(crate) label: String,
    unit: &'static str,
    logarithmic: bool,
    from_zero: bool,
    range: Option<(f64, f64)>,
    percent: bool,
}

impl Axis {
    /// Equal steps.
    pub fn linear(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            unit: "",
            logarithmic: false,
            from_zero: false,
            range: None,
            percent: false,
        }
    }

    /// Equal factors. What is not above zero lies at its lower end.
    pub fn logarithmic(label: impl Into<String>) -> Self {
        Self {
            logarithmic: true,
            ..Self::linear(label)
        }
    }

    /// What stands behind the number of each mark, such as ` s`.
    pub fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    /// Fractions, shown as percentages.
    pub fn percent(self) -> Self {
        Self {
            percent: true,
            ..self
        }
    }

    /// A linear axis that begins at zero.
    pub fn from_zero(self) -> Self {
        Self {
            from_zero: true,
            ..self
        }
    }

    /// What is shown, whatever the values are.
    pub fn between(self, low: f64, high: f64) -> Self {
        Self {
            range: Some((low, high)),
            ..self
        }
    }

    /// The axis for these values, drawn from one place to the other.
    pub(crate) fn span(&self, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Span {
        let usable = values.filter(|value| match self.logarithmic {
            true => LOGARITHMIC.contains(value),
            false => value.is_finite(),
        });
        let extent = usable.fold(None, |extent: Option<(f64, f64)>, value| {
            let (low, high) = extent.unwrap_or((value, value));
            Some((low.min(value), high.max(value)))
        });
        let (low, high) = match (self.range, extent) {
            (Some(range), _) => range,
            (None, Some(extent)) => self.rounded(extent),
            (None, None) => (if self.logarithmic { 0.1 } else { 0.0 }, 1.0),
        };
        Span {
            low,
            high,
            logarithmic: self.logarithmic,
            from,
            to,
        }
    }

    fn rounded(&self, (low, high): (f64, f64)) -> (f64, f64) {
        if self.logarithmic {
            // Up from the next round number below, to the next one above.
            let (low, high) = (1.0 / nice(1.0 / low), nice(high));
            return (low, high.max(low * 10.0));
        }
        let low = if self.from_zero { low.min(0.0) } else { low };
        let width = match high - low {
            width if width > 0.0 => width,
            _ => high.abs().max(1.0),
        };
        let step = nice(width / MARKS);
        let low = (low / step).floor() * step;
        (low, ((high / step).ceil() * step).max(low + step))
    }

    /// What stands at a mark.
    pub(crate) fn text(&self, value: f64) -> String {
        match self.percent {
            true => format!("{} %", number(value * 100.0)),
            false => format!("{}{}", number(value), self.unit),
        }
    }
}

/// Where values lie.
pub(crate) struct Span {
    pub(crate) low: f64,
    pub(crate) high: f64,
    logarithmic: bool,
    from: f64,
    to: f64,
}

impl Span {
    /// The place of a value; what is beyond an end lies on it.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        let share = match self.logarithmic {
            true => (value / self.low).log10() / (self.high / self.low).log10(),
            false => (value - self.low) / (self.high - self.low),
        };
        self.from + share * (self.to - self.from)
    }

    /// Round numbers along it.
    pub(crate) fn marks(&self) -> Vec<f64> {
        if self.logarithmic {
            return self.logarithmic_marks();
        }
        let step = nice((self.high - self.low) / MARKS);
        let first = (self.low / step - 1e-9).ceil();
        (0..)
            .map(|number| (first + f64::from(number)) * step)
            .take_while(|mark| *mark <= self.high + step * 1e-9)
            .collect()
    }

    fn logarithmic_marks(&self) -> Vec<f64> {
        let first = self.low.log10().floor() as i32;
        let last = (self.high.log10().ceil() as i32).min(first + DECADES_MAX);
        let inside =
            |mark: &f64| (self.low * (1.0 - 1e-9)..=self.high * (1.0 + 1e-9)).contains(mark);
        let marks = |factors: &'static [f64]| -> Vec<f64> {
            let decades = (first..=last).map(|power| 10_f64.powi(power));
            let marks =
                decades.flat_map(|decade| factors.iter().map(move |factor| decade * factor));
            marks.filter(inside).collect()
        };
        let fine = marks(&[1.0, 2.0, 5.0]);
        if fine.len() <= LOGARITHMIC_MARKS_MAX {
            return fine;
        }
        marks(&[1.0])
    }
}

/// The next of 1, 2 and 5 times a power of ten.
fn nice(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|factor| factor * power >= least * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_at_round_numbers() {
        for (least, expected) in [(0.2, 0.2), (1.1, 2.0), (2.0, 2.0), (3.0, 5.0), (7.0, 10.0)] {
            assert!((nice(least) - expected).abs() < 1e-9, "{least}");
        }
        let axis = Axis::linear("requests");
        let span = axis.span([0.3, 9.7].into_iter(), 0.0, 100.0);
        assert_eq!(span.marks(), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        let axis = Axis::logarithmic("seconds");
        let span = axis.span([0.02, 700.0].into_iter(), 0.0, 100.0);
        let marks: Vec<String> = span.marks().into_iter().map(number).collect();
        assert_eq!(marks, ["0.1", "1", "10", "100", "1000"]);
        assert!((span.low - 0.02).abs() < 1e-12 && (span.high - 1000.0).abs() < 1e-9);
        let span = axis.span([0.2, 7.0].into_iter(), 0.0, 100.0);
        let marks: Vec<String> = span.marks().into_iter().map(number).collect();
        assert_eq!(marks, ["0.2", "0.5", "1", "2", "5", "10"]);
    }

    #[test]
    fn every_place_is_a_number_whatever_the_values_are() {
        let odd = [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e300];
        for axis in [
            Axis::linear("x"),
            Axis::logarithmic("x"),
            Axis::linear("x").from_zero(),
        ] {
            for values in [&odd[..], &[], &[5.0, 5.0], &[0.0]] {
                let span = axis.span(values.iter().copied(), 10.0, 200.0);
                for value in [0.0, -3.0, 5.0, 1e300] {
                    let place = span.at(value);
                    assert!(
                        (10.0..=200.0).contains(&place),
                        "{axis:?} {values:?} {place}"
                    );
                }
                assert!(span.marks().len() <= 60, "{axis:?} {values:?}");
            }
        }
    }

    #[test]
    fn fractions_are_shown_as_percentages() {
        assert_eq!(Axis::linear("pass@1").percent().text(0.125), "12.5 %");
        assert_eq!(Axis::linear("wait").unit(" s").text(0.01), "0.01 s");
    }
}
