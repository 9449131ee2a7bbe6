//! Rows of the embedding table for the batch's tokens.

use crate::element::Element;
use crate::element::widen_bf16;
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
            self.table.element() != Element::F8E4M3,
            "an embedding table is F32 or BF16"
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
            for (column, out) in row.iter_mut().enumerate() {
                *out = self.table.read(token as usize, column);
            }
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
            let row = table.row_bytes(token as usize);
            match table.element() {
                Element::BF16 => {
                    for (out, word) in out.iter_mut().zip(row.chunks_exact(2)) {
                        *out = widen_bf16(u16::from_le_bytes([word[0], word[1]]));
                    }
                }
                element => {
                    for (column, out) in out.iter_mut().enumerate() {
                        *out = element.read(row, column);
                    }
                }
            }
        }
    }
}
