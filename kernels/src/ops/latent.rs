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
use crate::catalog::{Case, CaseSpec, Cost, Tolerance, random_values};
use crate::cpu::CpuMatrix;
use crate::element::Element;
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
struct Sizes {
    heads: usize,
    rank: usize,
    rope: usize,
    content: usize,
    value: usize,
}

impl Sizes {
    fn of(shape: LatentShape, up: WeightView<'_>) -> Self {
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
    fn head(&self) -> usize {
        self.rope + self.rank
    }

    /// Columns of the way in's output.
    fn columns(&self) -> usize {
        (self.heads + 2) * self.head()
    }

    /// First row of a head's weights for its content; those for its value follow.
    fn first_row(&self, head: usize) -> usize {
        head * (self.content + self.value)
    }
}

impl LatentInputArgs<'_> {
    fn check(&self, out: &[f32]) -> (Sizes, usize) {
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

    /// Naive sums in f64.
    pub fn reference(&self, out: &mut [f32]) {
        let (sizes, _) = self.check(out);
        let query_len = sizes.content + sizes.rope;
        for (row, out) in out.chunks_exact_mut(sizes.columns()).enumerate() {
            let (latent, shared) = self.latents[row * (sizes.rank + sizes.rope)..]
                [..sizes.rank + sizes.rope]
                .split_at(sizes.rank);
            let mut heads = out.chunks_exact_mut(sizes.head());
            for head in 0..sizes.heads {
                let query = &self.queries[(row * sizes.heads + head) * query_len..][..query_len];
                let (rotated, carried) = heads.next().expect("a head").split_at_mut(sizes.rope);
                rotated.copy_from_slice(&query[sizes.content..]);
                for (column, carried) in carried.iter_mut().enumerate() {
                    let weight = |index| f64::from(self.up.read(index, column));
                    let first = sizes.first_row(head);
                    let products = query[..sizes.content].iter().enumerate();
                    let products =
                        products.map(|(index, &query)| f64::from(query) * weight(first + index));
                    *carried = products.sum::<f64>() as f32;
                }
            }
            let squares = latent.iter().map(|&value| f64::from(value).powi(2));
            let mean = squares.sum::<f64>() / sizes.rank as f64;
            let factor = 1.0 / (mean + f64::from(self.epsilon)).sqrt();
            for side in heads {
                let (rotated, content) = side.split_at_mut(sizes.rope);
                rotated.copy_from_slice(shared);
                for ((content, &value), &gain) in content.iter_mut().zip(latent).zip(self.gain) {
                    *content = (f64::from(value) * factor * f64::from(gain)) as f32;
                }
            }
        }
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
    fn check(&self, out: &[f32]) -> (Sizes, usize) {
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
    fn head_product<'a>(&'a self, sizes: Sizes, head: usize, inputs: &'a mut [f32]) -> Product<'a> {
        let rows = inputs.chunks_exact_mut(sizes.rank);
        for (row, input) in rows.enumerate() {
            let attended = &self.attended[(row * sizes.heads + head) * sizes.head()..];
            input.copy_from_slice(&attended[sizes.rope..sizes.head()]);
        }
        let first = sizes.first_row(head) + sizes.content;
        let weights = self.up.part(first, sizes.value);
        Product::new(weights, InputRows::all(inputs, sizes.rank))
    }

    /// Naive products; `out` is `[rows, heads * value_dim]`.
    pub fn reference(&self, out: &mut [f32]) {
        self.compute(out, |product, values| product.reference(values));
    }

    /// The products; `out` is `[rows, heads * value_dim]`.
    pub fn run(&self, instructions: InstructionSet, out: &mut [f32]) {
        self.compute(out, |product, values| product.run(instructions, values));
    }

    fn compute(&self, out: &mut [f32], compute: impl Fn(&Product<'_>, &mut [f32]) + Sync) {
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

/// Added to the mean square in the cases.
const CASE_EPSILON: f32 = 1e-6;

/// The way in, and the way out of its queries.
struct LatentCase {
    queries: Vec<f32>,
    latents: Vec<f32>,
    up: CpuMatrix,
    gain: Vec<f32>,
    shape: LatentShape,
}

impl LatentCase {
    fn sizes(&self) -> Sizes {
        Sizes::of(self.shape, self.up.view())
    }

    /// Both ways' outputs of some rows, side by side.
    fn run(
        &self,
        rows: Range<usize>,
        way_in: impl FnOnce(&LatentInputArgs<'_>, &mut [f32]),
        way_out: impl FnOnce(&LatentOutputArgs<'_>, &mut [f32]),
    ) -> Vec<f32> {
        let sizes = self.sizes();
        let query = sizes.heads * (sizes.content + sizes.rope);
        let latent = sizes.rank + sizes.rope;
        let count = rows.len();
        let mut inside = vec![0.0; count * sizes.columns()];
        way_in(
            &LatentInputArgs {
                queries: &self.queries[rows.start * query..rows.end * query],
                latents: &self.latents[rows.start * latent..rows.end * latent],
                up: self.up.view(),
                gain: &self.gain,
                epsilon: CASE_EPSILON,
                shape: self.shape,
            },
            &mut inside,
        );
        let heads = sizes.heads * sizes.head();
        let attended: Vec<f32> = inside
            .chunks_exact(sizes.columns())
            .flat_map(|row| &row[..heads])
            .copied()
            .collect();
        let values = sizes.heads * sizes.value;
        let mut outside = vec![0.0; count * values];
        way_out(
            &LatentOutputArgs {
                attended: &attended,
                up: self.up.view(),
                shape: self.shape,
            },
            &mut outside,
        );
        let inside = inside.chunks_exact(sizes.columns());
        let both = inside.zip(outside.chunks_exact(values));
        both.flat_map(|(inside, outside)| [inside, outside].concat())
            .collect()
    }
}

impl Case for LatentCase {
    fn rows(&self) -> usize {
        self.latents.len() / (self.sizes().rank + self.sizes().rope)
    }

    fn reference(&self) -> Vec<f32> {
        self.run(
            0..self.rows(),
            |args, out| args.reference(out),
            |args, out| args.reference(out),
        )
    }

    fn cpu(&self, instructions: InstructionSet) -> Vec<f32> {
        self.run(
            0..self.rows(),
            |args, out| args.run(instructions, out),
            |args, out| args.run(instructions, out),
        )
    }

    fn cpu_row(&self, instructions: InstructionSet, row: usize) -> Vec<f32> {
        self.run(
            row..row + 1,
            |args, out| args.run(instructions, out),
            |args, out| args.run(instructions, out),
        )
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::of(Element::F32)
    }

    fn cost(&self) -> Cost {
        let weights = self.up.rows() * self.up.columns();
        Cost {
            multiply_adds: weights * self.rows(),
            bytes: weights * self.up.view().element().bytes(),
        }
    }
}

/// Heads, rank, rotated part, content and value of a head, and rows; the last is GLM-4.7-Flash's.
pub fn cases() -> Vec<CaseSpec> {
    let shapes = [
        ([1, 1, 2, 1, 1], 1),
        ([3, 17, 6, 5, 9], 4),
        ([2, 32, 8, 16, 24], 0),
        ([5, 48, 16, 33, 20], 11),
        ([20, 512, 64, 192, 256], 3),
    ];
    let mut cases = Vec::new();
    for ([heads, rank, rope_dim, content_dim, value_dim], rows) in shapes {
        for element in [Element::F32, Element::BF16] {
            let shape = LatentShape {
                heads,
                rank,
                rope_dim,
                content_dim,
                value_dim,
            };
            let label = format!("{element:?}, {shape:?}, {rows} rows");
            cases.push(CaseSpec::new(label, move || {
                let query = (heads * (content_dim + rope_dim)) as usize;
                let up = (heads * (content_dim + value_dim)) as usize;
                LatentCase {
                    queries: random_values(1, rows * query, 1.0),
                    latents: random_values(2, rows * (rank + rope_dim) as usize, 2.0),
                    up: CpuMatrix::random(3, up, rank as usize, element),
                    gain: random_values(4, rank as usize, 1.0),
                    shape,
                }
            }));
        }
    }
    cases
}
