//! The gated feed-forward block `down(silu(gate(x)) * up(x))` (Shazeer 2020), and the activations of
//! such blocks.

use crate::backend::GatedActivation;
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
    /// Rows of the input.
    pub fn tokens(&self) -> usize {
        assert_eq!(
            self.gate_up.rows(),
            2 * self.down.columns(),
            "width of gated_mlp"
        );
        self.input.len() / self.gate_up.columns()
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

/// `activation` of each row of `gated`, `[rows, 2 * width]`; `out` is `[rows, width]`.
pub fn activate(
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
