//! The gated feed-forward block `down(silu(gate(x)) * up(x))` (Shazeer 2020).

use crate::features::InstructionSet;
use crate::gemm::WeightView;
use crate::ops::linear::LinearArgs;
use crate::parallel;
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
        }
        .reference(&mut gated);
        let inner: Vec<f32> = gated
            .chunks_exact(2 * width)
            .flat_map(swiglu_reference)
            .collect();
        LinearArgs {
            input: &inner,
            weight: self.down,
        }
        .reference(out);
    }

    /// The block; `out` is `[tokens, hidden]`.
    pub fn run(&self, instructions: InstructionSet, out: &mut [f32]) {
        let width = self.down.columns();
        let mut gated = vec![0.0; self.tokens() * 2 * width];
        LinearArgs {
            input: self.input,
            weight: self.gate_up,
        }
        .run(instructions, &mut gated);
        let mut inner = vec![0.0; self.tokens() * width];
        swiglu(instructions, &gated, width, &mut inner);
        LinearArgs {
            input: &inner,
            weight: self.down,
        }
        .run(instructions, out);
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
