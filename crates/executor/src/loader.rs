//! Reads a checkpoint's tensors into the CPU backend's memory.

use std::sync::atomic::{AtomicU64, Ordering};

use backstop_arch::{ExpertsRequest, MatrixRequest, ModelSpec, WeightMap};
use backstop_kernels::{
    AlignedBytes, Bands, CpuExperts, CpuMatrix, CpuWeights, ExpertMatrices, WeightFormat,
};
use backstop_weights::{Checkpoint, CopyJob, ElementType, QuantizedMatrix};
use rayon::prelude::*;

use crate::alternating_experts::AlternatingExperts;
use crate::block_loader::{BlockJob, copy_blocks, row_scales};
use crate::formats::{LoadFailure, StoredExperts, StoredFormats, StoredMatrix, widened};

/// Loads every weight of `spec`, as it is stored. `progress` is told the bytes read so far, out of
/// [`Checkpoint::bytes_total`].
pub fn load_cpu_weights(
    checkpoint: &Checkpoint,
    spec: &ModelSpec,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<CpuWeights, LoadFailure> {
    load_weights(checkpoint, &spec.weights, progress)
}

/// The same with the weights of `map`.
pub(crate) fn load_weights(
    checkpoint: &Checkpoint,
    map: &WeightMap,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<CpuWeights, LoadFailure> {
    let formats = StoredFormats::of(checkpoint, map)?;
    let done = AtomicU64::new(0);
    let mut buffers = Buffers::allocate(&formats, map)?;
    for (buffers, request) in buffers.experts.iter_mut().zip(&map.experts) {
        buffers.load_alternating(checkpoint, request, &|bytes| {
            progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes);
        })?;
    }
    let mut done = done.into_inner();
    let Jobs { plain, blocks } = buffers.jobs(&formats, map);
    let plain_bytes: usize = plain.iter().map(|job| job.destination.len()).sum();
    checkpoint.copy_all(plain, &|bytes| progress(done + bytes))?;
    done += plain_bytes as u64;
    copy_blocks(checkpoint, blocks, &|bytes| progress(done + bytes))?;
    buffers.read_scales(checkpoint, &formats)?;
    Ok(buffers.finish(map))
}

/// What is to be read.
#[derive(Default)]
struct Jobs<'a> {
    plain: Vec<CopyJob<'a>>,
    blocks: Vec<BlockJob<'a>>,
}

/// Memory for all weights, in the order of the map.
struct Buffers {
    vectors: Vec<Buffer>,
    matrices: Vec<MatrixBuffer>,
    experts: Vec<ExpertBuffers>,
}

/// Raw bytes of a matrix, whose parts may have different formats.
struct MatrixBuffer {
    bands: Bands,
    bytes: AlignedBytes,
}

/// Raw bytes of any other weight.
struct Buffer {
    element: ElementType,
    bytes: AlignedBytes,
}

enum ExpertBuffers {
    /// Bytes of the tensors, or blocks made of them.
    AsStored(StoredExpertBuffers),
    /// Experts whose rows change places, in this format; read layer by layer.
    Alternating(ElementType, Option<CpuExperts>),
}

struct StoredExpertBuffers {
    formats: [WeightFormat; 2],
    gate_up: AlignedBytes,
    down: AlignedBytes,
    /// One factor for each row of `gate_up`, and of `down`, if the weights are FP8.
    scales: [Vec<f32>; 2],
}

impl Buffer {
    fn new(element: ElementType, elements: usize) -> Self {
        let width = element
            .bytes()
            .expect("the census allowed only whole-byte elements");
        Self {
            element,
            bytes: AlignedBytes::zeroed(elements * width),
        }
    }

    /// Bytes of one element.
    fn width(&self) -> usize {
        self.element.bytes().expect("checked in new")
    }

    fn into_f32(self) -> Vec<f32> {
        widened(self.element, self.bytes.as_slice())
    }
}

impl Buffers {
    fn allocate(formats: &StoredFormats, map: &WeightMap) -> Result<Self, LoadFailure> {
        let vectors = formats.vectors.iter().zip(&map.vectors);
        let vectors = vectors.map(|(&element, vector)| Buffer::new(element, vector.elements()));
        let matrices = formats.matrices.iter().zip(&map.matrices);
        let matrices = matrices.map(|(stored, matrix)| MatrixBuffer::new(stored, matrix));
        let experts = formats.experts.iter().zip(&map.experts);
        let experts = experts.map(|(stored, request)| ExpertBuffers::allocate(request, stored));
        Ok(Self {
            vectors: vectors.collect(),
            matrices: matrices.collect::<Result<_, _>>()?,
            experts: experts.collect(),
        })
    }

