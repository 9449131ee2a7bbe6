//! `input * weight^T`: weights F32 or BF16, activations and accumulation f32.

use crate::element::Element;
use crate::features::InstructionSet;
use crate::gemm::{InputRows, Product, WeightView};

/// Arguments: `out = input * weight^T`.
#[derive(Clone, Copy, Debug)]
pub struct LinearArgs<'a> {
    /// `[tokens, inputs]`.
    pub input: &'a [f32],
    /// `[outputs, inputs]`.
    pub weight: WeightView<'a>,
}

impl<'a> LinearArgs<'a> {
    fn product(&self) -> Product<'a> {
        assert!(
            self.weight.element() != Element::F8E4M3,
            "linear weights are F32 or BF16"
        );
        Product::new(
            self.weight,
            InputRows::all(self.input, self.weight.columns()),
        )
    }

    /// Naive product; `out` is `[tokens, outputs]`.
    pub fn reference(&self, out: &mut [f32]) {
        self.product().reference(out);
    }

    /// The product; `out` is `[tokens, outputs]`.
    pub fn run(&self, instructions: InstructionSet, out: &mut [f32]) {
        self.product().run(instructions, out);
    }
}
