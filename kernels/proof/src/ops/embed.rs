//! Rows of the embedding table for the batch's tokens.

mod device;

use std::sync::Arc;

use backstop_card::Device;
use backstop_kernels::ops::embed::EmbedArgs;
use backstop_kernels::random::random_indices;
use backstop_kernels::{CpuMatrix, Element, InstructionSet};

use crate::catalog::{Case, CaseSpec, Cost, DeviceResult, Tolerance};
use crate::weights::random_matrix;

/// Naive rows; `out` is `[tokens, hidden]`.
pub fn reference(args: &EmbedArgs<'_>, out: &mut [f32]) {
    args.check(out);
    for (&token, row) in args
        .tokens
        .iter()
        .zip(out.chunks_exact_mut(args.table.columns()))
    {
        args.table.widen_row(token as usize, row);
    }
}

struct EmbedCase {
    table: CpuMatrix,
    tokens: Vec<u32>,
}

impl EmbedCase {
    fn run(&self, tokens: &[u32], run: impl FnOnce(&EmbedArgs<'_>, &mut [f32])) -> Vec<f32> {
        let mut out = vec![0.0; tokens.len() * self.table.columns()];
        run(
            &EmbedArgs {
                table: self.table.view(),
                tokens,
            },
            &mut out,
        );
        out
    }
}

impl Case for EmbedCase {
    fn rows(&self) -> usize {
        self.tokens.len()
    }

    fn reference(&self) -> Vec<f32> {
        self.run(&self.tokens, reference)
    }

    fn cpu(&self, instructions: InstructionSet) -> Vec<f32> {
        self.run(&self.tokens, |args, out| args.run(instructions, out))
    }

    fn cpu_row(&self, instructions: InstructionSet, row: usize) -> Vec<f32> {
        self.run(&self.tokens[row..=row], |args, out| {
            args.run(instructions, out)
        })
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::EXACT
    }

    fn cost(&self) -> Cost {
        let bytes = self.tokens.len() * self.table.columns() * self.table.view().element().bytes();
        Cost {
            multiply_adds: 0,
            bytes,
        }
    }

    fn device<'a>(&'a self, device: &'a Arc<dyn Device>) -> Option<DeviceResult<'a>> {
        device::device(self, device)
    }
}

/// Shapes `[vocabulary, hidden]` and numbers of tokens.
pub fn cases() -> Vec<CaseSpec> {
    let shapes = [(1, 1, 1), (7, 5, 0), (300, 33, 9), (512, 2048, 130)];
    let mut cases = Vec::new();
    for (vocabulary, hidden, tokens) in shapes {
        for element in [Element::F32, Element::BF16] {
            let label = format!("{element:?} [{vocabulary}, {hidden}] of {tokens} tokens");
            cases.push(CaseSpec::new(label, move || EmbedCase {
                table: random_matrix(1, vocabulary, hidden, element),
                tokens: random_indices(2, tokens, vocabulary),
            }));
        }
    }
    cases
}
