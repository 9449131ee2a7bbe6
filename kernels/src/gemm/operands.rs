//! Activations in the forms that the kernels for weights in panels take.

use std::ops::Range;

use super::Product;
#[cfg(target_arch = "x86_64")]
use crate::amx::{self, TILE_ROWS as TILE_TOKENS};
use crate::features::InstructionSet;
use crate::panels::{Arithmetic, GROUP_COLUMNS};
use crate::parallel::{self, SharedOutput};
use crate::scratch::with_scratch_of;
use crate::simd::{self, Program, Simd};

/// Largest code of a quantised activation.
pub const CODE_MAX: f32 = 127.0;
/// The reciprocal of a smaller largest activation would not be finite.
const LARGEST_MIN: f32 = 1e-36;

/// All rows of a product's activations, once for all tasks.
#[derive(Clone, Copy, Default)]
pub(crate) struct Operands<'a> {
    /// For weights in blocks.
    pub(super) quantised: Option<Quantised<'a>>,
    /// For BF16 weights, where tiles of BF16 can be multiplied.
    pub(super) split: Option<Split<'a>>,
}

/// Activations as 8-bit codes, which share a scale in groups of 32 columns: the nearest multiples
/// of 1/127 of the group's largest magnitude.
#[derive(Clone, Copy)]
pub(super) struct Quantised<'a> {
    /// `[tokens, columns]`.
    pub(super) codes: &'a [i8],
    /// `[tokens, columns / 32]`: the scale, and the sums of the numbers of the whole group, of its
    /// first half and of its second half.
    pub(super) factors: &'a [[f32; 4]],
    /// Groups of a row.
    groups: usize,
}

/// Activations as sums of two BF16 numbers, as [`amx::split_row`](crate::amx::split_row) makes them.
#[derive(Clone, Copy)]
pub(super) struct Split<'a> {
    /// `[tokens / 16, columns / 32, 2, 16, 32]`: for 16 rows and 32 columns the first parts, then
    /// the second ones. Rows that are missing to whole tiles hold anything.
    pub(super) parts: &'a [u16],
}

impl<'a> Operands<'a> {
    /// Prepares what the product's weights need, and calls `body`.
    pub(crate) fn with<R>(
        product: &Product<'_>,
        instructions: InstructionSet,
        body: impl FnOnce(Operands<'_>) -> R,
    ) -> R {
        #[cfg(target_arch = "x86_64")]
        if instructions >= InstructionSet::Amx && product.weight.needs(Arithmetic::Tiles) {
            return with_quantised(product, instructions, |quantised| {
                with_split(product, |split| {
                    let split = Some(split);
                    body(Operands { quantised, split })
                })
            });
        }
        with_quantised(product, instructions, |quantised| {
            body(Operands {
                quantised,
                split: None,
            })
        })
    }

    /// Those of some rows of the activations. Split ones lie in tiles and cannot be taken apart.
    pub(crate) fn rows(self, rows: Range<usize>) -> Operands<'a> {
        assert!(self.split.is_none(), "rows of activations in tiles");
        Operands {
            quantised: self.quantised.map(|all| all.rows(rows)),
            split: None,
        }
    }
}

impl<'a> Quantised<'a> {
    /// Codes and factors of one row.
    #[inline(always)]
    pub(super) fn row(self, token: usize) -> (&'a [i8], &'a [[f32; 4]]) {
        let row = self.rows(token..token + 1);
        (row.codes, row.factors)
    }

    #[inline(always)]
    fn rows(self, rows: Range<usize>) -> Quantised<'a> {
        let columns = GROUP_COLUMNS * self.groups;
        Quantised {
            codes: &self.codes[rows.start * columns..rows.end * columns],
            factors: &self.factors[rows.start * self.groups..rows.end * self.groups],
            ..self
        }
    }
}

