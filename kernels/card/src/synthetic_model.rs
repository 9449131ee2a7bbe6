//! Synthetic weights of a whole model: on the device, in the memory that [`CudaWeights`] reserved,
//! or the same numbers on the host.

use backstop_kernels::backend::{ExpertsId, MatrixId, VectorId};
use backstop_kernels::{AlignedBytes, CpuExperts, CpuMatrix, Element, ExpertMatrices};

use super::buffer::DeviceBuffer;
use super::device::{DeviceError, DevicePointer, Stream};
use super::layout::TiledMatrix;
use super::staging::WeightRows;
use super::synthetic::{SyntheticMatrix, SyntheticTensor, SyntheticVector, gate_factors};
use super::weights::CudaWeights;

/// Deviation of vectors from their mean: one for what is multiplied with, zero for biases.
const VECTOR_DEVIATION: f32 = 0.1;

/// The tensors of a model, as a seed stands for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyntheticModel {
    seed: u64,
}

/// Kinds of tensors; each weight has one tensor of each kind that it needs.
#[derive(Clone, Copy)]
enum Kind {
    Vector,
    Matrix,
    GateUp,
    Down,
    GateUpScales,
    DownScales,
}

/// A layer's experts.
struct Experts {
    gate_up: SyntheticMatrix,
    down: SyntheticMatrix,
    /// Used with E4M3.
    gate_up_scales: SyntheticVector,
    /// Used with E4M3.
    down_scales: SyntheticVector,
}

impl SyntheticModel {
    /// Models of one seed and shape are the same.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    fn tensor(self, kind: Kind, id: u32) -> SyntheticTensor {
        assert!(id < 1 << 24, "a model has fewer weights");
        SyntheticTensor::new(self.seed, (kind as u32) << 24 | id)
    }

    fn vector(self, id: VectorId, mean: f32) -> SyntheticVector {
        SyntheticVector {
            tensor: self.tensor(Kind::Vector, id.0),
            mean,
            deviation: VECTOR_DEVIATION,
        }
    }

    fn matrix(self, id: MatrixId, matrix: TiledMatrix) -> SyntheticMatrix {
        SyntheticMatrix::weights(self.tensor(Kind::Matrix, id.0), matrix, 1)
    }

    fn experts(self, id: ExpertsId, layouts: [TiledMatrix; 2], num_experts: usize) -> Experts {
        let tensor = |kind| self.tensor(kind, id.0);
        let [gate_up, down] = layouts;
        let gate_up = SyntheticMatrix::weights(tensor(Kind::GateUp), gate_up, num_experts);
        let down = SyntheticMatrix::weights(tensor(Kind::Down), down, num_experts);
        Experts {
            gate_up_scales: gate_up.scales(tensor(Kind::GateUpScales)),
            down_scales: down.scales(tensor(Kind::DownScales)),
            gate_up,
            down,
        }
    }

    /// Queues the making of a vector of `len` numbers around `mean` on the main stream.
    pub fn make_vector(
        self,
        weights: &CudaWeights,
        id: VectorId,
        len: usize,
        mean: f32,
    ) -> Result<(), DeviceError> {
        let out = weights.vector(id, len);
        // SAFETY: the weights have reserved room for them.
        unsafe {
            self.vector(id, mean)
                .launch(&**weights.device(), Stream::Main, out, len)
        }
    }

    /// Queues the making of a matrix on the main stream. A router's rows have factors that make
    /// some experts more popular than others.
    pub fn make_matrix(
        self,
        weights: &CudaWeights,
        id: MatrixId,
        router: bool,
    ) -> Result<(), DeviceError> {
        let (stack, _) = weights.stack(WeightRows::Matrix(id));
        let matrix = self.matrix(id, stack.matrix);
        let factors = router.then(|| gate_factors(matrix.tensor, stack.matrix.rows));
        let factors = factors
            .map(|factors| DeviceBuffer::from_slice(weights.device(), &factors))
            .transpose()?;
        let factors = factors.as_ref();
        let pointer = factors.map_or(DevicePointer::NULL, DeviceBuffer::pointer);
        // SAFETY: the weights have reserved the matrix, and the factors, one for each row, are
        // given back only after the launch.
        unsafe { matrix.launch(&**weights.device(), Stream::Main, stack.data, pointer) }
    }

    /// Queues the making of a layer's experts on the main stream.
    pub fn make_experts(self, weights: &CudaWeights, id: ExpertsId) -> Result<(), DeviceError> {
        let device = &**weights.device();
        let stacks = [WeightRows::GateUp(id), WeightRows::Down(id)].map(|rows| weights.stack(rows));
        let [(gate_up, count), (down, _)] = stacks;
        let experts = self.experts(id, [gate_up.matrix, down.matrix], count);
        let parts = [
            (gate_up, experts.gate_up, experts.gate_up_scales),
            (down, experts.down, experts.down_scales),
        ];
        for (stack, matrices, scales) in parts {
            // SAFETY: the weights have reserved the matrices, and scales for E4M3.
            unsafe {
                matrices.launch(device, Stream::Main, stack.data, DevicePointer::NULL)?;
                if stack.matrix.element == Element::F8E4M3 {
                    let rows = stack.matrix;
                    scales.launch_for_rows(device, Stream::Main, stack.scales, rows, count)?;
                }
            }
        }
        Ok(())
    }

    /// A vector in the memory of the host.
    pub fn host_vector(self, id: VectorId, len: usize, mean: f32) -> Vec<f32> {
        self.vector(id, mean).host(len)
    }

    /// A BF16 matrix in the memory of the host.
    pub fn host_matrix(self, id: MatrixId, [rows, columns]: [usize; 2], router: bool) -> CpuMatrix {
        let matrix = self.matrix(id, TiledMatrix::new(rows, columns, Element::BF16));
        let factors = router.then(|| gate_factors(matrix.tensor, rows));
        let bytes = AlignedBytes::copy_of(&matrix.host(factors.as_deref()));
        CpuMatrix::new(rows, columns, Element::BF16, bytes)
    }

    /// The experts `[num_experts, hidden, width]` of a layer in the memory of the host.
    pub fn host_experts(
        self,
        id: ExpertsId,
        [num_experts, hidden, width]: [usize; 3],
        element: Element,
    ) -> CpuExperts {
        let layouts = [
            TiledMatrix::gate_up(width, hidden, element),
            TiledMatrix::new(hidden, width, element),
        ];
        let experts = self.experts(id, layouts, num_experts);
        let matrices = |matrix: SyntheticMatrix, scales: SyntheticVector, rows: usize| {
            let data = AlignedBytes::copy_of(&matrix.host(None));
            let mut matrices = ExpertMatrices::new(element, data);
            if matrices.are_fp8() {
                matrices.scales = scales.host(num_experts * rows);
            }
            matrices
        };
        CpuExperts {
            num_experts,
            hidden,
            width,
            gate_up: matrices(experts.gate_up, experts.gate_up_scales, 2 * width),
            down: matrices(experts.down, experts.down_scales, hidden),
        }
    }
}
