//! All weights of a model in a device's memory.

use backstop_kernels::{CpuExperts, CpuMatrix, ExpertsId, MatrixId, VectorId};
use candle_core::{Result, Tensor};

use crate::device::CandleDevice;
use crate::experts::CandleExperts;
use crate::matrix::CandleMatrix;

/// The weights, by the ids that the architecture uses. They are added one by one from the host's memory.
#[derive(Debug)]
pub struct CandleWeights {
    device: CandleDevice,
    vectors: Vec<Tensor>,
    matrices: Vec<CandleMatrix>,
    experts: Vec<CandleExperts>,
}

impl CandleWeights {
    /// No weights yet.
    pub fn new(device: &CandleDevice) -> Self {
        Self {
            device: device.clone(),
            vectors: Vec::new(),
            matrices: Vec::new(),
            experts: Vec::new(),
        }
    }

    /// Adds a vector; ids count up from 0. Fails if the device's memory is used up.
    pub fn push_vector(&mut self, vector: Vec<f32>) -> Result<()> {
        let len = vector.len();
        let vector = Tensor::from_vec(vector, len, self.device.inner())?;
        self.vectors.push(vector);
        Ok(())
    }

    /// Adds a matrix; ids count up from 0. Fails if the device's memory is used up.
    pub fn push_matrix(&mut self, matrix: &CpuMatrix) -> Result<()> {
        let matrix = CandleMatrix::new(matrix.view(), &self.device)?;
        self.matrices.push(matrix);
        Ok(())
    }

    /// Adds a layer's experts; ids count up from 0. Fails if the device's memory is used up.
    pub fn push_experts(&mut self, experts: &CpuExperts) -> Result<()> {
        let experts = CandleExperts::new(experts, &self.device)?;
        self.experts.push(experts);
        Ok(())
    }

    /// Where they are.
    pub fn device(&self) -> &CandleDevice {
        &self.device
    }

    pub(crate) fn vector(&self, id: VectorId) -> &Tensor {
        &self.vectors[id.0 as usize]
    }

    pub(crate) fn matrix(&self, id: MatrixId) -> &CandleMatrix {
        &self.matrices[id.0 as usize]
    }

    pub(crate) fn layer_experts(&self, id: ExpertsId) -> &CandleExperts {
        &self.experts[id.0 as usize]
    }
}
