//! Codes and scales, which checkpoints keep in tensors of their own, become the blocks that are
//! computed with.

use std::ops::Range;

use backstop_kernels::{MXFP4_SCALE_MAX, Separate, WeightFormat, split_nibbles};
use backstop_weights::{Checkpoint, Codes, ElementType, LoadProblem, QuantizedMatrix};

use crate::format::of_element;
use crate::source::found;

/// Scales of NVFP4 in a block.
const NVFP4_SCALES: usize = 4;

/// Reads rows of a matrix in blocks of this format.
pub(crate) fn read(
    checkpoint: &Checkpoint,
    matrix: &QuantizedMatrix,
    format: WeightFormat,
    rows: Range<usize>,
    out: &mut [u8],
) -> Result<(), LoadProblem> {
    let WeightFormat::Blocks(format) = format else {
        unreachable!("codes and scales are computed with in blocks");
    };
    let separate = format.facts().separate;
    let separate = separate.expect("a format whose codes are a tensor of their own");
    let kind = matrix.quantization.codes;
    let row_bytes = matrix.columns / kind.per_element() * kind.element_type().bytes().unwrap_or(1);
    let mut codes = vec![0; rows.len() * row_bytes];
    checkpoint.read_part(&matrix.codes, (rows.start * row_bytes) as u64, &mut codes)?;
    let scales = Scales::of_rows(checkpoint, matrix, rows)?;
    let blocks = out.chunks_exact_mut(format.bytes());
    let codes = codes.chunks_exact(separate.code_bytes);
    let per_row = matrix.columns / format.numbers();
    for (index, (block, codes)) in blocks.zip(codes).enumerate() {
        let place = scales.place(index / per_row, index % per_row * format.numbers());
        scales.write(separate, block, place);
        let first = block.len() - separate.code_bytes;
        write_codes(kind, codes, &mut block[first..]);
    }
    Ok(())
}

/// Brings the codes of a block into its order.
fn write_codes(codes: Codes, stored: &[u8], out: &mut [u8]) {
    match codes {
        Codes::F8E4M3 | Codes::I8 => out.copy_from_slice(stored),
        Codes::PackedI8 => {
            for (out, &byte) in out.iter_mut().zip(stored) {
                *out = byte ^ 0x80;
            }
        }
        Codes::PackedI4 | Codes::PackedE2M1 | Codes::Mxfp4 => {
            let out = out.as_chunks_mut::<16>().0.iter_mut();
            for (out, pairs) in out.zip(stored.as_chunks::<16>().0) {
                split_nibbles(pairs, out);
            }
        }
    }
}

/// The scales of some rows.
struct Scales {
    /// The first row within the tile that it is in.
    first_row: usize,
    /// Rows and columns that share a scale.
    tile: [usize; 2],
    per_row: usize,
    values: ScaleValues,
}

enum ScaleValues {
    Singles(Vec<f32>),
    /// E4M3 bytes, and what they are divided by.
    Divided(Vec<u8>, f32),
}

impl Scales {
    fn of_rows(
        checkpoint: &Checkpoint,
        matrix: &QuantizedMatrix,
        rows: Range<usize>,
    ) -> Result<Self, LoadProblem> {
        let [tile_rows, tile_columns] = matrix.scale_tile().map(|extent| extent.max(1));
        let first = rows.start / tile_rows;
        let per_row = matrix.scale_columns();
        let range = first * per_row..rows.end.div_ceil(tile_rows) * per_row;
        let values = match &matrix.divisor {
            None => ScaleValues::Singles(numbers(checkpoint, &matrix.scales, range)?),
            Some(name) => {
                let divisor = numbers(checkpoint, name, 0..1)?[0];
                if !divisor.is_normal() || divisor < 0.0 {
                    return Err(LoadProblem::Divisor { name: name.clone() });
                }
                let mut bytes = vec![0; range.len()];
                checkpoint.read_part(&matrix.scales, range.start as u64, &mut bytes)?;
                ScaleValues::Divided(bytes, divisor)
            }
        };
        Ok(Self {
            first_row: rows.start - first * tile_rows,
            tile: [tile_rows, tile_columns],
            per_row,
            values,
        })
    }

    /// The place of the scale of a number.
    fn place(&self, row: usize, column: usize) -> usize {
        (row + self.first_row) / self.tile[0] * self.per_row + column / self.tile[1]
    }

    /// Stores the scales from this place on in a block.
    fn write(&self, separate: Separate, block: &mut [u8], place: usize) {
        match &self.values {
            ScaleValues::Singles(values) => separate.write_scale(block, values[place]),
            ScaleValues::Divided(bytes, divisor) => {
                separate.write_scale(block, *divisor);
                block[4..][..NVFP4_SCALES].copy_from_slice(&bytes[place..][..NVFP4_SCALES]);
            }
        }
    }
}

/// Numbers of a tensor. Bytes are the exponents of powers of two (E8M0).
fn numbers(
    checkpoint: &Checkpoint,
    name: &str,
    range: Range<usize>,
) -> Result<Vec<f32>, LoadProblem> {
    let element = found(checkpoint, name).element_type;
    let width = element.bytes().unwrap_or(1);
    let mut bytes = vec![0; range.len() * width];
    checkpoint.read_part(name, (range.start * width) as u64, &mut bytes)?;
    if element == ElementType::U8 {
        return match bytes.iter().position(|&scale| scale > MXFP4_SCALE_MAX) {
            None => Ok(bytes.into_iter().map(power_of_two).collect()),
            Some(index) => Err(LoadProblem::NotFinite {
                name: name.to_owned(),
                index: (range.start + index) as u64,
            }),
        };
    }
    let mut numbers = vec![0.0; range.len()];
    of_element(element).widen(&bytes, &mut numbers);
    Ok(numbers)
}

/// `2^(exponent - 127)`.
fn power_of_two(exponent: u8) -> f32 {
    f32::from_bits((u32::from(exponent) << 23).max(1 << 22))
}
