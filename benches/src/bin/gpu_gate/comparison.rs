//! How far the log-probabilities of answers are from those of others that should be the same.

use std::io;

use serde_json::{Map, Value, json};

/// How far log-probabilities may be off, on average and at most. The device rounds activations to
/// BF16 where the CPU has f32; with FP8 experts, such a difference can become a step of E4M3.
pub(crate) struct Tolerance {
    mean: f64,
    largest: f64,
}

pub(crate) const BF16: Tolerance = Tolerance {
    mean: 0.02,
    largest: 0.15,
};
pub(crate) const FP8: Tolerance = Tolerance {
    mean: 0.06,
    largest: 0.6,
};

/// What an answer's log-probabilities say of one position.
struct Position {
    token: String,
    likely: Map<String, Value>,
}

/// How an answer compares with the CPU's.
#[derive(Default)]
pub(crate) struct Comparison {
    pub(crate) positions: usize,
    /// Answers that took the other one of two about equally likely tokens.
    near_ties: usize,
    sum: f64,
    count: usize,
    largest: f64,
    wrong: Option<String>,
    /// Answers alone were those among others.
    same: bool,
}

impl Comparison {
    /// None yet; `same` says whether answers alone were those among others.
    pub(crate) fn new(same: bool) -> Self {
        Self {
            same,
            ..Self::default()
        }
    }

    /// Adds an answer, up to where it takes another token.
    pub(crate) fn add(&mut self, expected: &Value, actual: &Value) -> io::Result<()> {
        self.add_positions(&positions(expected)?, &positions(actual)?);
        Ok(())
    }

    fn add_positions(&mut self, expected: &[Position], actual: &[Position]) {
        for (index, expected) in expected.iter().enumerate() {
            let Some(actual) = actual.get(index) else {
                // Tokens without a text, such as special ones, are not shown at the end.
                self.wrong
                    .get_or_insert(format!("an answer ends at position {index}"));
                return;
            };
            let mut largest = 0f64;
            for (token, logprob) in &expected.likely {
                let (Some(expected), Some(actual)) = (
                    logprob.as_f64(),
                    actual.likely.get(token).and_then(Value::as_f64),
                ) else {
                    continue;
                };
                let difference = (expected - actual).abs();
                largest = if difference.is_nan() {
                    difference
                } else {
                    largest.max(difference)
                };
                self.sum += difference;
                self.count += 1;
            }
            self.largest = if largest.is_nan() {
                largest
            } else {
                self.largest.max(largest)
            };
            self.positions += 1;
            if expected.token == actual.token {
                continue;
            }
            self.near_ties += 1;
            let of = |token: &str| expected.likely.get(token).and_then(Value::as_f64);
            // Another token is right only if it was about as likely.
            match of(&expected.token).zip(of(&actual.token)) {
                Some((best, other)) if best - other <= 2.0 * largest => {}
                _ => {
                    let (wanted, got) = (&expected.token, &actual.token);
                    self.wrong.get_or_insert(format!(
                        "position {index} of an answer is {got:?}, not {wanted:?}"
                    ));
                }
            }
            break;
        }
    }

    fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }

    /// What is wrong, if anything.
    pub(crate) fn failure(&self, tolerance: &Tolerance) -> Option<String> {
        if let Some(failure) = &self.wrong {
            return Some(failure.clone());
        }
        let (mean, largest) = (self.mean(), self.largest);
        // Written such that NaN is wrong.
        let close = mean <= tolerance.mean && largest <= tolerance.largest;
        if !close {
            return Some(format!(
                "log-probabilities are off by {mean:.4} on average and {largest:.4} at most, not {} \
                 and {}",
                tolerance.mean, tolerance.largest
            ));
        }
        (!self.same).then(|| "an answer alone differs from the same answer among others".to_owned())
    }

    /// As a row for people.
    pub(crate) fn row(&self, name: &str) -> Vec<String> {
        vec![
            name.to_owned(),
            self.positions.to_string(),
            self.near_ties.to_string(),
            format!("{:.5}", self.mean()),
            format!("{:.5}", self.largest),
            if self.same { "yes" } else { "NO" }.to_owned(),
        ]
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "positions": self.positions,
            "near_ties": self.near_ties,
            "mean_difference": self.mean(),
            "largest_difference": self.largest,
            "alone_equals_among_others": self.same,
        })
    }
}

fn positions(choice: &Value) -> io::Result<Vec<Position>> {
    let list = |name: &str| {
        choice["logprobs"][name]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    let positions: Vec<Position> = list("tokens")
        .iter()
        .zip(list("top_logprobs"))
        .map(|(token, likely)| Position {
            token: token.as_str().unwrap_or_default().to_owned(),
            likely: likely.as_object().cloned().unwrap_or_default(),
        })
        .collect();
    if positions.is_empty() {
        return Err(io::Error::other("an answer without log-probabilities"));
    }
    Ok(positions)
}
