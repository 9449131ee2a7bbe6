//! Rows of the embedding table for the batch's tokens.

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
    /// Panics unless the parts agree.
    pub fn check(&self, out: &[f32]) {
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
