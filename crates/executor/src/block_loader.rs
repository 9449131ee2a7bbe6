//! Reads quantised matrices: codes and scales, which checkpoints keep in tensors of their own, become
//! the blocks that are computed with, a strip of rows at a time.

use std::sync::atomic::{AtomicU64, Ordering};

use backstop_kernels::{BlockFormat, Separate, split_nibbles};
use backstop_weights::{Checkpoint, Codes, CopyJob, ElementType, LoadError, QuantizedMatrix};
use rayon::prelude::*;

use crate::formats::{LoadFailure, widened};

/// Bytes of codes in a strip: large enough for a storage device to stream, small enough to share
/// one matrix between cores.
const STRIP_BYTES: usize = 4 << 20;
/// Scales of NVFP4 in a block.
const NVFP4_SCALES: usize = 4;

/// One matrix to read, and where to.
pub(crate) struct BlockJob<'a> {
    pub(crate) matrix: &'a QuantizedMatrix,
    pub(crate) format: BlockFormat,
    /// As many bytes as all its blocks have.
    pub(crate) destination: &'a mut [u8],
}

/// Some rows of a matrix.
struct Strip<'a> {
    matrix: &'a QuantizedMatrix,
    format: BlockFormat,
    first_row: usize,
    /// Whole rows of blocks.
    destination: &'a mut [u8],
}

/// Reads all matrices, using all cores of the current rayon pool. `progress` is told the bytes of
/// codes read so far.
pub(crate) fn copy_blocks(
    checkpoint: &Checkpoint,
    jobs: Vec<BlockJob<'_>>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), LoadFailure> {
    let mut strips = Vec::new();
    for job in jobs {
        let BlockJob {
            matrix,
            format,
            destination,
        } = job;
        let row_bytes = matrix.columns / format.numbers() * format.bytes();
        let rows = (STRIP_BYTES / code_row_bytes(matrix).max(1)).max(1);
        for (index, destination) in destination.chunks_mut(rows * row_bytes).enumerate() {
            strips.push(Strip {
                matrix,
                format,
                first_row: index * rows,
                destination,
            });
        }
    }
    // Storage likes to be read in order; jobs come in the order of the model.
    strips.sort_by_key(|strip| {
        let tensor = checkpoint.tensor(&strip.matrix.codes);
        (tensor.map(|tensor| tensor.position()), strip.first_row)
    });
    let done = AtomicU64::new(0);
    strips.into_par_iter().try_for_each(|strip| {
        let bytes = strip.copy(checkpoint)?;
        progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes);
        Ok(())
    })
}

/// The scale of each row of a matrix that has one for each, or one for all.
pub(crate) fn row_scales(
    checkpoint: &Checkpoint,
    matrix: &QuantizedMatrix,
) -> Result<Vec<f32>, LoadFailure> {
    let scales = Scales::of_rows(checkpoint, matrix, 0..matrix.rows)?;
    Ok((0..matrix.rows).map(|row| scales.at(row, 0)).collect())
}

/// Bytes of the codes of a row.
fn code_row_bytes(matrix: &QuantizedMatrix) -> usize {
    let codes = matrix.quantization.codes;
    let elements = matrix.columns.div_ceil(codes.per_element());
    elements * codes.element_type().bytes().unwrap_or(1)
}

