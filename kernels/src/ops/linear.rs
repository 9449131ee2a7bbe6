//! `input * weight^T + bias`: weights F32 or BF16, activations, bias and accumulation f32.

use crate::element::Element;
use crate::features::InstructionSet;
use crate::gemm::{InputRows, Product, WeightView};
use crate::parallel;

/// Arguments: `out = input * weight^T + bias`.
#[derive(Clone, Copy, Debug)]
pub struct LinearArgs<'a> {
    /// `[tokens, inputs]`.
    pub input: &'a [f32],
    /// `[outputs, inputs]`.
    pub weight: WeightView<'a>,
    /// `[outputs]`.
    pub bias: Option<&'a [f32]>,
}

impl<'a> LinearArgs<'a> {
    /// The product without the bias.
    pub fn product(&self) -> Product<'a> {
        assert!(
            !self.weight.contains(Element::F8E4M3),
            "only experts are stored in FP8"
        );
        Product::new(
            self.weight,
            InputRows::all(self.input, self.weight.columns()),
        )
    }

    /// The product; `out` is `[tokens, outputs]`.
    pub fn run(&self, instructions: InstructionSet, out: &mut [f32]) {
        self.product().run(instructions, out);
        self.add_bias(out);
    }

    /// Adds the bias, if there is one, to each row.
    pub fn add_bias(&self, out: &mut [f32]) {
        let Some(bias) = self.bias else { return };
        assert_eq!(bias.len(), self.weight.rows(), "bias of linear");
        parallel::for_each_rows(out, bias.len(), out.len(), |_, rows| {
            for row in rows.chunks_exact_mut(bias.len()) {
                for (out, bias) in row.iter_mut().zip(bias) {
                    *out += bias;
                }
            }
        });
    }
}
