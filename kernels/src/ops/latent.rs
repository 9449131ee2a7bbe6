//! Latent attention (DeepSeek-AI 2024, "DeepSeek-V2", section 2.1) over a cache of latents.
//!
//! Keys and values of all heads are products of one latent for each position, which alone is
//! cached, with the rotated part of the key that all heads share. Rather than expanding the latents
//! of all positions, queries are carried over to the latents' space, where one key serves all
//! heads, and the weighted sums of latents become values afterwards. That is the same mathematics:
//! `q . (W c) = (W^T q) . c`.
#![expect(
    unsafe_code,
    reason = "tasks write the interleaved places of different heads"
)]

use std::ops::Range;

use crate::backend::LatentShape;
use crate::features::InstructionSet;
use crate::gemm::{InputRows, Product, WeightView};
use crate::ops::norm::centred_square_sum;
use crate::parallel::{self, SharedOutput};
use crate::scratch::with_scratch;
use crate::simd::{self, Program, Simd, load_slice, store_slice};

/// Arguments of the way in: queries, key and value over the latents, as attention takes them:
/// `[rows, (heads + 2) * head_dim]`, where a head begins with what is yet to be rotated.
#[derive(Clone, Copy, Debug)]
pub struct LatentInputArgs<'a> {
    /// `[rows, heads * (content_dim + rope_dim)]`.
    pub queries: &'a [f32],
    /// `[rows, rank + rope_dim]`.
    pub latents: &'a [f32],
    /// `[heads * (content_dim + value_dim), rank]`.
    pub up: WeightView<'a>,
    /// `[rank]`: gain of the latents' RMSNorm.
    pub gain: &'a [f32],
    /// Added to the mean square.
    pub epsilon: f32,
    /// Sizes.
    pub shape: LatentShape,
}

/// Arguments of the way out: values from the weighted sums of latents, `[rows, heads * value_dim]`.
#[derive(Clone, Copy, Debug)]
pub struct LatentOutputArgs<'a> {
    /// `[rows, heads * head_dim]`.
    pub attended: &'a [f32],
    /// `[heads * (content_dim + value_dim), rank]`.
    pub up: WeightView<'a>,
    /// Sizes.
    pub shape: LatentShape,
}

/// The sizes as they are computed with.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Heads of queries.
    pub heads: usize,
    /// Elements of a latent.
    pub rank: usize,
    /// Rotated elements of a head.
    pub rope: usize,
    /// Other elements of a query's head.
    pub content: usize,
    /// Elements of a head's value.
    pub value: usize,
}

impl Sizes {
    /// Panics unless the weights have the shape's size.
    pub fn of(shape: LatentShape, up: WeightView<'_>) -> Self {
        let sizes = Self {
            heads: shape.heads as usize,
            rank: shape.rank as usize,
            rope: shape.rope_dim as usize,
            content: shape.content_dim as usize,
            value: shape.value_dim as usize,
        };
        let rows = sizes.heads * (sizes.content + sizes.value);
        assert_eq!(
            (up.rows(), up.columns()),
            (rows, sizes.rank),
            "weights of latent attention"
        );
        sizes
    }

    /// Elements of a head in the cache.
    pub fn head(&self) -> usize {
        self.rope + self.rank
    }

    /// Columns of the way in's output.
    pub fn columns(&self) -> usize {
        (self.heads + 2) * self.head()
    }

    /// First row of a head's weights for its content; those for its value follow.
    pub fn first_row(&self, head: usize) -> usize {
        head * (self.content + self.value)
    }
}

impl LatentInputArgs<'_> {
    /// Panics unless the parts agree.
    pub fn check(&self, out: &[f32]) -> (Sizes, usize) {
        let sizes = Sizes::of(self.shape, self.up);
        assert_eq!(self.gain.len(), sizes.rank, "gain of the latents");
        let rows = self.latents.len() / (sizes.rank + sizes.rope);
        let query = sizes.heads * (sizes.content + sizes.rope);
        assert_eq!(
            (self.latents.len(), self.queries.len(), out.len()),
            (
                rows * (sizes.rank + sizes.rope),
                rows * query,
                rows * sizes.columns()
            ),
            "inputs and outputs of latent attention"
        );
        (sizes, rows)
    }

    /// The way in.
    pub fn run(&self, instructions: InstructionSet, out: &mut [f32]) {
        let (sizes, rows) = self.check(out);
        let work = rows * sizes.heads * sizes.content * sizes.rank;
        let out = SharedOutput::new(out);
        // One task for each head, and one for key and value.
        parallel::for_each(sizes.heads + 1, work, |head| {
            let part = InputPart {
                args: self,
                sizes,
                rows: 0..rows,
                head,
                out: &out,
            };
            if head == sizes.heads {
                return simd::dispatch(instructions, part.key_and_value());
            }
            with_scratch(sizes.content * sizes.rank, |weights| {
                let first = sizes.first_row(head);
                for (index, weights) in weights.chunks_exact_mut(sizes.rank).enumerate() {
                    self.up.widen_row(first + index, weights);
                }
                simd::dispatch(instructions, CarryOver { part, weights });
            });
        });
    }
}

