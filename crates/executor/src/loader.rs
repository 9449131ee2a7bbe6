//! Reads a checkpoint's tensors into the CPU backend's memory.

use backstop_arch::{ExpertsRequest, MatrixRequest, ModelSpec, WeightMap};
use backstop_kernels::{AlignedBytes, CpuExperts, CpuMatrix, CpuWeights, Element};
use backstop_weights::{
    CensusError, Checkpoint, CopyJob, ElementType, LoadError, QuantizationError, WeightsError,
    census,
};

/// Why a checkpoint could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadFailure {
    /// Its tensors are not those of the model.
    #[error(transparent)]
    Census(#[from] CensusError),
    /// A tensor could not be read, or holds something that is not a number.
    #[error(transparent)]
    Read(#[from] LoadError),
    /// Its quantisation is not understood.
    #[error(transparent)]
    Checkpoint(#[from] WeightsError),
    /// Weights and scales do not belong together.
    #[error(transparent)]
    Quantization(#[from] QuantizationError),
    /// Tensors that are computed as one are stored in different number formats.
    #[error(
        "{0} and other tensors that are computed with it are stored in different number formats"
    )]
    MixedFormats(String),
}

/// Loads every weight of `spec`. `progress` is told the bytes read so far, out of
/// [`Checkpoint::bytes_total`].
pub fn load_cpu_weights(
    checkpoint: &Checkpoint,
    spec: &ModelSpec,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<CpuWeights, LoadFailure> {
    // Refuses schemes that are not understood, before any tensor is looked at.
    let quantization = checkpoint.quantization()?;
    let map = &spec.weights;
    let expected = map.expected(|name| checkpoint.tensor(name).is_some());
    census(checkpoint, &expected)?;
    quantization.check_tensors(checkpoint)?;

    let mut buffers = Buffers::allocate(checkpoint, map)?;
    checkpoint.copy_all(buffers.jobs(map), progress)?;
    Ok(buffers.finish(map))
}

/// Memory for all weights, in the order of the map.
struct Buffers {
    vectors: Vec<Buffer>,
    matrices: Vec<Buffer>,
    experts: Vec<ExpertBuffers>,
}

/// Raw bytes of one weight.
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
        match self.element {
            ElementType::F32 => self.bytes.as_f32().to_vec(),
            // BF16 is the upper half of an f32.
            _ => self
                .bytes
                .as_u16()
                .iter()
                .map(|bits| f32::from_bits(u32::from(*bits) << 16))
                .collect(),
        }
    }
}

impl Buffers {
    fn allocate(checkpoint: &Checkpoint, map: &WeightMap) -> Result<Self, LoadFailure> {
        let element = |name: &str| {
            checkpoint
                .tensor(name)
                .expect("the census found every required tensor")
                .element_type
        };
        let vectors = map
            .vectors
            .iter()
            .map(|vector| Buffer::new(element(&vector.name), vector.len));
        let matrices = map.matrices.iter().map(|matrix| {
            let names = matrix.parts.iter().map(|part| part.name.as_str());
            let element = common_element(names, &element)?;
            Ok(Buffer::new(element, matrix.rows() * matrix.columns))
        });
        let experts = map.experts.iter().map(|experts| {
            let packed = checkpoint.tensor(&experts.packed_gate_up()).is_some();
            ExpertBuffers::allocate(experts, packed, &element)
        });
        Ok(Self {
            vectors: vectors.collect(),
            matrices: matrices.collect::<Result<_, LoadFailure>>()?,
            experts: experts.collect::<Result<_, _>>()?,
        })
    }

