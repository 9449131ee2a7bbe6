//! Logits of the rows that the batch samples.

use crate::features::InstructionSet;
use crate::gemm::{InputRows, Product, WeightView};

/// Arguments: `out = (input[rows] * weight^T) * scale`.
#[derive(Clone, Copy, Debug)]
pub struct HeadArgs<'a> {
    /// `[tokens, hidden]`.
    pub input: &'a [f32],
    /// Rows of `input` whose logits are wanted.
    pub rows: &'a [u32],
    /// `[vocabulary, hidden]`.
    pub weight: WeightView<'a>,
    /// Factor on all logits.
    pub scale: f32,
}

impl<'a> HeadArgs<'a> {
    /// The product that the logits are.
    pub fn product(&self) -> Product<'a> {
        let all = InputRows::all(self.input, self.weight.columns());
        let tokens = all.count();
        assert!(
            self.rows.iter().all(|&row| (row as usize) < tokens),
            "rows of head"
        );
        let input = InputRows {
            index: Some(self.rows),
            ..all
        };
        Product {
            factor: self.scale,
            ..Product::new(self.weight, input)
        }
    }

    /// The logits; `out` is `[rows, vocabulary]`.
    pub fn run(&self, instructions: InstructionSet, out: &mut [f32]) {
        self.product().run(instructions, out);
    }
}
