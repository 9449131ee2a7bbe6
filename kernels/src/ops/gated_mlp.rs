//! The gated feed-forward block `down(silu(gate(x)) * up(x))` (Shazeer 2020).

pub(crate) mod cuda;

use std::sync::Arc;

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
            .flat_map(swiglu_reference)
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
            swiglu(instructions, gated, width, inner);
            LinearArgs {
                input: inner,
                weight: down,
                bias: None,
            }
            .run(instructions, out);
        });
    }
}

/// `silu(gate) * up` of one row that holds both.
pub(crate) fn swiglu_reference(row: &[f32]) -> Vec<f32> {
    let (gate, up) = row.split_at(row.len() / 2);
    gate.iter()
        .zip(up)
        .map(|(&gate, &up)| gate / (1.0 + (-gate).exp()) * up)
        .collect()
}

/// `silu(gate) * up` of each row of `gated`, `[rows, 2 * width]`; `out` is `[rows, width]`.
pub(crate) fn swiglu(instructions: InstructionSet, gated: &[f32], width: usize, out: &mut [f32]) {
    assert_eq!(gated.len(), 2 * out.len(), "inputs of swiglu");
    parallel::for_each_rows(out, width, out.len() * 16, |first, out| {
        let gated = &gated[first * 2 * width..][..out.len() * 2];
        simd::dispatch(instructions, Swiglu { gated, width, out });
    });
}

struct Swiglu<'a> {
    gated: &'a [f32],
    width: usize,
    out: &'a mut [f32],
}

impl Program for Swiglu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let rows = self.gated.chunks_exact(2 * self.width);
        for (row, out) in rows.zip(self.out.chunks_exact_mut(self.width)) {
            let (gate, up) = row.split_at(self.width);
            let parts = gate.chunks(S::LANES).zip(up.chunks(S::LANES));
            for ((gate, up), out) in parts.zip(out.chunks_mut(S::LANES)) {
                let gate = load_slice(simd, gate);
                let decay = simd.exp(simd.subtract(simd.splat(0.0), gate));
                let silu = simd.divide(gate, simd.add(simd.splat(1.0), decay));
                store_slice(simd, out, simd.multiply(silu, load_slice(simd, up)));
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
