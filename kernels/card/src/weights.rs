//! Weights in device memory, laid out for the matrix products.

use std::sync::Arc;

use backstop_kernels::backend::{ExpertsId, MatrixId, VectorId};
use backstop_kernels::{CpuWeights, Element};

use super::buffer::{DeviceBuffer, Plain};
use super::device::{Device, DeviceError, DevicePointer, Stream};
use super::layout::TiledMatrix;
use super::product::ProductWeights;
use crate::ops::experts::DeviceExperts;

/// All weights of a model, indexed by the ids that the architecture uses. Memory is reserved first
/// and filled by whoever loads or makes the weights.
pub struct CudaWeights {
    device: Arc<dyn Device>,
    vectors: Vec<Vector>,
    matrices: Vec<ProductWeights>,
    experts: Vec<DeviceExperts>,
    memory: Vec<DeviceBuffer>,
}

#[derive(Clone, Copy, Debug)]
struct Vector {
    data: DevicePointer,
    len: usize,
}

/// Memory of one layer's experts.
#[derive(Clone, Copy, Debug)]
pub struct ExpertsMemory {
    /// Layout of each expert's gate-and-up matrix.
    pub gate_up_layout: TiledMatrix,
    /// Layout of each expert's down matrix.
    pub down_layout: TiledMatrix,
    /// `[experts]` matrices, one after the other.
    pub gate_up: DevicePointer,
    /// `[experts]` matrices, one after the other.
    pub down: DevicePointer,
    /// f32 `[experts][padded rows]` of `gate_up`; null unless the weights are E4M3.
    pub gate_up_scales: DevicePointer,
    /// f32 `[experts][padded rows]` of `down`; null unless the weights are E4M3.
    pub down_scales: DevicePointer,
}

impl CudaWeights {
    /// No weights yet.
    pub fn new(device: &Arc<dyn Device>) -> Self {
        Self {
            device: Arc::clone(device),
            vectors: Vec::new(),
            matrices: Vec::new(),
            experts: Vec::new(),
            memory: Vec::new(),
        }
    }

    fn reserve(&mut self, bytes: usize) -> Result<DevicePointer, DeviceError> {
        let buffer = DeviceBuffer::new(&self.device, bytes)?;
        let pointer = buffer.pointer();
        self.memory.push(buffer);
        Ok(pointer)
    }

    /// Memory for a vector of `len` f32; ids count up from 0.
    pub fn reserve_vector(&mut self, len: usize) -> Result<(VectorId, DevicePointer), DeviceError> {
        let data = self.reserve(len * 4)?;
        self.vectors.push(Vector { data, len });
        Ok((VectorId(self.vectors.len() as u32 - 1), data))
    }

    /// Memory for a BF16 matrix; ids count up from 0.
    pub fn reserve_matrix(
        &mut self,
        layout: TiledMatrix,
    ) -> Result<(MatrixId, DevicePointer), DeviceError> {
        assert_eq!(layout.element, Element::BF16, "matrices are BF16");
        let data = self.reserve(layout.bytes())?;
        self.matrices.push(ProductWeights {
            data,
            scales: DevicePointer::NULL,
            bias: DevicePointer::NULL,
            matrix: layout,
        });
        Ok((MatrixId(self.matrices.len() as u32 - 1), data))
    }

    /// Memory for a layer's experts `[num_experts, hidden, width]`, BF16 or E4M3; ids count up
    /// from 0.
    pub fn reserve_experts(
        &mut self,
        [num_experts, hidden, width]: [usize; 3],
        element: Element,
    ) -> Result<(ExpertsId, ExpertsMemory), DeviceError> {
        let gate_up_layout = TiledMatrix::gate_up(width, hidden, element);
        let down_layout = TiledMatrix::new(hidden, width, element);
        let mut scales = |layout: &TiledMatrix| match element {
            Element::F8E4M3 => self.reserve(num_experts * layout.padded_rows() * 4),
            _ => Ok(DevicePointer::NULL),
        };
        let memory = ExpertsMemory {
            gate_up_scales: scales(&gate_up_layout)?,
            down_scales: scales(&down_layout)?,
            gate_up: self.reserve(num_experts * gate_up_layout.bytes())?,
            down: self.reserve(num_experts * down_layout.bytes())?,
            gate_up_layout,
            down_layout,
        };
        self.experts.push(DeviceExperts {
            num_experts,
            gate_up: ProductWeights {
                data: memory.gate_up,
                scales: memory.gate_up_scales,
                bias: DevicePointer::NULL,
                matrix: gate_up_layout,
            },
            down: ProductWeights {
                data: memory.down,
                scales: memory.down_scales,
                bias: DevicePointer::NULL,
                matrix: down_layout,
            },
        });
        Ok((ExpertsId(self.experts.len() as u32 - 1), memory))
    }

