//! Normalisation over the last dimension, alone or fused with the residual additions before it.

#[expect(unsafe_code, reason = "launches are outside the compiler's view")]
pub mod cuda;

use std::sync::Arc;

use crate::backend::Norm;
use crate::catalog::{Case, CaseSpec, Cost, DeviceResult, Tolerance, random_values};
use crate::cuda::Device;
use crate::element::Element;
use crate::features::InstructionSet;
use crate::ops::add_scaled::add_assign;
use crate::parallel;
use crate::simd::{self, Program, Simd, load_slice};

/// Arguments: `out = norm(hidden) * weight + bias`, rows of `weight.len()` elements.
#[derive(Clone, Copy, Debug)]
pub struct NormArgs<'a> {
    /// `[rows, columns]`.
    pub hidden: &'a [f32],
    /// `[columns]`.
    pub weight: &'a [f32],
    /// `[columns]`, if there is one.
    pub bias: Option<&'a [f32]>,
    /// Which normalisation.
    pub norm: Norm,
}

impl NormArgs<'_> {
    fn check(&self, out: &[f32]) {
        let columns = self.weight.len();
        assert!(columns > 0, "a norm has at least one column");
        assert!(
            self.bias.is_none_or(|bias| bias.len() == columns),
            "bias of norm"
        );
        assert_eq!(self.hidden.len() % self.weight.len(), 0, "inputs of norm");
        assert_eq!(out.len(), self.hidden.len(), "outputs of norm");
    }

    /// Naive norm, statistics in f64; `out` is `[rows, columns]`.
    pub fn reference(&self, out: &mut [f32]) {
        self.check(out);
        let columns = self.weight.len();
        for (row, out) in self
            .hidden
            .chunks_exact(columns)
            .zip(out.chunks_exact_mut(columns))
        {
            let mean_of =
                |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / columns as f64;
            let (mean, epsilon) = match self.norm {
                Norm::Rms { epsilon } => (0.0, epsilon),
                Norm::LayerWithoutBias { epsilon } => (
                    mean_of(&mut row.iter().map(|&value| f64::from(value))),
                    epsilon,
                ),
            };
            let variance = mean_of(&mut row.iter().map(|&value| (f64::from(value) - mean).powi(2)));
            let factor = 1.0 / (variance + f64::from(epsilon)).sqrt();
            for (column, (out, &value)) in out.iter_mut().zip(row).enumerate() {
                let bias = self.bias.map_or(0.0, |bias| f64::from(bias[column]));
                let normed = (f64::from(value) - mean) * factor;
                *out = (normed * f64::from(self.weight[column]) + bias) as f32;
            }
        }
    }

    /// The norm; `out` is `[rows, columns]`.
    pub fn run(&self, instructions: InstructionSet, out: &mut [f32]) {
        self.check(out);
        let columns = self.weight.len();
        parallel::for_each_rows(out, columns, self.hidden.len() * 4, |first, out| {
            let hidden = &self.hidden[first * columns..][..out.len()];
            let (weight, bias, norm) = (self.weight, self.bias, self.norm);
            simd::dispatch(
                instructions,
                Rows {
                    hidden,
                    weight,
                    bias,
                    norm,
                    out,
                },
            );
        });
    }
}

/// Arguments of the fused form: `hidden += addends`, one after the other, then
/// `out = norm(hidden) * weight`.
#[derive(Debug)]
pub struct AddNormArgs<'a> {
    /// `[rows, columns]`, updated in place.
    pub hidden: &'a mut [f32],
    /// Each `[rows, columns]`, if present.
    pub addends: [Option<&'a [f32]>; 2],
    /// `[columns]`.
    pub weight: &'a [f32],
    /// Which normalisation.
    pub norm: Norm,
}

impl AddNormArgs<'_> {
    /// Naive sum and norm; `out` is `[rows, columns]`.
    pub fn reference(self, out: &mut [f32]) {
        for addend in self.addends.into_iter().flatten() {
            assert_eq!(self.hidden.len(), addend.len(), "addends of add_norm");
            for (hidden, &addend) in self.hidden.iter_mut().zip(addend) {
                *hidden += addend;
            }
        }
        self.norm_args().reference(out);
    }

    /// The sum and its norm; `out` is `[rows, columns]`.
    pub fn run(self, instructions: InstructionSet, out: &mut [f32]) {
        for addend in self.addends.into_iter().flatten() {
            add_assign(instructions, self.hidden, addend);
        }
        self.norm_args().run(instructions, out);
    }

    fn norm_args(&self) -> NormArgs<'_> {
        NormArgs {
            hidden: self.hidden,
            weight: self.weight,
            bias: None,
            norm: self.norm,
        }
    }
}

struct Rows<'a> {
    hidden: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    norm: Norm,
    out: &'a mut [f32],
}

impl Program for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let columns = self.weight.len();
        let rows = self.hidden.chunks_exact(columns);
        for (row, out) in rows.zip(self.out.chunks_exact_mut(columns)) {
            let (mean, epsilon) = match self.norm {
                Norm::Rms { epsilon } => (0.0, epsilon),
                Norm::LayerWithoutBias { epsilon } => {
                    (sum_of_row(simd, row) / columns as f32, epsilon)
                }
            };
            let square = centred_square_sum(simd, row, mean);
            let factor = 1.0 / (square / columns as f32 + epsilon).sqrt();
            for ((out, &value), &weight) in out.iter_mut().zip(row).zip(self.weight) {
                *out = (value - mean) * factor * weight;
            }
            for (out, &bias) in out.iter_mut().zip(self.bias.unwrap_or_default()) {
                *out += bias;
            }
        }
    }
}