    /// One job for each tensor.
    fn jobs<'a>(&'a mut self, map: &WeightMap) -> Vec<CopyJob<'a>> {
        let mut jobs = Vec::new();
        for (buffer, vector) in self.vectors.iter_mut().zip(&map.vectors) {
            let destination = buffer.bytes.as_mut_slice();
            jobs.push(CopyJob {
                name: vector.name.clone(),
                destination,
            });
        }
        for (buffer, matrix) in self.matrices.iter_mut().zip(&map.matrices) {
            matrix_jobs(buffer, matrix, &mut jobs);
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
                CpuMatrix::new(
                    request.rows(),
                    request.columns,
                    kernel_element(buffer.element),
                    buffer.bytes,
                )
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

fn common_element<'a>(
    names: impl Iterator<Item = &'a str>,
    element: &impl Fn(&str) -> ElementType,
) -> Result<ElementType, LoadFailure> {
    let mut common = None;
    for name in names {
        let found = element(name);
        if *common.get_or_insert(found) != found {
            return Err(LoadFailure::MixedFormats(name.to_owned()));
        }
    }
    Ok(common.expect("a weight has at least one tensor"))
}

fn matrix_jobs<'a>(buffer: &'a mut Buffer, matrix: &MatrixRequest, jobs: &mut Vec<CopyJob<'a>>) {
    let row_bytes = matrix.columns * buffer.width();
    let mut rest = buffer.bytes.as_mut_slice();
    for part in &matrix.parts {
        let (destination, behind) = rest.split_at_mut(part.rows * row_bytes);
        jobs.push(CopyJob {
            name: part.name.clone(),
            destination,
        });
        rest = behind;
    }
}

impl ExpertBuffers {
    fn allocate(
        request: &ExpertsRequest,
        packed: bool,
        element: &impl Fn(&str) -> ElementType,
    ) -> Result<Self, LoadFailure> {
        let ExpertsRequest {
            num_experts,
            hidden,
            width,
            ..
        } = *request;
        let weight = if packed {
            let names = [request.packed_gate_up(), request.packed_down()];
            common_element(names.iter().map(String::as_str), element)?
        } else {
            common_unfused(request, "", element)?
        };
        let scales = if weight == ElementType::F8E4M3 {
            let scale = common_unfused(request, "_scale", element)?;
            let buffer = |rows: usize| Buffer::new(scale, num_experts * rows);
            Some([buffer(2 * width), buffer(hidden)])
        } else {
            None
        };
        Ok(Self {
            packed,
            gate_up: Buffer::new(weight, num_experts * 2 * width * hidden),
            down: Buffer::new(weight, num_experts * hidden * width),
            scales,
        })
    }

    fn jobs<'a>(&'a mut self, request: &ExpertsRequest, jobs: &mut Vec<CopyJob<'a>>) {
        if self.packed {
            let destination = self.gate_up.bytes.as_mut_slice();
            jobs.push(CopyJob {
                name: request.packed_gate_up(),
                destination,
            });
            let destination = self.down.bytes.as_mut_slice();
            jobs.push(CopyJob {
                name: request.packed_down(),
                destination,
            });
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

/// The number format of all unfused tensors of a layer's experts.
fn common_unfused(
    request: &ExpertsRequest,
    suffix: &str,
    element: &impl Fn(&str) -> ElementType,
) -> Result<ElementType, LoadFailure> {
    let names: Vec<String> = (0..request.num_experts)
        .flat_map(|expert| {
            ["gate", "up", "down"].map(|kind| request.unfused(expert, kind) + suffix)
        })
        .collect();
    common_element(names.iter().map(String::as_str), element)
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
        jobs.push(CopyJob {
            name: request.unfused(index / 2, projection) + suffix,
            destination,
        });
    }
    let down = down.bytes.as_mut_slice().chunks_exact_mut(down_bytes);
    for (expert, destination) in down.enumerate() {
        jobs.push(CopyJob {
            name: request.unfused(expert, "down") + suffix,
            destination,
        });
    }
}

fn kernel_element(element: ElementType) -> Element {
    match element {
        ElementType::F32 => Element::F32,
        ElementType::BF16 => Element::BF16,
        ElementType::F8E4M3 => Element::F8E4M3,
        _ => unreachable!("the census allows no other number format"),
    }
}