    /// One job for each tensor or quantised matrix.
    fn jobs<'a>(&'a mut self, formats: &'a StoredFormats, map: &WeightMap) -> Jobs<'a> {
        let mut jobs = Jobs::default();
        for (buffer, vector) in self.vectors.iter_mut().zip(&map.vectors) {
            let parts = vector.parts.iter();
            let parts = parts.map(|part| (&part.name, part.len));
            stacked_jobs(buffer, parts, &mut jobs.plain);
        }
        let matrices = self.matrices.iter_mut().zip(&map.matrices);
        for ((buffer, matrix), stored) in matrices.zip(&formats.matrices) {
            buffer.jobs(matrix, stored, &mut jobs);
        }
        let experts = self.experts.iter_mut().zip(&map.experts);
        for ((buffers, experts), stored) in experts.zip(&formats.experts) {
            buffers.jobs(experts, stored, &mut jobs);
        }
        jobs
    }

    /// Reads the scales that are not part of blocks.
    fn read_scales(
        &mut self,
        checkpoint: &Checkpoint,
        formats: &StoredFormats,
    ) -> Result<(), LoadFailure> {
        for (buffers, stored) in self.experts.iter_mut().zip(&formats.experts) {
            buffers.read_scales(checkpoint, stored)?;
        }
        Ok(())
    }

    fn finish(self, map: &WeightMap) -> CpuWeights {
        let matrices = self
            .matrices
            .into_iter()
            .zip(&map.matrices)
            .map(|(buffer, request)| {
                CpuMatrix::stacked(buffer.bands, request.columns, buffer.bytes)
            });
        let experts = self.experts.into_iter().zip(&map.experts);
        let mut weights = CpuWeights::new();
        for vector in self.vectors {
            weights.push_vector(vector.into_f32());
        }
        for matrix in matrices {
            weights.push_matrix(matrix);
        }
        for (buffers, request) in experts {
            weights.push_experts(buffers.finish(request));
        }
        weights
    }
}

/// Jobs for tensors (name and elements) that lie one behind the other.
fn stacked_jobs<'a, 'n>(
    buffer: &'a mut Buffer,
    parts: impl Iterator<Item = (&'n String, usize)>,
    jobs: &mut Vec<CopyJob<'a>>,
) {
    let width = buffer.width();
    let mut rest = buffer.bytes.as_mut_slice();
    for (name, elements) in parts {
        let (destination, behind) = rest.split_at_mut(elements * width);
        jobs.push(CopyJob::whole(name.clone(), destination));
        rest = behind;
    }
}

impl MatrixBuffer {
    fn new(stored: &[StoredMatrix], matrix: &MatrixRequest) -> Result<Self, LoadFailure> {
        let parts = matrix.parts.iter().zip(stored);
        let parts = parts.map(|(part, stored)| (part.rows, stored.format()));
        let bands = Bands::stacked(parts)
            .ok_or_else(|| LoadFailure::MixedFormats(matrix.parts[0].name.clone()))?;
        Ok(Self {
            bytes: AlignedBytes::zeroed(bands.bytes(matrix.columns)),
            bands,
        })
    }

    fn jobs<'a>(
        &'a mut self,
        matrix: &MatrixRequest,
        stored: &'a [StoredMatrix],
        jobs: &mut Jobs<'a>,
    ) {
        let (mut rest, mut position, mut row) = (self.bytes.as_mut_slice(), 0, 0);
        for (part, stored) in matrix.parts.iter().zip(stored) {
            let range = self.bands.row_range(matrix.columns, row, part.rows);
            let (_, behind) = rest.split_at_mut(range.start - position);
            let (destination, behind) = behind.split_at_mut(range.len());
            match stored {
                StoredMatrix::Plain(_) => {
                    let job = CopyJob::whole(part.name.clone(), destination);
                    jobs.plain.push(job);
                }
                StoredMatrix::Quantized(matrix, format) => jobs.blocks.push(BlockJob {
                    matrix,
                    format: *format,
                    destination,
                }),
            }
            (rest, position, row) = (behind, range.end, row + part.rows);
        }
    }
}

impl ExpertBuffers {
    fn allocate(request: &ExpertsRequest, stored: &StoredExperts) -> Self {
        match request.alternating {
            true => Self::Alternating(stored.elements[0], None),
            false => Self::AsStored(StoredExpertBuffers::allocate(request, stored)),
        }
    }

