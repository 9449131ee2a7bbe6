//! Reads a checkpoint's tensors into the CPU backend's memory.

use std::sync::atomic::{AtomicU64, Ordering};

use backstop_arch::{ExpertsRequest, MatrixRequest, ModelSpec, WeightMap};
use backstop_kernels::{AlignedBytes, Bands, CpuExperts, CpuMatrix, CpuWeights, ExpertMatrices};
use backstop_weights::{Checkpoint, CopyJob, ElementType};

use crate::alternating_experts::AlternatingExperts;
use crate::formats::{LoadFailure, StoredExperts, StoredFormats, weight_format, widened};

/// Loads every weight of `spec`. `progress` is told the bytes read so far, out of
/// [`Checkpoint::bytes_total`].
pub fn load_cpu_weights(
    checkpoint: &Checkpoint,
    spec: &ModelSpec,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<CpuWeights, LoadFailure> {
    let formats = StoredFormats::of(checkpoint, spec)?;
    let map = &spec.weights;
    let done = AtomicU64::new(0);
    let mut buffers = Buffers::allocate(&formats, map)?;
    for (buffers, request) in buffers.experts.iter_mut().zip(&map.experts) {
        buffers.load_alternating(checkpoint, request, &|bytes| {
            progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes);
        })?;
    }
    let done = done.into_inner();
    checkpoint.copy_all(buffers.jobs(map), &|bytes| progress(done + bytes))?;
    Ok(buffers.finish(map))
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
    /// Bytes of the tensors.
    AsStored(StoredExpertBuffers),
    /// Experts whose rows change places, in this format; read layer by layer.
    Alternating(ElementType, Option<CpuExperts>),
}

