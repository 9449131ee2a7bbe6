//! Rows of the embedding table for the batch's tokens.

#[expect(unsafe_code, reason = "launches are outside the compiler's view")]
pub mod cuda;

use std::sync::Arc;

use crate::catalog::{Case, CaseSpec, Cost, DeviceResult, Tolerance, random_indices};
use crate::cpu::CpuMatrix;
use crate::cuda::Device;
use crate::element::Element;
use crate::features::InstructionSet;
use crate::gemm::WeightView;
use crate::parallel;
use crate::simd::{self, Program, Simd};

/// Arguments.
#[derive(Clone, Copy, Debug)]
pub struct EmbedArgs<'a> {
    /// `[vocabulary, hidden]`.
    pub table: WeightView<'a>,
    /// Token ids, each below the vocabulary.
    pub tokens: &'a [u32],
}

impl EmbedArgs<'_> {
    fn check(&self, out: &[f32]) {
        assert_eq!(
            out.len(),
            self.tokens.len() * self.table.columns(),
            "outputs of embed"
        );
        let vocabulary = self.table.rows();
        assert!(
            self.tokens
                .iter()
                .all(|&token| (token as usize) < vocabulary),
            "a token lies outside the vocabulary"
        );
        assert!(
            !self.table.contains(Element::F8E4M3),
            "only experts are stored in FP8"
        );
    }

    /// Naive rows; `out` is `[tokens, hidden]`.
    pub fn reference(&self, out: &mut [f32]) {
        self.check(out);
        for (&token, row) in self
            .tokens
            .iter()
            .zip(out.chunks_exact_mut(self.table.columns()))
        {
            self.table.widen_row(token as usize, row);
        }
    }

    /// The rows; `out` is `[tokens, hidden]`.
    pub fn run(&self, instructions: InstructionSet, out: &mut [f32]) {
        self.check(out);
        parallel::for_each_rows(out, self.table.columns(), out.len(), |first, out| {
            simd::dispatch(
                instructions,
                Rows {
                    args: self,
                    first,
                    out,
                },
            );
        });
    }
}

struct Rows<'a> {
    args: &'a EmbedArgs<'a>,
    first: usize,
    out: &'a mut [f32],
}

impl Program for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let table = self.args.table;
        let tokens = &self.args.tokens[self.first..];
        for (&token, out) in tokens
            .iter()
            .zip(self.out.chunks_exact_mut(table.columns()))
        {
            table.widen_row(token as usize, out);
        }
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
        self.run(&self.tokens, |args, out| args.reference(out))
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
        cuda::device(self, device)
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
                table: CpuMatrix::random(1, vocabulary, hidden, element),
                tokens: random_indices(2, tokens, vocabulary),
            }));
        }
    }
    cases
}
