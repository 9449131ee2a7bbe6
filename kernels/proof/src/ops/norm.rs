//! Normalisation over the last dimension, alone or fused with the residual additions before it.

mod device;

use std::sync::Arc;

use backstop_card::Device;
use backstop_kernels::backend::Norm;
use backstop_kernels::ops::norm::{AddNormArgs, NormArgs};
use backstop_kernels::random::random_values;
use backstop_kernels::{Element, InstructionSet};

use crate::catalog::{Case, CaseSpec, Cost, DeviceResult, Tolerance};

/// Naive norm, statistics in f64; `out` is `[rows, columns]`.
pub fn reference(args: &NormArgs<'_>, out: &mut [f32]) {
    args.check(out);
    let columns = args.weight.len();
    for (row, out) in args
        .hidden
        .chunks_exact(columns)
        .zip(out.chunks_exact_mut(columns))
    {
        let mean_of = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / columns as f64;
        let (mean, epsilon) = match args.norm {
            Norm::Rms { epsilon } => (0.0, epsilon),
            Norm::LayerWithoutBias { epsilon } => (
                mean_of(&mut row.iter().map(|&value| f64::from(value))),
                epsilon,
            ),
        };
        let variance = mean_of(&mut row.iter().map(|&value| (f64::from(value) - mean).powi(2)));
        let factor = 1.0 / (variance + f64::from(epsilon)).sqrt();
        for (column, (out, &value)) in out.iter_mut().zip(row).enumerate() {
            let bias = args.bias.map_or(0.0, |bias| f64::from(bias[column]));
            let normed = (f64::from(value) - mean) * factor;
            *out = (normed * f64::from(args.weight[column]) + bias) as f32;
        }
    }
}

/// Naive sum and norm; `out` is `[rows, columns]`.
pub fn add_reference(args: AddNormArgs<'_>, out: &mut [f32]) {
    for addend in args.addends.into_iter().flatten() {
        assert_eq!(args.hidden.len(), addend.len(), "addends of add_norm");
        for (hidden, &addend) in args.hidden.iter_mut().zip(addend) {
            *hidden += addend;
        }
    }
    reference(&args.norm_args(), out);
}

/// The rows of both, in turns.
fn side_by_side(hidden: &[f32], out: &[f32], columns: usize) -> Vec<f32> {
    let rows = hidden.chunks(columns).zip(out.chunks(columns));
    rows.flat_map(|(hidden, out)| [hidden, out].concat())
        .collect()
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
        side_by_side(&hidden, &out, columns)
    }
}

impl Case for NormCase {
    fn rows(&self) -> usize {
        self.hidden.len() / self.weight.len()
    }

    fn reference(&self) -> Vec<f32> {
        self.run(0..self.rows(), add_reference)
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
        Some(device::device(self, device))
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
        reference(&args, &mut expected);
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
