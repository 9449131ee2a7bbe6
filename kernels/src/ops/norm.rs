//! Normalisation over the last dimension, alone or fused with the residual additions before it.

use crate::backend::Norm;
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
    /// Panics unless the parts agree.
    pub fn check(&self, out: &[f32]) {
        let columns = self.weight.len();
        assert!(columns > 0, "a norm has at least one column");
        assert!(
            self.bias.is_none_or(|bias| bias.len() == columns),
            "bias of norm"
        );
        assert_eq!(self.hidden.len() % self.weight.len(), 0, "inputs of norm");
        assert_eq!(out.len(), self.hidden.len(), "outputs of norm");
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
    /// The sum and its norm; `out` is `[rows, columns]`.
    pub fn run(self, instructions: InstructionSet, out: &mut [f32]) {
        for addend in self.addends.into_iter().flatten() {
            add_assign(instructions, self.hidden, addend);
        }
        self.norm_args().run(instructions, out);
    }

    /// The norm of what the sums are.
    pub fn norm_args(&self) -> NormArgs<'_> {
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