    /// Copies weights that are in host memory: how small models and tests come to a device.
    /// `is_gate_up` says which matrices are gate and up of a feed-forward block.
    ///
    /// # Panics
    ///
    /// If a matrix or experts are F32.
    pub fn from_host(
        device: &Arc<dyn Device>,
        host: &CpuWeights,
        is_gate_up: impl Fn(MatrixId) -> bool,
    ) -> Result<Self, DeviceError> {
        let mut weights = Self::new(device);
        for vector in host.vectors() {
            let (_, to) = weights.reserve_vector(vector.len())?;
            weights.fill(to, vector)?;
        }
        for (index, matrix) in host.matrices().iter().enumerate() {
            let view = matrix.view();
            let layout = if is_gate_up(MatrixId(index as u32)) {
                TiledMatrix::gate_up(view.rows() / 2, view.columns(), view.element())
            } else {
                TiledMatrix::new(view.rows(), view.columns(), view.element())
            };
            let (_, to) = weights.reserve_matrix(layout)?;
            weights.fill(to, &layout.pack(&view.bytes()))?;
        }
        for experts in host.experts() {
            let shape = [experts.num_experts, experts.hidden, experts.width];
            let (_, memory) = weights.reserve_experts(shape, experts.gate_up.element())?;
            let kinds = [
                (
                    memory.gate_up_layout,
                    memory.gate_up,
                    memory.gate_up_scales,
                    &experts.gate_up,
                ),
                (
                    memory.down_layout,
                    memory.down,
                    memory.down_scales,
                    &experts.down,
                ),
            ];
            for (layout, to, scales_to, from) in kinds {
                assert!(from.biases.is_empty(), "experts with biases");
                let matrices = from.data.as_slice().chunks_exact(layout.source_bytes());
                let packed: Vec<u8> = matrices.flat_map(|matrix| layout.pack(matrix)).collect();
                weights.fill(to, &packed)?;
                let scales = from.scales.chunks_exact(layout.rows);
                let packed: Vec<f32> = scales
                    .flat_map(|scales| layout.pack_scales(scales))
                    .collect();
                weights.fill(scales_to, &packed)?;
            }
        }
        Ok(weights)
    }

    fn fill<T: Plain>(&self, to: DevicePointer, values: &[T]) -> Result<(), DeviceError> {
        if values.is_empty() {
            return Ok(());
        }
        // SAFETY: memory was reserved in this size, and the copy ends before the values go.
        unsafe {
            let from = values.as_ptr().cast();
            self.device
                .upload(Stream::Main, to, from, size_of_val(values))?;
        }
        self.device.synchronize(Stream::Main)
    }

    /// Where they are.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// How many vectors, matrices and layers of experts have been reserved.
    pub fn counts(&self) -> [usize; 3] {
        [self.vectors.len(), self.matrices.len(), self.experts.len()]
    }

    /// All of their memory, in the order in which it was reserved.
    pub(crate) fn memory(&self) -> &[DeviceBuffer] {
        &self.memory
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> usize {
        self.memory.iter().map(DeviceBuffer::bytes).sum()
    }

    /// Where a vector lies; it has `len` elements.
    pub fn vector(&self, id: VectorId, len: usize) -> DevicePointer {
        let vector = self.vectors[id.0 as usize];
        assert_eq!(vector.len, len, "elements of a vector");
        vector.data
    }

    /// A matrix as products take it.
    pub fn matrix(&self, id: MatrixId) -> ProductWeights {
        self.matrices[id.0 as usize]
    }

    /// A layer's experts.
    pub fn layer_experts(&self, id: ExpertsId) -> &DeviceExperts {
        &self.experts[id.0 as usize]
    }

    /// Formats in which inputs of products are wanted.
    pub fn input_formats(&self) -> &'static [Element] {
        let quantised = |experts: &DeviceExperts| experts.down.matrix.element == Element::F8E4M3;
        if self.experts.iter().any(quantised) {
            &[Element::BF16, Element::F8E4M3]
        } else {
            &[Element::BF16]
        }
    }
}
