//! Latent attention (DeepSeek-AI 2024, "DeepSeek-V2", section 2.1) over a cache of latents.
//!
//! Keys and values of all heads are products of one latent for each position, which alone is
//! cached, with the rotated part of the key that all heads share. Rather than expanding the latents
//! of all positions, queries are carried over to the latents' space, where one key serves all
//! heads, and the weighted sums of latents become values afterwards. That is the same mathematics:
//! `q . (W c) = (W^T q) . c`.

use std::ops::Range;

use backstop_kernels::backend::LatentShape;
use backstop_kernels::ops::latent::{LatentInputArgs, LatentOutputArgs, Sizes};
use backstop_kernels::random::random_values;
use backstop_kernels::{CpuMatrix, Element, InstructionSet};

use crate::catalog::{Case, CaseSpec, Cost, Tolerance};
use crate::product;
use crate::weights::random_matrix;

/// Naive sums in f64.
pub fn input_reference(args: &LatentInputArgs<'_>, out: &mut [f32]) {
    let (sizes, _) = args.check(out);
    let query_len = sizes.content + sizes.rope;
    for (row, out) in out.chunks_exact_mut(sizes.columns()).enumerate() {
        let (latent, shared) = args.latents[row * (sizes.rank + sizes.rope)..]
            [..sizes.rank + sizes.rope]
            .split_at(sizes.rank);
        let mut heads = out.chunks_exact_mut(sizes.head());
        for head in 0..sizes.heads {
            let query = &args.queries[(row * sizes.heads + head) * query_len..][..query_len];
            let (rotated, carried) = heads.next().expect("a head").split_at_mut(sizes.rope);
            rotated.copy_from_slice(&query[sizes.content..]);
            for (column, carried) in carried.iter_mut().enumerate() {
                let weight = |index| f64::from(args.up.read(index, column));
                let first = sizes.first_row(head);
                let products = query[..sizes.content].iter().enumerate();
                let products =
                    products.map(|(index, &query)| f64::from(query) * weight(first + index));
                *carried = products.sum::<f64>() as f32;
            }
        }
        let squares = latent.iter().map(|&value| f64::from(value).powi(2));
        let mean = squares.sum::<f64>() / sizes.rank as f64;
        let factor = 1.0 / (mean + f64::from(args.epsilon)).sqrt();
        for side in heads {
            let (rotated, content) = side.split_at_mut(sizes.rope);
            rotated.copy_from_slice(shared);
            for ((content, &value), &gain) in content.iter_mut().zip(latent).zip(args.gain) {
                *content = (f64::from(value) * factor * f64::from(gain)) as f32;
            }
        }
    }
}

/// Naive products; `out` is `[rows, heads * value_dim]`.
pub fn output_reference(args: &LatentOutputArgs<'_>, out: &mut [f32]) {
    args.compute(out, product::reference);
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
        self.run(0..self.rows(), input_reference, output_reference)
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
                    up: random_matrix(3, up, rank as usize, element),
                    gain: random_values(4, rank as usize, 1.0),
                    shape,
                }
            }));
        }
    }
    cases
}