/// What one task of the way in writes.
struct InputPart<'a> {
    args: &'a LatentInputArgs<'a>,
    sizes: Sizes,
    rows: Range<usize>,
    head: usize,
    out: &'a SharedOutput<'a, f32>,
}

impl<'a> InputPart<'a> {
    fn key_and_value(self) -> KeyAndValue<'a> {
        KeyAndValue(self)
    }

    /// The elements of a row's head.
    #[inline(always)]
    fn place(&self, row: usize, head: usize) -> &'a mut [f32] {
        let start = row * self.sizes.columns() + head * self.sizes.head();
        // SAFETY: tasks have different heads.
        unsafe { self.out.range(start..start + self.sizes.head()) }
    }
}

/// Queries of one head, carried over to the latents.
struct CarryOver<'a> {
    part: InputPart<'a>,
    /// `[content_dim, rank]`.
    weights: &'a [f32],
}

impl Program for CarryOver<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { part, weights } = self;
        let sizes = part.sizes;
        let query_len = sizes.content + sizes.rope;
        for row in part.rows.clone() {
            let query = &part.args.queries[(row * sizes.heads + part.head) * query_len..];
            let (rotated, carried) = part.place(row, part.head).split_at_mut(sizes.rope);
            rotated.copy_from_slice(&query[sizes.content..query_len]);
            carried.fill(0.0);
            for (&query, weights) in query.iter().zip(weights.chunks_exact(sizes.rank)) {
                let factor = simd.splat(query);
                let parts = carried.chunks_mut(S::LANES).zip(weights.chunks(S::LANES));
                for (sum, weights) in parts {
                    let next =
                        simd.multiply_add(factor, load_slice(simd, weights), load_slice(simd, sum));
                    store_slice(simd, sum, next);
                }
            }
        }
    }
}

/// The normed latent behind the shared part, twice.
struct KeyAndValue<'a>(InputPart<'a>);

impl Program for KeyAndValue<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let part = self.0;
        let (sizes, args) = (part.sizes, part.args);
        let columns = sizes.rank + sizes.rope;
        for row in part.rows.clone() {
            let (latent, shared) = args.latents[row * columns..][..columns].split_at(sizes.rank);
            let square = centred_square_sum(simd, latent, 0.0);
            let factor = 1.0 / (square / sizes.rank as f32 + args.epsilon).sqrt();
            for side in 0..2 {
                let (rotated, content) =
                    part.place(row, sizes.heads + side).split_at_mut(sizes.rope);
                rotated.copy_from_slice(shared);
                for ((content, &value), &gain) in content.iter_mut().zip(latent).zip(args.gain) {
                    *content = value * factor * gain;
                }
            }
        }
    }
}

impl LatentOutputArgs<'_> {
    /// Panics unless the parts agree.
    pub fn check(&self, out: &[f32]) -> (Sizes, usize) {
        let sizes = Sizes::of(self.shape, self.up);
        let rows = out.len() / (sizes.heads * sizes.value);
        assert_eq!(
            (self.attended.len(), out.len()),
            (
                rows * sizes.heads * sizes.head(),
                rows * sizes.heads * sizes.value
            ),
            "inputs and outputs of latent attention"
        );
        (sizes, rows)
    }

    /// The product of one head's latents; `inputs` and `outputs` hold that head alone.
    pub fn head_product<'a>(
        &'a self,
        sizes: Sizes,
        head: usize,
        inputs: &'a mut [f32],
    ) -> Product<'a> {
        let rows = inputs.chunks_exact_mut(sizes.rank);
        for (row, input) in rows.enumerate() {
            let attended = &self.attended[(row * sizes.heads + head) * sizes.head()..];
            input.copy_from_slice(&attended[sizes.rope..sizes.head()]);
        }
        let first = sizes.first_row(head) + sizes.content;
        let weights = self.up.part(first, sizes.value);
        Product::new(weights, InputRows::all(inputs, sizes.rank))
    }

    /// The products; `out` is `[rows, heads * value_dim]`.
    pub fn run(&self, instructions: InstructionSet, out: &mut [f32]) {
        self.compute(out, |product, values| product.run(instructions, values));
    }

    /// Computes every head's product with `compute` and puts the heads side by side.
    pub fn compute(&self, out: &mut [f32], compute: impl Fn(&Product<'_>, &mut [f32]) + Sync) {
        let (sizes, rows) = self.check(out);
        let work = rows * sizes.heads * sizes.value * sizes.rank;
        let out = SharedOutput::new(out);
        parallel::for_each(sizes.heads, work, |head| {
            with_scratch(rows * (sizes.rank + sizes.value), |scratch| {
                let (inputs, values) = scratch.split_at_mut(rows * sizes.rank);
                compute(&self.head_product(sizes, head, inputs), values);
                for (row, values) in values.chunks_exact(sizes.value).enumerate() {
                    let start = (row * sizes.heads + head) * sizes.value;
                    // SAFETY: tasks have different heads.
                    let place = unsafe { out.range(start..start + sizes.value) };
                    place.copy_from_slice(values);
                }
            });
        });
    }
}