    /// Reads experts whose rows change places. `progress` is told the bytes of each piece.
    fn load_alternating(
        &mut self,
        checkpoint: &Checkpoint,
        request: &ExpertsRequest,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), LoadFailure> {
        if let Self::Alternating(element, experts) = self {
            let loading = AlternatingExperts {
                checkpoint,
                request,
                element: *element,
                progress,
            };
            *experts = Some(loading.load()?);
        }
        Ok(())
    }

    fn jobs<'a>(
        &'a mut self,
        request: &ExpertsRequest,
        stored: &'a StoredExperts,
        jobs: &mut Jobs<'a>,
    ) {
        if let Self::AsStored(buffers) = self {
            buffers.jobs(request, stored, jobs);
        }
    }

    fn read_scales(
        &mut self,
        checkpoint: &Checkpoint,
        stored: &StoredExperts,
    ) -> Result<(), LoadFailure> {
        match self {
            Self::AsStored(buffers) => buffers.read_scales(checkpoint, stored),
            Self::Alternating(..) => Ok(()),
        }
    }

    fn finish(self, request: &ExpertsRequest) -> CpuExperts {
        match self {
            Self::AsStored(buffers) => buffers.finish(request),
            Self::Alternating(_, experts) => experts.expect("loaded before the rest"),
        }
    }
}

impl StoredExpertBuffers {
    fn allocate(request: &ExpertsRequest, stored: &StoredExperts) -> Self {
        let numbers = request.num_experts * request.width * request.hidden;
        let [gate_up, down] = stored.formats;
        Self {
            formats: stored.formats,
            gate_up: AlignedBytes::zeroed(gate_up.bytes_of(2 * numbers)),
            down: AlignedBytes::zeroed(down.bytes_of(numbers)),
            scales: [Vec::new(), Vec::new()],
        }
    }

    fn jobs<'a>(
        &'a mut self,
        request: &ExpertsRequest,
        stored: &'a StoredExperts,
        jobs: &mut Jobs<'a>,
    ) {
        let (gate_up, down) = (self.gate_up.as_mut_slice(), self.down.as_mut_slice());
        if stored.packed {
            let whole = [
                (request.packed_gate_up(), gate_up),
                (request.packed_down(), down),
            ];
            jobs.plain
                .extend(whole.map(|(name, destination)| CopyJob::whole(name, destination)));
            return;
        }
        let gate_bytes = gate_up.len() / (2 * request.num_experts);
        let down_bytes = down.len() / request.num_experts;
        let gate_up = gate_up.chunks_exact_mut(gate_bytes).enumerate();
        let gate_up = gate_up.map(|(index, bytes)| (index / 2, index % 2, bytes));
        let down = down.chunks_exact_mut(down_bytes).enumerate();
        let down = down.map(|(expert, bytes)| (expert, 2, bytes));
        for (expert, projection, destination) in gate_up.chain(down) {
            let format = self.formats[projection / 2];
            match (format, stored.quantized.get(expert)) {
                (WeightFormat::Blocks(format), Some(matrices)) => {
                    jobs.blocks.push(BlockJob {
                        matrix: &matrices[projection],
                        format,
                        destination,
                    });
                }
                _ => {
                    let name = request.unfused(expert, ["gate", "up", "down"][projection]);
                    jobs.plain.push(CopyJob::whole(name, destination));
                }
            }
        }
    }

    fn read_scales(
        &mut self,
        checkpoint: &Checkpoint,
        stored: &StoredExperts,
    ) -> Result<(), LoadFailure> {
        if !stored.has_row_scales() {
            return Ok(());
        }
        let read = |matrices: &[QuantizedMatrix]| -> Result<Vec<f32>, LoadFailure> {
            let scales = matrices.iter().map(|matrix| row_scales(checkpoint, matrix));
            Ok(scales.collect::<Result<Vec<_>, _>>()?.concat())
        };
        let experts = stored.quantized.par_iter();
        let scales = experts.map(|matrices| Ok([read(&matrices[..2])?, read(&matrices[2..])?]));
        for [gate_up, down] in scales.collect::<Result<Vec<_>, LoadFailure>>()? {
            self.scales[0].extend(gate_up);
            self.scales[1].extend(down);
        }
        Ok(())
    }

    fn finish(self, request: &ExpertsRequest) -> CpuExperts {
        let [gate_up_format, down_format] = self.formats;
        let [gate_up_scales, down_scales] = self.scales;
        let matrices = |format, data, scales| {
            let mut matrices = ExpertMatrices::new(format, data);
            matrices.scales = scales;
            matrices
        };
        CpuExperts {
            num_experts: request.num_experts,
            hidden: request.hidden,
            width: request.width,
            gate_up: matrices(gate_up_format, self.gate_up, gate_up_scales),
            down: matrices(down_format, self.down, down_scales),
        }
    }
}
