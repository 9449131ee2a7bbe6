//! The gated feed-forward block `down(silu(gate(x)) * up(x))` (Shazeer 2020), and the activations of
//! such blocks.

pub(crate) mod cuda;

use std::sync::Arc;

use crate::backend::GatedActivation;
use crate::catalog::{Case, CaseSpec, Cost, DeviceResult, Tolerance, random_values};
use crate::cpu::CpuMatrix;
use crate::cuda::Device;
use crate::element::Element;
use crate::features::InstructionSet;
use crate::gemm::WeightView;
use crate::ops::linear::LinearArgs;
use crate::parallel;
use crate::scratch::with_scratch;
use crate::simd::{self, Program, Simd, load_slice, store_slice};

/// Arguments.
#[derive(Clone, Copy, Debug)]
pub struct GatedMlpArgs<'a> {
    /// `[tokens, hidden]`.
    pub input: &'a [f32],
    /// `[2 * width, hidden]`, gate rows before up rows.
    pub gate_up: WeightView<'a>,
    /// `[hidden, width]`.
    pub down: WeightView<'a>,
}

impl GatedMlpArgs<'_> {
    fn tokens(&self) -> usize {
        assert_eq!(
            self.gate_up.rows(),
            2 * self.down.columns(),
            "width of gated_mlp"
        );
        self.input.len() / self.gate_up.columns()
    }

    /// Naive block; `out` is `[tokens, hidden]`.
    pub fn reference(&self, out: &mut [f32]) {
        let width = self.down.columns();
        let mut gated = vec![0.0; self.tokens() * 2 * width];
        LinearArgs {
            input: self.input,
            weight: self.gate_up,
            bias: None,
        }
        .reference(&mut gated);
        let inner: Vec<f32> = gated
            .chunks_exact(2 * width)
            .flat_map(|row| activated_reference(row, GatedActivation::Swiglu))
            .collect();
        LinearArgs {
            input: &inner,
            weight: self.down,
            bias: None,
        }
        .reference(out);
    }

    /// The block; `out` is `[tokens, hidden]`.
    pub fn run(&self, instructions: InstructionSet, out: &mut [f32]) {
        let (tokens, width) = (self.tokens(), self.down.columns());
        with_scratch(tokens * 3 * width, |scratch| {
            let (gated, inner) = scratch.split_at_mut(tokens * 2 * width);
            let Self {
                input,
                gate_up,
                down,
            } = *self;
            LinearArgs {
                input,
                weight: gate_up,
                bias: None,
            }
            .run(instructions, gated);
            activate(instructions, GatedActivation::Swiglu, gated, width, inner);
            LinearArgs {
                input: inner,
                weight: down,
                bias: None,
            }
            .run(instructions, out);
        });
    }
}

/// `activation` of one row that holds gate and up.
pub(crate) fn activated_reference(row: &[f32], activation: GatedActivation) -> Vec<f32> {
    let (gate, up) = row.split_at(row.len() / 2);
    let activated = |(&gate, &up): (&f32, &f32)| match activation {
        GatedActivation::Swiglu => gate / (1.0 + (-gate).exp()) * up,
        GatedActivation::ClampedSwiglu { alpha, limit } => {
            let gate = if gate > limit { limit } else { gate };
            let up = up.clamp(-limit, limit);
            gate / (1.0 + (-alpha * gate).exp()) * (up + 1.0)
        }
    };
    gate.iter().zip(up).map(activated).collect()
}

/// `activation` of each row of `gated`, `[rows, 2 * width]`; `out` is `[rows, width]`.
pub(crate) fn activate(
    instructions: InstructionSet,
    activation: GatedActivation,
    gated: &[f32],
    width: usize,
    out: &mut [f32],
) {
    assert_eq!(gated.len(), 2 * out.len(), "inputs of an activation");
    parallel::for_each_rows(out, width, out.len() * 16, |first, out| {
        let gated = &gated[first * 2 * width..][..out.len() * 2];
        let rows = Activate {
            activation,
            gated,
            width,
            out,
        };
        simd::dispatch(instructions, rows);
    });
}

struct Activate<'a> {
    activation: GatedActivation,
    gated: &'a [f32],
    width: usize,
    out: &'a mut [f32],
}

impl Program for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.activation {
            GatedActivation::Swiglu => self.rows(simd, |gate, up| {
                let decay = simd.exp(simd.subtract(simd.splat(0.0), gate));
                let silu = simd.divide(gate, simd.add(simd.splat(1.0), decay));
                simd.multiply(silu, up)
            }),
            GatedActivation::ClampedSwiglu { alpha, limit } => self.rows(simd, |gate, up| {
                let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
                // What is not a number stays so: it is the second operand of each comparison.
                let lowest = simd.splat(-limit);
                let at_most = |value| {
                    let negated = simd.subtract(zero, value);
                    simd.subtract(zero, simd.maximum(lowest, negated))
                };
                let gate = at_most(gate);
                let up = simd.maximum(lowest, at_most(up));
                let decay = simd.exp(simd.multiply(simd.splat(-alpha), gate));
                let gate = simd.divide(gate, simd.add(one, decay));
                simd.multiply(gate, simd.add(up, one))
            }),
        }
    }
}