#[inline(always)]
fn sum_of_row<S: Simd>(simd: S, row: &[f32]) -> f32 {
    let mut sum = simd.splat(0.0);
    for part in row.chunks(S::LANES) {
        sum = simd.add(sum, load_slice(simd, part));
    }
    simd.sum(sum)
}

/// `sum((x - mean)^2)`.
#[inline(always)]
pub(crate) fn centred_square_sum<S: Simd>(simd: S, row: &[f32], mean: f32) -> f32 {
    let mut sum = simd.splat(0.0);
    let centre = simd.splat(mean);
    let (whole, rest) = row.split_at(row.len() - row.len() % S::LANES);
    for part in whole.chunks_exact(S::LANES) {
        let value = simd.subtract(load_slice(simd, part), centre);
        sum = simd.multiply_add(value, value, sum);
    }
    let mut total = simd.sum(sum);
    for &value in rest {
        total += (value - mean) * (value - mean);
    }
    total
}

struct NormCase {
    hidden: Vec<f32>,
    addends: [Option<Vec<f32>>; 2],
    weight: Vec<f32>,
    norm: Norm,
}

impl NormCase {
    /// The updated residual and the norm of each of the rows from `first` on, side by side.
    fn run(
        &self,
        rows: std::ops::Range<usize>,
        run: impl FnOnce(AddNormArgs<'_>, &mut [f32]),
    ) -> Vec<f32> {
        let columns = self.weight.len();
        let range = rows.start * columns..rows.end * columns;
        let mut hidden = self.hidden[range.clone()].to_vec();
        let mut out = vec![0.0; hidden.len()];
        let addends = [&self.addends[0], &self.addends[1]]
            .map(|addend| addend.as_ref().map(|addend| &addend[range.clone()]));
        let (weight, norm) = (&self.weight, self.norm);
        run(
            AddNormArgs {
                hidden: &mut hidden,
                addends,
                weight,
                norm,
            },
            &mut out,
        );
        let rows = hidden.chunks(columns).zip(out.chunks(columns));
        rows.flat_map(|(hidden, out)| [hidden, out].concat())
            .collect()
    }
}

impl Case for NormCase {
    fn rows(&self) -> usize {
        self.hidden.len() / self.weight.len()
    }

    fn reference(&self) -> Vec<f32> {
        self.run(0..self.rows(), |args, out| args.reference(out))
    }

    fn cpu(&self, instructions: InstructionSet) -> Vec<f32> {
        self.run(0..self.rows(), |args, out| args.run(instructions, out))
    }

    fn cpu_row(&self, instructions: InstructionSet, row: usize) -> Vec<f32> {
        self.run(row..row + 1, |args, out| args.run(instructions, out))
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::of(Element::F32)
    }

    fn cost(&self) -> Cost {
        Cost {
            multiply_adds: self.hidden.len() * 2,
            bytes: 0,
        }
    }

    fn device<'a>(&'a self, device: &'a Arc<dyn Device>) -> Option<DeviceResult<'a>> {
        Some(cuda::device(self, device))
    }
}

/// Shapes `[rows, columns]`, both norms, with and without addends.
pub fn cases() -> Vec<CaseSpec> {
    let shapes = [
        (1, 1),
        (3, 7),
        (2, 17),
        (0, 64),
        (5, 2048),
        (70, 2048),
        (2, 2049),
    ];
    let norms = [
        Norm::Rms { epsilon: 1e-6 },
        Norm::LayerWithoutBias { epsilon: 1e-5 },
    ];
    let mut cases = Vec::new();
    for (rows, columns) in shapes {
        for (norm, addends) in norms
            .into_iter()
            .flat_map(|norm| [0, 1, 2].map(|n| (norm, n)))
        {
            cases.push(case((rows, columns), norm, addends));
        }
    }
    for rows in [1, 8, 64, 256, 8192] {
        cases.push(case((rows, 2048), norms[0], 2).only_for_benchmarks());
    }
    cases
}

fn case((rows, columns): (usize, usize), norm: Norm, addends: u64) -> CaseSpec {
    let label = format!("[{rows}, {columns}], {addends} addends, {norm:?}");
    let values = move |seed| random_values(seed, rows * columns, 3.0);
    CaseSpec::new(label, move || NormCase {
        hidden: values(1),
        addends: [2, 3].map(|seed| (seed < 2 + addends).then(|| values(seed))),
        weight: random_values(4, columns, 1.0),
        norm,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bias_is_added_to_what_is_normed() {
        let [hidden, weight, bias] =
            [(1, 5 * 37), (2, 37), (3, 37)].map(|(seed, len)| random_values(seed, len, 2.0));
        let args = NormArgs {
            hidden: &hidden,
            weight: &weight,
            bias: Some(&bias),
            norm: Norm::LayerWithoutBias { epsilon: 1e-6 },
        };
        let mut expected = vec![0.0; hidden.len()];
        args.reference(&mut expected);
        for instructions in InstructionSet::available() {
            let [mut actual, mut without] = [expected.clone(), expected.clone()];
            args.run(instructions, &mut actual);
            let violation = Tolerance::of(Element::F32).violation(&expected, &actual, 37);
            assert_eq!(violation, None);
            NormArgs { bias: None, ..args }.run(instructions, &mut without);
            let sums = without.iter().zip(bias.iter().cycle());
            assert!(sums.map(|(normed, bias)| normed + bias).eq(actual));
        }
    }
}
