//! Reads a checkpoint's tensors into the CPU backend's memory.

use backstop_arch::{ExpertsRequest, MatrixRequest, ModelSpec, WeightMap};
use backstop_kernels::{AlignedBytes, Bands, CpuExperts, CpuMatrix, CpuWeights};
use backstop_weights::{Checkpoint, CopyJob, ElementType};

use crate::formats::{
    LoadFailure, StoredExperts, StoredFormats, kernel_element, weight_format, widened,
};

/// Loads every weight of `spec`. `progress` is told the bytes read so far, out of
/// [`Checkpoint::bytes_total`].
pub fn load_cpu_weights(
    checkpoint: &Checkpoint,
    spec: &ModelSpec,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<CpuWeights, LoadFailure> {
    let formats = StoredFormats::of(checkpoint, spec)?;
    let map = &spec.weights;
    let mut buffers = Buffers::allocate(&formats, map)?;
    checkpoint.copy_all(buffers.jobs(map), progress)?;
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

struct ExpertBuffers {
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
        let scales = self
            .scales
            .map(|[gate_up, down]| (gate_up.into_f32(), down.into_f32()));
        let (gate_up_scales, down_scales) = scales.unwrap_or_default();
        CpuExperts {
            num_experts: request.num_experts,
            hidden: request.hidden,
            width: request.width,
            element: kernel_element(self.gate_up.element),
            gate_up: self.gate_up.bytes,
            down: self.down.bytes,
            gate_up_scales,
            down_scales,
        }
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