impl Activate<'_> {
    #[inline(always)]
    fn rows<S: Simd>(self, simd: S, activated: impl Fn(S::Vector, S::Vector) -> S::Vector) {
        let rows = self.gated.chunks_exact(2 * self.width);
        for (row, out) in rows.zip(self.out.chunks_exact_mut(self.width)) {
            let (gate, up) = row.split_at(self.width);
            let parts = gate.chunks(S::LANES).zip(up.chunks(S::LANES));
            for ((gate, up), out) in parts.zip(out.chunks_mut(S::LANES)) {
                let result = activated(load_slice(simd, gate), load_slice(simd, up));
                store_slice(simd, out, result);
            }
        }
    }
}

struct GatedMlpCase {
    input: Vec<f32>,
    gate_up: CpuMatrix,
    down: CpuMatrix,
}

impl GatedMlpCase {
    fn run(&self, input: &[f32], run: impl FnOnce(&GatedMlpArgs<'_>, &mut [f32])) -> Vec<f32> {
        let mut out = vec![0.0; input.len()];
        let (gate_up, down) = (self.gate_up.view(), self.down.view());
        run(
            &GatedMlpArgs {
                input,
                gate_up,
                down,
            },
            &mut out,
        );
        out
    }
}

impl Case for GatedMlpCase {
    fn rows(&self) -> usize {
        self.input.len() / self.gate_up.columns()
    }

    fn reference(&self) -> Vec<f32> {
        self.run(&self.input, |args, out| args.reference(out))
    }

    fn cpu(&self, instructions: InstructionSet) -> Vec<f32> {
        self.run(&self.input, |args, out| args.run(instructions, out))
    }

    fn cpu_row(&self, instructions: InstructionSet, row: usize) -> Vec<f32> {
        let columns = self.gate_up.columns();
        let input = &self.input[row * columns..][..columns];
        self.run(input, |args, out| args.run(instructions, out))
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::of(self.down.view().element())
    }

    fn cost(&self) -> Cost {
        let weights = 3 * self.down.rows() * self.down.columns();
        let bytes = weights * self.down.view().element().bytes();
        Cost {
            multiply_adds: weights * self.rows(),
            bytes,
        }
    }

    fn device<'a>(&'a self, device: &'a Arc<dyn Device>) -> Option<DeviceResult<'a>> {
        cuda::device(self, device)
    }
}

/// Hidden size, width and number of tokens.
pub fn cases() -> Vec<CaseSpec> {
    let shapes = [
        (1, 1, 1),
        (5, 3, 2),
        (16, 8, 0),
        (65, 33, 11),
        (2048, 3072, 2),
    ];
    let mut cases = Vec::new();
    for (hidden, width, tokens) in shapes {
        for element in [Element::F32, Element::BF16] {
            let label = format!("{element:?} hidden {hidden}, width {width}, {tokens} tokens");
            cases.push(CaseSpec::new(label, move || GatedMlpCase {
                input: random_values(1, tokens * hidden, 2.0),
                gate_up: CpuMatrix::random(2, 2 * width, hidden, element),
                down: CpuMatrix::random(3, hidden, width, element),
            }));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clamped_activations_are_cut_at_the_limit_and_keep_what_is_not_a_number() {
        let (alpha, limit) = (1.702, 7.0);
        let activation = GatedActivation::ClampedSwiglu { alpha, limit };
        let values = [f32::NAN, -30.0, -7.5, -1.0, 0.0, 6.9, 7.1, f32::MAX];
        let pairs: Vec<(f32, f32)> = values
            .iter()
            .flat_map(|&gate| values.map(|up| (gate, up)))
            .collect();
        let gated: Vec<f32> = pairs.iter().flat_map(|&(gate, up)| [gate, up]).collect();
        for instructions in InstructionSet::available() {
            let mut out = vec![0.0; pairs.len()];
            activate(instructions, activation, &gated, 1, &mut out);
            for (&(gate, up), &found) in pairs.iter().zip(&out) {
                let expected = activated_reference(&[gate, up], activation)[0];
                let lost = gate.is_nan() || up.is_nan();
                assert_eq!(found.is_nan(), lost, "{gate}, {up}: {found}");
                let close = (found - expected).abs() <= 1e-5 * expected.abs();
                assert!(lost || close, "{gate}, {up}: {found} instead of {expected}");
            }
        }
        let largest = activated_reference(&[100.0, 100.0], activation)[0];
        assert!((largest - 56.0).abs() < 1e-3, "{largest}");
    }
}
