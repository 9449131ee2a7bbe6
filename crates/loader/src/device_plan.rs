//! What the weights of a model take on a device, known before any is read.

use std::sync::Arc;

use backstop_arch::{MatrixRequest, MatrixRole, ModelSpec, VectorRequest, WeightMap};
use backstop_card::layout::TiledMatrix;
use backstop_card::staging::WeightRows;
use backstop_card::{ABILITIES, CudaWeights, Device, DeviceError};
use backstop_kernels::{Element, Feature, Needs, WeightFormat};
use backstop_weights::Checkpoint;

use crate::{LoadFailure, Sources, SyntheticWeights};

/// What the weights of a model take on a device, known before any is read.
#[derive(Clone, Debug)]
pub struct DeviceWeightPlan {
    vectors: Vec<usize>,
    matrices: Vec<TiledMatrix>,
    experts: Vec<ExpertsPlan>,
}

/// A layer's experts.
#[derive(Clone, Copy, Debug)]
struct ExpertsPlan {
    num_experts: usize,
    hidden: usize,
    width: usize,
    element: Element,
}

impl DeviceWeightPlan {
    /// For the weights of a checkpoint, which is checked for this model.
    pub fn of_checkpoint(checkpoint: &Checkpoint, spec: &ModelSpec) -> Result<Self, LoadFailure> {
        let sources = sources(checkpoint, spec)?;
        let experts = sources.rows.iter();
        let experts = experts.filter_map(|rows| match (rows.target, rows.sources[0].format) {
            (WeightRows::GateUp(_), WeightFormat::Numbers(element)) => Some(element),
            _ => None,
        });
        Ok(Self::new(&spec.weights, experts))
    }

    /// For weights that are made.
    pub fn of_synthetic(weights: &SyntheticWeights, spec: &ModelSpec) -> Self {
        Self::new(&spec.weights, weights.experts.iter().copied())
    }

    fn new(map: &WeightMap, expert_elements: impl Iterator<Item = Element>) -> Self {
        let experts = map.experts.iter().zip(expert_elements);
        let experts = experts.map(|(experts, element)| ExpertsPlan {
            num_experts: experts.num_experts,
            hidden: experts.hidden,
            width: experts.width,
            element,
        });
        Self {
            vectors: map.vectors.iter().map(VectorRequest::elements).collect(),
            matrices: map.matrices.iter().map(layout).collect(),
            experts: experts.collect(),
        }
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> u64 {
        let vectors = self.vectors.iter().map(|len| len * 4);
        let matrices = self.matrices.iter().map(TiledMatrix::bytes);
        let experts = self.experts.iter().map(ExpertsPlan::bytes);
        vectors.chain(matrices).chain(experts).sum::<usize>() as u64
    }

    /// Takes the memory, with ids in the order of the model's [`WeightMap`].
    pub fn reserve(&self, device: &Arc<dyn Device>) -> Result<CudaWeights, DeviceError> {
        let mut weights = CudaWeights::new(device);
        for &len in &self.vectors {
            weights.reserve_vector(len)?;
        }
        for &matrix in &self.matrices {
            weights.reserve_matrix(matrix)?;
        }
        for experts in &self.experts {
            let shape = [experts.num_experts, experts.hidden, experts.width];
            weights.reserve_experts(shape, experts.element)?;
        }
        Ok(weights)
    }
}

impl ExpertsPlan {
    fn bytes(&self) -> usize {
        let matrices = [
            TiledMatrix::gate_up(self.width, self.hidden, self.element),
            TiledMatrix::new(self.hidden, self.width, self.element),
        ];
        let scale_bytes = match self.element {
            Element::F8E4M3 => 4,
            _ => 0,
        };
        let bytes = matrices.map(|matrix| matrix.bytes() + matrix.padded_rows() * scale_bytes);
        self.num_experts * bytes.iter().sum::<usize>()
    }
}

/// The weights of a checkpoint, all in formats that a card computes with.
pub(crate) fn sources(checkpoint: &Checkpoint, spec: &ModelSpec) -> Result<Sources, LoadFailure> {
    let sources = Sources::of(checkpoint, &spec.weights)?;
    if sources.has_biased_experts() {
        let needs = Needs {
            features: vec![Feature::ClampedExperts],
            ..Needs::default()
        };
        ABILITIES.check(&needs)?;
    }
    for used in sources.formats() {
        used.check(&ABILITIES)?;
    }
    Ok(sources)
}

fn layout(matrix: &MatrixRequest) -> TiledMatrix {
    match matrix.role {
        MatrixRole::GateUp => {
            TiledMatrix::gate_up(matrix.rows() / 2, matrix.columns, Element::BF16)
        }
        _ => TiledMatrix::new(matrix.rows(), matrix.columns, Element::BF16),
    }
}
