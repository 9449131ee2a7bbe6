//! How far the second device's ratings of a text are from the first one's.

use backstop_arch::ModelSpec;
use backstop_executor::Probe;
use backstop_kernels::{Residual, VectorId};
use serde::Serialize;

use super::ratings::{Ratings, likeliest, normaliser, walk};

/// The comparison of a text.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Difference {
    /// Tokens of the prompt.
    pub(super) prompt_tokens: usize,
    /// Positions that were compared: the prompt's, and those of the first device's answer.
    pub(super) positions: usize,
    /// Mean magnitude of the differences of the most likely tokens' log-probabilities, each weighted with its
    /// probability on the first device.
    pub(super) mean: f64,
    /// Largest magnitude of a difference among those that are at all likely.
    pub(super) largest: f64,
    /// Positions at which both have the same most likely token.
    pub(super) same_greedy: usize,
    /// The first token of the answer that the second device would not have chosen, counted from 0.
    pub(super) first_other_token: Option<usize>,
    /// Of what each norm of the model finds: root of the mean squared difference over that of the first device's.
    pub(super) residuals: Vec<LayerDifference>,
}

/// What is before a norm.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LayerDifference {
    /// The tensor of the norm's gain.
    pub(super) before: String,
    /// Relative to the first device's numbers.
    pub(super) relative: f64,
}

/// What lies further below the most likely token is rated by what is lost in rounding.
const LIKELY: f32 = 10.0;

/// Lets the second device rate what the first one rated.
pub(super) fn measure(
    probe: &mut Probe,
    expected: &Ratings,
    spec: &ModelSpec,
) -> Result<Difference, String> {
    let mut difference = Difference {
        prompt_tokens: expected.prompt_len,
        positions: expected.tokens.len(),
        ..Difference::default()
    };
    let mut residuals = Vec::new();
    walk(
        probe,
        &expected.tokens,
        &mut residuals,
        |position, logits| {
            difference.add(position, logits, expected);
        },
    )?;
    difference.mean /= difference.positions as f64;
    difference.residuals = layers(&expected.residuals, &residuals, spec);
    Ok(difference)
}

impl Difference {
    fn add(&mut self, position: usize, logits: &[f32], expected: &Ratings) {
        let next = &expected.next[position];
        let normaliser = normaliser(logits);
        let (mut sum, mut mass) = (0.0, 0.0);
        for &(token, logprob) in next {
            let found = logits[token as usize] - normaliser;
            let magnitude = f64::from((found - logprob).abs());
            let probability = f64::from(logprob).exp();
            sum += magnitude * probability;
            mass += probability;
            if logprob >= next[0].1 - LIKELY {
                self.largest = self.largest.max(magnitude);
            }
        }
        self.mean += sum / mass;
        if likeliest(logits) == next[0].0 {
            self.same_greedy += 1;
        } else if let Some(index) = (position + 1).checked_sub(expected.prompt_len)
            && index < expected.tokens.len() - expected.prompt_len
        {
            self.first_other_token.get_or_insert(index);
        }
    }
}

/// The second device may have computed more rows of the same text.
fn layers(expected: &[Residual], found: &[Residual], spec: &ModelSpec) -> Vec<LayerDifference> {
    let layers = expected.iter().zip(found);
    layers
        .map(|(expected, found)| LayerDifference {
            before: name(expected.before, spec),
            relative: relative(&expected.values, &found.values),
        })
        .collect()
}

fn relative(expected: &[f32], found: &[f32]) -> f64 {
    let pairs = expected.iter().zip(found);
    let (mut difference, mut size) = (0.0, 0.0);
    for (&expected, &found) in pairs {
        difference += f64::from(found - expected).powi(2);
        size += f64::from(expected).powi(2);
    }
    (difference / size.max(f64::MIN_POSITIVE)).sqrt()
}

/// The tensor of a norm's gain.
fn name(gain: VectorId, spec: &ModelSpec) -> String {
    let vector = &spec.weights.vectors[gain.0 as usize];
    vector
        .parts
        .first()
        .map_or_else(String::new, |part| part.name.clone())
}