impl Strip<'_> {
    /// Returns the bytes of codes.
    fn copy(self, checkpoint: &Checkpoint) -> Result<u64, LoadFailure> {
        let (matrix, format) = (self.matrix, self.format);
        let code_row_bytes = code_row_bytes(matrix);
        let blocks = matrix.columns / format.numbers();
        let rows = self.destination.len() / (blocks * format.bytes());
        let first_byte = (self.first_row * code_row_bytes) as u64;
        let codes = read(checkpoint, &matrix.codes, first_byte, rows * code_row_bytes)?;
        let scales = Scales::of_rows(checkpoint, matrix, self.first_row..self.first_row + rows)?;
        let blocks = self.destination.chunks_exact_mut(format.bytes());
        let separate = format.facts().separate;
        let separate = separate.expect("a format whose codes are a tensor of their own");
        let codes_of_blocks = codes.chunks_exact(separate.code_bytes);
        let per_row = matrix.columns / format.numbers();
        for (index, (block, codes)) in blocks.zip(codes_of_blocks).enumerate() {
            let (row, column) = (index / per_row, index % per_row * format.numbers());
            scales.write(separate, block, row, column);
            let first = block.len() - separate.code_bytes;
            write_codes(matrix.quantization.codes, codes, &mut block[first..]);
        }
        Ok(codes.len() as u64)
    }
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
        Codes::PackedI4 | Codes::PackedE2M1 => {
            let out = out.as_chunks_mut::<16>().0.iter_mut();
            for (out, pairs) in out.zip(stored.as_chunks::<16>().0) {
                split_nibbles(pairs, out);
            }
        }
    }
}

/// The scales of some rows.
struct Scales {
    /// Row of the matrix that the first scales are for.
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
        rows: std::ops::Range<usize>,
    ) -> Result<Self, LoadFailure> {
        let [tile_rows, tile_columns] = matrix.scale_tile();
        let first = rows.start / tile_rows.max(1);
        let count = rows.end.div_ceil(tile_rows.max(1)) - first;
        let element = element_of(checkpoint, &matrix.scales);
        let width = element.bytes().unwrap_or(1);
        let per_row = matrix.scale_columns();
        let start = (first * per_row * width) as u64;
        let bytes = read(checkpoint, &matrix.scales, start, count * per_row * width)?;
        let values = match &matrix.divisor {
            None => ScaleValues::Singles(widened(element, &bytes)),
            Some(name) => ScaleValues::Divided(bytes, divisor(checkpoint, name)?),
        };
        Ok(Self {
            first_row: rows.start - first * tile_rows,
            tile: [tile_rows.max(1), tile_columns.max(1)],
            per_row,
            values,
        })
    }

    fn place(&self, row: usize, column: usize) -> usize {
        (row + self.first_row) / self.tile[0] * self.per_row + column / self.tile[1]
    }

    /// The scale of a number; 1 where scales are divided.
    fn at(&self, row: usize, column: usize) -> f32 {
        match &self.values {
            ScaleValues::Singles(values) => values[self.place(row, column)],
            ScaleValues::Divided(..) => 1.0,
        }
    }

    /// Stores the scales of the block that begins at this number.
    fn write(&self, separate: Separate, block: &mut [u8], row: usize, column: usize) {
        match &self.values {
            ScaleValues::Singles(_) => separate.write_scale(block, self.at(row, column)),
            ScaleValues::Divided(bytes, divisor) => {
                separate.write_scale(block, *divisor);
                let place = self.place(row, column);
                block[4..][..NVFP4_SCALES].copy_from_slice(&bytes[place..][..NVFP4_SCALES]);
            }
        }
    }
}

fn divisor(checkpoint: &Checkpoint, name: &str) -> Result<f32, LoadFailure> {
    let element = element_of(checkpoint, name);
    let bytes = read(checkpoint, name, 0, element.bytes().unwrap_or(1))?;
    match widened(element, &bytes)[..] {
        [divisor] if divisor.is_normal() && divisor > 0.0 => Ok(divisor),
        _ => Err(LoadFailure::Divisor(name.to_owned())),
    }
}

fn element_of(checkpoint: &Checkpoint, name: &str) -> ElementType {
    let tensor = checkpoint.tensor(name);
    let tensor = tensor.expect("the census found every required tensor");
    tensor.element_type
}

/// Some bytes of a tensor, all of finite numbers.
fn read(
    checkpoint: &Checkpoint,
    name: &str,
    first_byte: u64,
    len: usize,
) -> Result<Vec<u8>, LoadError> {
    let mut bytes = vec![0; len];
    let job = CopyJob {
        name: name.to_owned(),
        part_from: Some(first_byte),
        destination: &mut bytes,
    };
    checkpoint.copy_all(vec![job], &|_| {})?;
    Ok(bytes)
}