struct StoredExpertBuffers {
    packed: bool,
    gate_up: Buffer,
    down: Buffer,
    /// Present if the weights are FP8: one factor for each row of `gate_up`, then of `down`.
    scales: Option<[Buffer; 2]>,
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
        let matrices = matrices.map(|(elements, matrix)| MatrixBuffer::new(elements, matrix));
        let experts = formats.experts.iter().zip(&map.experts);
        let experts = experts.map(|(stored, request)| ExpertBuffers::allocate(request, stored));
        Ok(Self {
            vectors: vectors.collect(),
            matrices: matrices.collect::<Result<_, _>>()?,
            experts: experts.collect(),
        })
    }

    /// One job for each tensor.
    fn jobs<'a>(&'a mut self, map: &WeightMap) -> Vec<CopyJob<'a>> {
        let mut jobs = Vec::new();
        for (buffer, vector) in self.vectors.iter_mut().zip(&map.vectors) {
            let parts = vector.parts.iter();
            let parts = parts.map(|part| (&part.name, part.len));
            stacked_jobs(buffer, parts, &mut jobs);
        }
        for (buffer, matrix) in self.matrices.iter_mut().zip(&map.matrices) {
            buffer.jobs(matrix, &mut jobs);
        }
        for (buffers, experts) in self.experts.iter_mut().zip(&map.experts) {
            buffers.jobs(experts, &mut jobs);
        }
        jobs
    }

    fn finish(self, map: &WeightMap) -> CpuWeights {
        let matrices = self
            .matrices
            .into_iter()
            .zip(&map.matrices)
            .map(|(buffer, request)| {
                CpuMatrix::stacked(buffer.bands, request.columns, buffer.bytes).arranged()
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
    fn new(elements: &[ElementType], matrix: &MatrixRequest) -> Result<Self, LoadFailure> {
        let parts = matrix.parts.iter().zip(elements);
        let parts = parts.map(|(part, &element)| (part.rows, weight_format(element)));
        let bands = Bands::stacked(parts)
            .ok_or_else(|| LoadFailure::MixedFormats(matrix.parts[0].name.clone()))?;
        Ok(Self {
            bytes: AlignedBytes::zeroed(bands.bytes(matrix.columns)),
            bands,
        })
    }

    fn jobs<'a>(&'a mut self, matrix: &MatrixRequest, jobs: &mut Vec<CopyJob<'a>>) {
        let (mut rest, mut position, mut row) = (self.bytes.as_mut_slice(), 0, 0);
        for part in &matrix.parts {
            let range = self.bands.row_range(matrix.columns, row, part.rows);
            let (_, behind) = rest.split_at_mut(range.start - position);
            let (destination, behind) = behind.split_at_mut(range.len());
            jobs.push(CopyJob::whole(part.name.clone(), destination));
            (rest, position, row) = (behind, range.end, row + part.rows);
        }
    }
}

impl ExpertBuffers {
    fn allocate(request: &ExpertsRequest, stored: &StoredExperts) -> Self {
        match request.alternating {
            true => Self::Alternating(stored.weight, None),
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

    fn jobs<'a>(&'a mut self, request: &ExpertsRequest, jobs: &mut Vec<CopyJob<'a>>) {
        if let Self::AsStored(buffers) = self {
            buffers.jobs(request, jobs);
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
        let ExpertsRequest {
            num_experts,
            hidden,
            width,
            ..
        } = *request;
        let scales = stored.scale.map(|scale| {
            let buffer = |rows: usize| Buffer::new(scale, num_experts * rows);
            [buffer(2 * width), buffer(hidden)]
        });
        Self {
            packed: stored.packed,
            gate_up: Buffer::new(stored.weight, num_experts * 2 * width * hidden),
            down: Buffer::new(stored.weight, num_experts * hidden * width),
            scales,
        }
    }

    fn jobs<'a>(&'a mut self, request: &ExpertsRequest, jobs: &mut Vec<CopyJob<'a>>) {
        if self.packed {
            let destination = self.gate_up.bytes.as_mut_slice();
            jobs.push(CopyJob::whole(request.packed_gate_up(), destination));
            let destination = self.down.bytes.as_mut_slice();
            jobs.push(CopyJob::whole(request.packed_down(), destination));
            return;
        }
        let weights = [&mut self.gate_up, &mut self.down];
        unfused_jobs(request, weights, [request.hidden, request.width], "", jobs);
        if let Some([gate_up, down]) = &mut self.scales {
            unfused_jobs(request, [gate_up, down], [1, 1], "_scale", jobs);
        }
    }

    fn finish(self, request: &ExpertsRequest) -> CpuExperts {
        let matrices =
            |buffer: Buffer| ExpertMatrices::new(weight_format(buffer.element), buffer.bytes);
        let mut experts = CpuExperts {
            num_experts: request.num_experts,
            hidden: request.hidden,
            width: request.width,
            gate_up: matrices(self.gate_up),
            down: matrices(self.down),
        };
        if let Some([gate_up, down]) = self.scales {
            experts.gate_up.scales = gate_up.into_f32();
            experts.down.scales = down.into_f32();
        }
        experts
    }
}

/// Jobs for the tensors of every expert: gate above up in the first buffer, down in the second.
/// `columns` are those of the two buffers.
fn unfused_jobs<'a>(
    request: &ExpertsRequest,
    buffers: [&'a mut Buffer; 2],
    columns: [usize; 2],
    suffix: &str,
    jobs: &mut Vec<CopyJob<'a>>,
) {
    let [gate_up, down] = buffers;
    let gate_bytes = request.width * columns[0] * gate_up.width();
    let down_bytes = request.hidden * columns[1] * down.width();
    let gate_up = gate_up.bytes.as_mut_slice().chunks_exact_mut(gate_bytes);
    for (index, destination) in gate_up.enumerate() {
        let projection = ["gate", "up"][index % 2];
        jobs.push(CopyJob::whole(
            request.unfused(index / 2, projection) + suffix,
            destination,
        ));
    }
    let down = down.bytes.as_mut_slice().chunks_exact_mut(down_bytes);
    for (expert, destination) in down.enumerate() {
        jobs.push(CopyJob::whole(
            request.unfused(expert, "down") + suffix,
            destination,
        ));
    }
}
