//! Weights made from a seed, for measurements without a checkpoint: the same numbers on the
//! processor and on a device.

use std::convert::Infallible;

use backstop_arch::{ExpertsRequest, MatrixRole, ModelSpec, VectorRole, WeightMap};
use backstop_card::synthetic_model::SyntheticModel;
use backstop_card::{CudaWeights, DeviceError, Stream};
use backstop_kernels::{CpuWeights, Element, ExpertsId, MatrixId, VectorId, WeightFormat};
use backstop_weights::{
    Checkpoint, Codes, QuantizationError, QuantizationScheme, Scales, WeightsError,
};

use crate::HostWeight;

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
        self.bytes_as(spec, |format, numbers| format.bytes_of(numbers) as u64)
    }

    /// Bytes where so many numbers of a format take as many bytes as this says; vectors and scales are F32.
    pub fn bytes_as(&self, spec: &ModelSpec, bytes_of: impl Fn(WeightFormat, usize) -> u64) -> u64 {
        let WeightMap {
            vectors,
            matrices,
            experts,
            ..
        } = &spec.weights;
        let vectors = vectors.iter().map(|vector| vector.elements() as u64 * 4);
        let matrices = matrices.iter().map(|matrix| {
            let numbers = matrix.rows() * matrix.columns;
            bytes_of(Element::BF16.into(), numbers)
        });
        let experts = experts
            .iter()
            .zip(&self.experts)
            .map(|(request, &element)| {
                let rows = request.num_experts * (2 * request.width + request.hidden);
                let scales = usize::from(element == Element::F8E4M3) * rows * 4;
                let numbers = request.num_experts * 3 * request.width * request.hidden;
                bytes_of(element.into(), numbers) + scales as u64
            });
        vectors.chain(matrices).chain(experts).sum()
    }

    /// Makes them on the host. `progress` is told the bytes made so far, out of
    /// [`cpu_bytes`](Self::cpu_bytes).
    pub fn make_on_cpu(&self, spec: &ModelSpec, progress: &dyn Fn(u64)) -> CpuWeights {
        let mut weights = CpuWeights::new();
        let made: Result<(), Infallible> = self.make_one_by_one(spec, progress, &mut |weight| {
            match weight {
                HostWeight::Vector(vector) => _ = weights.push_vector(vector),
                HostWeight::Matrix(matrix) => _ = weights.push_matrix(matrix),
                HostWeight::Experts(experts) => _ = weights.push_experts(experts),
            }
            Ok(())
        });
        let Ok(()) = made;
        weights
    }

    /// Makes them on the host, and hands each to `take` before the next: vectors, then matrices, then experts, by id.
    pub fn make_one_by_one<E>(
        &self,
        spec: &ModelSpec,
        progress: &dyn Fn(u64),
        take: &mut dyn FnMut(HostWeight) -> Result<(), E>,
    ) -> Result<(), E> {
        let (map, mut done) = (&spec.weights, 0);
        let mut advance = |numbers: usize, element: Element| {
            done += (numbers * element.bytes()) as u64;
            progress(done);
        };
        for (id, vector) in (0..).map(VectorId).zip(&map.vectors) {
            let mean = mean(vector.role);
            let vector = self.model.host_vector(id, vector.elements(), mean);
            take(HostWeight::Vector(vector))?;
        }
        for (id, matrix) in (0..).map(MatrixId).zip(&map.matrices) {
            let router = matrix.role == MatrixRole::Router;
            let shape = [matrix.rows(), matrix.columns];
            let matrix = self.model.host_matrix(id, shape, router);
            take(HostWeight::Matrix(matrix))?;
            advance(shape[0] * shape[1], Element::BF16);
        }
        let experts = map.experts.iter().zip(&self.experts);
        for (id, (request, &element)) in (0..).map(ExpertsId).zip(experts) {
            let shape = [request.num_experts, request.hidden, request.width];
            let experts = self.model.host_experts(id, shape, element);
            take(HostWeight::Experts(experts))?;
            advance(3 * shape.iter().product::<usize>(), element);
        }
        Ok(())
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
