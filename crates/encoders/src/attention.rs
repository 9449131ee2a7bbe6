//! Attention in both directions, of texts that lie one behind another.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use candle_nn::{Linear, Module, ops::softmax_last_dim};

use crate::batch::{Batch, Run};
use crate::rotary::Rotary;

/// Scores that are in memory at a time: 16 MiB, and two more such pieces while they are worked on.
const SCORES_MAX: usize = 4 << 20;
/// Queries that are computed together where each sees few keys only; more would compute more scores in vain.
const WINDOW_QUERIES: usize = 256;

/// What a query sees of a text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sight {
    /// Turns queries and keys by their positions.
    pub(crate) rotary: Option<Arc<Rotary>>,
    /// `[heads, 1, 1]`: what is added to a score for each token of distance (ALiBi, Press et al. 2021, in both
    /// directions).
    pub(crate) slopes: Option<Tensor>,
    /// Keys at a greater distance are not seen.
    pub(crate) window: Option<usize>,
}

/// One layer's attention.
#[derive(Clone, Debug)]
pub(crate) struct Attention {
    /// To queries, keys and values one behind another, each of the model's width.
    pub(crate) inward: Linear,
    pub(crate) outward: Linear,
    pub(crate) heads: usize,
    pub(crate) sight: Sight,
}

impl Attention {
    /// From `[tokens, width]` to the same.
    pub(crate) fn apply(&self, x: &Tensor, batch: &Batch<'_>) -> Result<Tensor> {
        let inward = self.inward.forward(x)?;
        let runs = batch.runs.iter().map(|run| {
            let mut queries = (SCORES_MAX / (run.texts * self.heads * run.length)).max(1);
            if self.sight.window.is_some() {
                queries = queries.min(WINDOW_QUERIES);
            }
            self.run(&inward, *run, queries)
        });
        let seen = runs.collect::<Result<Vec<_>>>()?;
        self.outward.forward(&joined(&seen, 0)?)
    }

    /// Texts of one length: from `[tokens, 3 width]` to `[tokens of the run, width]`, so many queries of each at a time.
    fn run(&self, inward: &Tensor, run: Run, step: usize) -> Result<Tensor> {
        let Run {
            start,
            texts,
            length,
        } = run;
        let width = inward.dim(1)? / 3;
        let head = width / self.heads;
        let parts = inward
            .narrow(0, start, texts * length)?
            .reshape((texts, length, 3, self.heads, head))?
            .permute((2, 0, 3, 1, 4))?;
        let turned = |heads: Tensor| match &self.sight.rotary {
            Some(rotary) => rotary.turn(&heads),
            None => Ok(heads),
        };
        let scale = 1.0 / (head as f64).sqrt();
        let queries = (turned(parts.get(0)?.contiguous()?)? * scale)?;
        let keys = turned(parts.get(1)?.contiguous()?)?;
        let values = parts.get(2)?.contiguous()?;
        let pieces = (0..length).step_by(step).map(|from| {
            let count = step.min(length - from);
            self.see(&queries.narrow(2, from, count)?, from, &keys, &values)
        });
        let pieces = pieces.collect::<Result<Vec<_>>>()?;
        joined(&pieces, 2)?
            .transpose(1, 2)?
            .reshape((texts * length, width))
    }

    /// What queries `[texts, heads, some, head]` from this place on see of all keys and values.
    fn see(&self, queries: &Tensor, from: usize, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
        let (count, length) = (queries.dim(2)?, keys.dim(2)?);
        let window = self.sight.window.unwrap_or(length);
        let first = from.saturating_sub(window);
        let end = (from + count).saturating_add(window).min(length);
        let keys = keys.narrow(2, first, end - first)?;
        let values = values.narrow(2, first, end - first)?;
        let mut scores = queries.contiguous()?.matmul(&keys.transpose(2, 3)?)?;
        let distances = Distances {
            queries: from..from + count,
            keys: first..end,
        };
        if let Some(slopes) = &self.sight.slopes {
            let distance = distances.tensor(|distance| -(distance as f32), queries.device())?;
            scores = scores.broadcast_add(&slopes.broadcast_mul(&distance)?)?;
        }
        if distances.greatest() > window {
            let hide = |distance| match distance > window {
                true => f32::NEG_INFINITY,
                false => 0.0,
            };
            scores = scores.broadcast_add(&distances.tensor(hide, queries.device())?)?;
        }
        softmax_last_dim(&scores)?.matmul(&values.contiguous()?)
    }
}

/// How far keys are from queries.
struct Distances {
    queries: std::ops::Range<usize>,
    keys: std::ops::Range<usize>,
}

impl Distances {
    fn greatest(&self) -> usize {
        let ahead = (self.keys.end - 1).saturating_sub(self.queries.start);
        let behind = (self.queries.end - 1).saturating_sub(self.keys.start);
        ahead.max(behind)
    }

    /// `[queries, keys]`: a function of each distance.
    fn tensor(&self, function: impl Fn(usize) -> f32, device: &Device) -> Result<Tensor> {
        let keys = self.keys.clone();
        let rows = self.queries.clone().flat_map(|query| {
            let function = &function;
            keys.clone().map(move |key| function(query.abs_diff(key)))
        });
        let shape = (self.queries.len(), self.keys.len());
        Tensor::from_vec(rows.collect::<Vec<f32>>(), shape, device)
    }
}

