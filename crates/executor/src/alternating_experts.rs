//! Reads experts that are stored as gpt-oss does: gate and up rows in turns, in MXFP4 with codes and
//! scales in tensors of their own, or as numbers with inputs before outputs.
//!
//! Experts are read side by side and each is brought into order by itself, so that no more than a
//! few of them are in memory twice.

use backstop_arch::ExpertsRequest;
use backstop_kernels::{AlignedBytes, BlockFormat, CpuExperts, ExpertMatrices, MXFP4_SCALE_MAX};
use backstop_weights::{Checkpoint, CopyJob, ElementType, LoadError, LoadProblem};
use rayon::prelude::*;

use crate::formats::{LoadFailure, weight_format, widened};

/// Bytes of the codes of a block, and of its scale.
const CODE_BYTES: usize = 16;

/// The experts of one layer, before they are read.
#[derive(Clone, Copy)]
pub(crate) struct AlternatingExperts<'a> {
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) request: &'a ExpertsRequest,
    /// How they are stored.
    pub(crate) element: ElementType,
    /// Told the bytes of each piece that was read.
    pub(crate) progress: &'a (dyn Fn(u64) + Sync),
}

/// One matrix of each expert.
struct Kind<'a> {
    layer: AlternatingExperts<'a>,
    /// The tensor's name without what MXFP4 and biases add.
    name: String,
    rows: usize,
    columns: usize,
    /// The first and every other row belong to one matrix, the rest to another.
    alternating: bool,
}

impl AlternatingExperts<'_> {
    /// Reads them.
    pub(crate) fn load(self) -> Result<CpuExperts, LoadFailure> {
        let ExpertsRequest {
            num_experts,
            hidden,
            width,
            ..
        } = *self.request;
        let gate_up = Kind {
            layer: self,
            name: self.request.packed_gate_up(),
            rows: 2 * width,
            columns: hidden,
            alternating: true,
        };
        let down = Kind {
            layer: self,
            name: self.request.packed_down(),
            rows: hidden,
            columns: width,
            alternating: false,
        };
        Ok(CpuExperts {
            num_experts,
            hidden,
            width,
            gate_up: gate_up.load()?,
            down: down.load()?,
        })
    }
}

impl Kind<'_> {
    fn load(&self) -> Result<ExpertMatrices, LoadFailure> {
        let format = weight_format(self.layer.element);
        let bytes = format.bytes_of(self.rows * self.columns);
        let mut data = AlignedBytes::zeroed(self.layer.request.num_experts * bytes);
        let experts = data.as_mut_slice().par_chunks_exact_mut(bytes);
        experts
            .enumerate()
            .try_for_each(|(expert, out)| match self.layer.element {
                ElementType::Block(BlockFormat::Mxfp4) => self.load_blocks(expert, out),
                ElementType::F32 => self.load_numbers::<4>(expert, out),
                _ => self.load_numbers::<2>(expert, out),
            })?;
        let mut matrices = ExpertMatrices::new(format, data);
        matrices.biases = self.load_biases()?;
        Ok(matrices)
    }

    /// The row of the matrix that a stored one becomes: all gate rows come before all up rows.
    fn place(&self, row: usize) -> usize {
        match self.alternating {
            true => row / 2 + row % 2 * (self.rows / 2),
            false => row,
        }
    }

    fn load_biases(&self) -> Result<Vec<f32>, LoadFailure> {
        let name = format!("{}_bias", self.name);
        let tensor = self.layer.checkpoint.tensor(&name);
        let tensor = tensor.expect("the census found every required tensor");
        let element = tensor.element_type;
        let bytes = self.layer.checkpoint.read(&name)?;
        (self.layer.progress)(bytes.len() as u64);
        let stored = widened(element, &bytes);
        let mut biases = vec![0.0; stored.len()];
        let experts = stored.chunks_exact(self.rows);
        for (stored, biases) in experts.zip(biases.chunks_exact_mut(self.rows)) {
            for (row, &bias) in stored.iter().enumerate() {
                biases[self.place(row)] = bias;
            }
        }
        Ok(biases)
    }

    /// One expert's part of a tensor.
    fn read(&self, name: &str, expert: usize, bytes: usize) -> Result<Vec<u8>, LoadError> {
        let mut part = vec![0; bytes];
        let job = CopyJob {
            name: name.to_owned(),
            part_from: Some((expert * bytes) as u64),
            destination: &mut part,
        };
        self.layer.checkpoint.copy_all(vec![job], &|_| {})?;
        (self.layer.progress)(bytes as u64);
        Ok(part)
    }

    fn load_blocks(&self, expert: usize, out: &mut [u8]) -> Result<(), LoadFailure> {
        let per_row = self.columns / BlockFormat::Mxfp4.numbers();
        let [codes_name, scales_name] = ExpertsRequest::in_blocks(&self.name);
        let codes = self.read(&codes_name, expert, self.rows * per_row * CODE_BYTES)?;
        let scales = self.read(&scales_name, expert, self.rows * per_row)?;
        if let Some(index) = scales.iter().position(|&scale| scale > MXFP4_SCALE_MAX) {
            let problem = LoadProblem::NotFinite {
                name: scales_name,
                index: (expert * scales.len() + index) as u64,
            };
            let problems = vec![problem];
            return Err(LoadError { problems }.into());
        }
        let row_bytes = per_row * BlockFormat::Mxfp4.bytes();
        let rows = codes.chunks_exact(per_row * CODE_BYTES);
        for (row, (codes, scales)) in rows.zip(scales.chunks_exact(per_row)).enumerate() {
            let out = &mut out[self.place(row) * row_bytes..][..row_bytes];
            let blocks = out.chunks_exact_mut(BlockFormat::Mxfp4.bytes());
            let stored = codes.as_chunks::<CODE_BYTES>().0.iter().zip(scales);
            for (block, (codes, &scale)) in blocks.zip(stored) {
                write_block(codes, scale, block);
            }
        }
        Ok(())
    }

    /// Numbers of `SIZE` bytes with inputs before outputs.
    fn load_numbers<const SIZE: usize>(
        &self,
        expert: usize,
        out: &mut [u8],
    ) -> Result<(), LoadFailure> {
        let stored = self.read(&self.name, expert, self.rows * self.columns * SIZE)?;
        let (stored, out) = (stored.as_chunks::<SIZE>().0, out.as_chunks_mut::<SIZE>().0);
        // As many rows at once as their cache lines allow.
        const ROWS: usize = 64;
        for first in (0..self.rows).step_by(ROWS) {
            let last = (first + ROWS).min(self.rows);
            for (column, stored) in stored.chunks_exact(self.rows).enumerate() {
                for row in first..last {
                    out[self.place(row) * self.columns + column] = stored[row];
                }
            }
        }
        Ok(())
    }
}

/// Puts the codes of a block, of which a byte holds two neighbours, into the kernels' order: a byte
/// holds two that are half a block apart. The scale comes first.
fn write_block(codes: &[u8; CODE_BYTES], scale: u8, block: &mut [u8]) {
    let code = |index: usize| codes[index / 2] >> (index % 2 * 4) & 15;
    block[0] = scale;
    for (index, byte) in block[1..].iter_mut().enumerate() {
        *byte = code(index) | code(index + CODE_BYTES) << 4;
    }
}
