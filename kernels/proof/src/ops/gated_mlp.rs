//! The gated feed-forward block `down(silu(gate(x)) * up(x))` (Shazeer 2020), and the activations of
//! such blocks.

mod device;

use std::sync::Arc;

use backstop_card::Device;
use backstop_kernels::backend::GatedActivation;
use backstop_kernels::ops::gated_mlp::GatedMlpArgs;
use backstop_kernels::ops::linear::LinearArgs;
use backstop_kernels::random::random_values;
use backstop_kernels::{CpuMatrix, Element, InstructionSet};

use crate::catalog::{Case, CaseSpec, Cost, DeviceResult, Tolerance};
use crate::ops::linear;
use crate::weights::random_matrix;

/// Naive block; `out` is `[tokens, hidden]`.
pub fn reference(args: &GatedMlpArgs<'_>, out: &mut [f32]) {
    let width = args.down.columns();
    let mut gated = vec![0.0; args.tokens() * 2 * width];
    let product = LinearArgs {
        input: args.input,
        weight: args.gate_up,
        bias: None,
    };
    linear::reference(&product, &mut gated);
    let inner: Vec<f32> = gated
        .chunks_exact(2 * width)
        .flat_map(|row| activated_reference(row, GatedActivation::Swiglu))
        .collect();
    let product = LinearArgs {
        input: &inner,
        weight: args.down,
        bias: None,
    };
    linear::reference(&product, out);
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
        self.run(&self.input, reference)
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
        device::device(self, device)
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
                gate_up: random_matrix(2, 2 * width, hidden, element),
                down: random_matrix(3, hidden, width, element),
            }));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstop_kernels::ops::gated_mlp::activate;

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