/// One behind another, without a copy if there is only one.
pub(crate) fn joined(parts: &[Tensor], dimension: usize) -> Result<Tensor> {
    match parts {
        [only] => Ok(only.clone()),
        several => Tensor::cat(several, dimension),
    }
}

/// What ALiBi adds for each token of distance, by head: a geometric sequence, and for numbers of heads that are no
/// power of two every second one of the sequence for twice as many (`get_slopes` of the paper's code).
pub(crate) fn alibi_slopes(heads: usize) -> Vec<f32> {
    let sequence = |heads: usize| {
        (1..=heads).map(move |head| 2f64.powf(-8.0 * head as f64 / heads as f64) as f32)
    };
    let below = match heads.is_power_of_two() {
        true => heads,
        false => heads.next_power_of_two() / 2,
    };
    let between = sequence(2 * below).step_by(2).take(heads - below);
    sequence(below).chain(between).collect()
}

/// The slopes as [`Sight::slopes`].
pub(crate) fn slopes_tensor(heads: usize, device: &Device) -> Result<Tensor> {
    Tensor::from_vec(alibi_slopes(heads), (heads, 1, 1), device)
}

/// The width of a head, if the heads share the width evenly.
pub(crate) fn head_width(width: usize, heads: usize) -> Option<usize> {
    (heads > 0 && width.is_multiple_of(heads)).then(|| width / heads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_of_twelve_heads_are_those_of_eight_and_four_between() {
        let slopes = alibi_slopes(12);
        let exponents: Vec<f32> = slopes.iter().map(|slope| -slope.log2()).collect();
        assert_eq!(
            exponents,
            [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 0.5, 1.5, 2.5, 3.5]
        );
        assert_eq!(alibi_slopes(2), [1.0 / 16.0, 1.0 / 256.0]);
    }

    /// Rows of what four heads see of two texts of 11 tokens, so many queries at a time.
    fn seen(sight: Sight, step: usize) -> Vec<Vec<f32>> {
        let number = |at: usize| ((at * 7919 % 1009) as f32 / 500.0 - 1.0) * 1.5;
        let table = |rows: usize, columns: usize| {
            let numbers = (0..rows * columns).map(number).collect();
            Tensor::from_vec(numbers, (rows, columns), &Device::Cpu).unwrap()
        };
        let attention = Attention {
            inward: Linear::new(table(1, 1), None),
            outward: Linear::new(table(1, 1), None),
            heads: 4,
            sight,
        };
        let run = Run {
            start: 1,
            texts: 2,
            length: 11,
        };
        let seen = attention.run(&table(24, 3 * 16), run, step).unwrap();
        seen.to_vec2().unwrap()
    }

    /// The same, one query and one key after the other.
    fn seen_plainly(window: usize, slopes: &[f32]) -> Vec<Vec<f32>> {
        let number = |at: usize| ((at * 7919 % 1009) as f32 / 500.0 - 1.0) * 1.5;
        let part = |row: usize, part: usize, at: usize| number(row * 48 + part * 16 + at);
        let output = |row: usize, at: usize| {
            let (text, head) = (1 + (row - 1) / 11 * 11, at / 4);
            let keys = (text..text + 11).filter(|key| key.abs_diff(row) <= window);
            let weighed = keys.map(|key| {
                let products =
                    (head * 4..head * 4 + 4).map(|at| part(row, 0, at) * part(key, 1, at));
                let slope = slopes.get(head).copied().unwrap_or(0.0);
                let score = products.sum::<f32>() / 2.0 - slope * key.abs_diff(row) as f32;
                (f64::from(score).exp(), f64::from(part(key, 2, at)))
            });
            let (sum, total) = weighed.fold((0.0, 0.0), |(sum, total), (weight, value)| {
                (sum + weight * value, total + weight)
            });
            (sum / total) as f32
        };
        let rows = 1..23;
        rows.map(|row| (0..16).map(|at| output(row, at)).collect())
            .collect()
    }

    #[test]
    fn some_queries_at_a_time_see_what_all_see() {
        let slopes = alibi_slopes(4);
        for step in [1, 2, 5, 11] {
            for (window, slopes) in [(None, &[][..]), (Some(3), &[]), (None, &slopes)] {
                let tensor = slopes_tensor(4, &Device::Cpu).unwrap();
                let sight = Sight {
                    rotary: None,
                    slopes: (!slopes.is_empty()).then_some(tensor),
                    window,
                };
                let expected = seen_plainly(window.unwrap_or(usize::MAX), slopes);
                let both = seen(sight, step)
                    .concat()
                    .into_iter()
                    .zip(expected.concat());
                for (got, expected) in both {
                    assert!((got - expected).abs() < 1e-5, "{got} {expected}");
                }
            }
        }
    }

    #[test]
    fn the_greatest_distance_is_that_of_the_corners() {
        let distances = Distances {
            queries: 4..6,
            keys: 1..9,
        };
        assert_eq!(distances.greatest(), 4);
        let tensor = distances
            .tensor(|distance| distance as f32, &Device::Cpu)
            .unwrap();
        let rows: Vec<Vec<f32>> = tensor.to_vec2().unwrap();
        assert_eq!(rows[0], [3.0, 2.0, 1.0, 0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(rows[1][7], 3.0);
    }
}