fn with_quantised<R>(
    product: &Product<'_>,
    instructions: InstructionSet,
    body: impl FnOnce(Option<Quantised<'_>>) -> R,
) -> R {
    if !product.weight.needs(Arithmetic::Integers) {
        return body(None);
    }
    let input = product.input;
    let (tokens, columns) = (input.count(), input.columns);
    let groups = columns / GROUP_COLUMNS;
    with_scratch_of(tokens * columns, |codes: &mut [i8]| {
        with_scratch_of(tokens * groups, |factors: &mut [[f32; 4]]| {
            let (all_codes, all_factors) = (SharedOutput::new(codes), SharedOutput::new(factors));
            parallel::for_each(tokens, tokens * columns, |token| {
                // SAFETY: each task has a row of its own.
                let (codes, factors) = unsafe {
                    (
                        all_codes.range(token * columns..(token + 1) * columns),
                        all_factors.range(token * groups..(token + 1) * groups),
                    )
                };
                let row = input.row(token);
                let program = QuantiseRow {
                    row,
                    codes,
                    factors,
                };
                simd::dispatch(instructions, program);
            });
            body(Some(Quantised {
                codes,
                factors,
                groups,
            }))
        })
    })
}

#[cfg(target_arch = "x86_64")]
fn with_split<R>(product: &Product<'_>, body: impl FnOnce(Split<'_>) -> R) -> R {
    let input = product.input;
    let (tokens, columns) = (input.count(), input.columns);
    let tile_len = 2 * TILE_TOKENS * columns;
    let tiles = tokens.div_ceil(TILE_TOKENS);
    with_scratch_of(tiles * tile_len, |parts: &mut [u16]| {
        let all = SharedOutput::new(parts);
        parallel::for_each(tiles, tokens * columns, |tile| {
            // SAFETY: each task has a tile of its own.
            let parts = unsafe { all.range(tile * tile_len..(tile + 1) * tile_len) };
            let first = tile * TILE_TOKENS;
            for token in first..(first + TILE_TOKENS).min(tokens) {
                // SAFETY: activations are only split where the processor has AMX.
                unsafe { amx::split_row(input.row(token), token % TILE_TOKENS, parts) };
            }
        });
        body(Split { parts })
    })
}

struct QuantiseRow<'a> {
    row: &'a [f32],
    codes: &'a mut [i8],
    factors: &'a mut [[f32; 4]],
}

impl Program for QuantiseRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (groups, _) = self.row.as_chunks::<GROUP_COLUMNS>();
        let (codes, _) = self.codes.as_chunks_mut::<GROUP_COLUMNS>();
        for ((group, codes), factors) in groups.iter().zip(codes).zip(self.factors) {
            *factors = quantise(group, codes);
        }
    }
}

/// Quantises one group; returns its scale and sums. A group with a NaN or an infinity has a scale
/// that is none either, and so have results that it takes part in.
#[inline(always)]
fn quantise(group: &[f32; GROUP_COLUMNS], codes: &mut [i8; GROUP_COLUMNS]) -> [f32; 4] {
    // As integers, magnitudes are in the same order, and NaN is the largest.
    let mut largest = 0;
    for value in group {
        largest = (value.to_bits() & 0x7fff_ffff).max(largest);
    }
    let largest = f32::from_bits(largest);
    let scale = largest / CODE_MAX;
    let inverse = if largest < LARGEST_MIN {
        0.0
    } else {
        CODE_MAX / largest
    };
    let mut sums = [0; 2];
    let halves = group.chunks(16).zip(codes.chunks_mut(16));
    for ((values, codes), sum) in halves.zip(&mut sums) {
        for (value, code) in values.iter().zip(codes) {
            // Beyond 2^23, numbers are whole: the addition rounds, ties to even.
            let rounded = value * inverse + 12_582_912.0;
            *code = rounded.to_bits() as i8;
            *sum += i32::from(*code);
        }
    }
    let [first, second] = sums.map(|sum| sum as f32 * scale);
    [scale, (sums[0] + sums[1]) as f32 * scale, first, second]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::random_values;

    #[test]
    fn a_quantised_group_is_within_half_a_step_and_never_hides_what_is_not_a_number() {
        let mut codes = [0; GROUP_COLUMNS];
        for seed in 0..100 {
            let values = random_values(seed, GROUP_COLUMNS, 5.0);
            let group: [f32; GROUP_COLUMNS] = values.try_into().expect("a group");
            let [scale, sum, first, second] = quantise(&group, &mut codes);
            let numbers = codes.map(|code| f32::from(code) * scale);
            for (number, value) in numbers.iter().zip(group) {
                assert!((number - value).abs() <= scale * 0.501);
            }
            assert!((numbers.iter().sum::<f32>() - sum).abs() < 1e-4);
            assert!((first + second - sum).abs() < 1e-4);
        }
        assert_eq!(quantise(&[0.0; GROUP_COLUMNS], &mut codes), [0.0; 4]);
        assert_eq!(codes, [0; GROUP_COLUMNS]);
        assert_eq!(quantise(&[1e-40; GROUP_COLUMNS], &mut codes)[1], 0.0);
        for odd in [f32::NAN, f32::INFINITY] {
            let mut group = [1.0; GROUP_COLUMNS];
            group[7] = odd;
            assert!(!quantise(&group, &mut codes)[0].is_finite());
        }
    }
}
