//! Weights made from a seed, for measurements without a checkpoint: the same numbers on the
//! processor and on a device.

use backstop_arch::{ExpertsRequest, MatrixRole, ModelSpec, VectorRole, WeightMap};
use backstop_card::synthetic_model::SyntheticModel;
use backstop_card::{CudaWeights, DeviceError, Stream};
use backstop_kernels::{CpuWeights, Element, ExpertsId, MatrixId, VectorId};
use backstop_weights::{
    Checkpoint, Codes, QuantizationError, QuantizationScheme, Scales, WeightsError,
};

/// Weights of a model that are made and not read. Matrices and vectors are as in a BF16
/// checkpoint; experts are in FP8 with a scale for each row if the configuration says so.
#[derive(Clone, Debug)]
pub struct SyntheticWeights {
    model: SyntheticModel,
    pub(crate) experts: Vec<Element>,
}

impl SyntheticWeights {
    /// Weights of the shape `spec`, in the formats that `checkpoint`'s configuration asks for.
    pub fn new(checkpoint: &Checkpoint, spec: &ModelSpec, seed: u64) -> Result<Self, WeightsError> {
        let quantization = checkpoint.quantization()?;
        if quantization.has_mxfp4_experts() {
            return Err(not_made_up("MXFP4"));
        }
        let experts = spec.weights.experts.iter();
        let experts = experts.map(|request| expert_element(&quantization, request));
        Ok(Self {
            model: SyntheticModel::new(seed),
            experts: experts.collect::<Result<_, _>>()?,
        })
    }

    /// Bytes that they take in memory on the host.
    pub fn cpu_bytes(&self, spec: &ModelSpec) -> u64 {
        let WeightMap {
            vectors,
            matrices,
            experts,
            ..
        } = &spec.weights;
        let vectors = vectors.iter().map(|vector| vector.elements() * 4);
        let matrices = matrices.iter().map(|matrix| {
            let numbers = matrix.rows() * matrix.columns;
            numbers * Element::BF16.bytes()
        });
        let experts = experts
            .iter()
            .zip(&self.experts)
            .map(|(request, &element)| {
                let rows = request.num_experts * (2 * request.width + request.hidden);
                let scales = usize::from(element == Element::F8E4M3) * rows * 4;
                request.num_experts * 3 * request.width * request.hidden * element.bytes() + scales
            });
        vectors.chain(matrices).chain(experts).sum::<usize>() as u64
    }

    /// Makes them on the host. `progress` is told the bytes made so far, out of
    /// [`cpu_bytes`](Self::cpu_bytes).
    pub fn make_on_cpu(&self, spec: &ModelSpec, progress: &dyn Fn(u64)) -> CpuWeights {
        let map = &spec.weights;
        let mut weights = CpuWeights::new();
        for vector in &map.vectors {
            let mean = mean(vector.role);
            self.model
                .push_vector(&mut weights, vector.elements(), mean);
        }
        for matrix in &map.matrices {
            let router = matrix.role == MatrixRole::Router;
            let shape = [matrix.rows(), matrix.columns];
            self.model.push_matrix(&mut weights, shape, router);
            progress(weights.bytes() as u64);
        }
        for (experts, &element) in map.experts.iter().zip(&self.experts) {
            let shape = [experts.num_experts, experts.hidden, experts.width];
            self.model.push_experts(&mut weights, shape, element);
            progress(weights.bytes() as u64);
        }
        weights
    }

    /// Makes them in the memory that a plan for them has reserved.
    pub fn make_on_device(
        &self,
        spec: &ModelSpec,
        weights: &CudaWeights,
    ) -> Result<(), DeviceError> {
        let map = &spec.weights;
        for (id, vector) in (0..).map(VectorId).zip(&map.vectors) {
            let mean = mean(vector.role);
            self.model
                .make_vector(weights, id, vector.elements(), mean)?;
        }
        for (id, matrix) in (0..).map(MatrixId).zip(&map.matrices) {
            let router = matrix.role == MatrixRole::Router;
            self.model.make_matrix(weights, id, router)?;
        }
        for (id, _) in (0..).map(ExpertsId).zip(&map.experts) {
            self.model.make_experts(weights, id)?;
        }
        weights.device().synchronize(Stream::Main)
    }
}

/// What a vector's numbers lie around.
fn mean(role: VectorRole) -> f32 {
    match role {
        VectorRole::Gain => 1.0,
        VectorRole::Bias => 0.0,
    }
}

/// Experts are quantised all or not at all; the first stands for the layer.
fn expert_element(
    quantization: &QuantizationScheme,
    request: &ExpertsRequest,
) -> Result<Element, WeightsError> {
    let gate = request.unfused(0, 0);
    let module = gate.strip_suffix(".weight").unwrap_or(&gate);
    match quantization.of_module(module) {
        None => Ok(Element::BF16),
        Some(weights) if (weights.codes, weights.scales) == (Codes::F8E4M3, Scales::Row) => {
            Ok(Element::F8E4M3)
        }
        Some(weights) => Err(not_made_up(weights.codes.name())),
    }
}

fn not_made_up(format: &str) -> WeightsError {
    let problem = "experts are made up in BF16 and in FP8 with a scale for each row only";
    WeightsError::Quantization(QuantizationError::Unsupported {
        format: format.to_owned(),
        problems: vec![problem.to_owned()],
    })
}
