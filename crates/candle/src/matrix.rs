//! Weight matrices, and products with them.

use std::sync::Arc;

use backstop_kernels::{WeightFormat, WeightView};
use candle_core::quantized::{QMatMul, QTensor, ggml_file};
use candle_core::{D, DType, Module, Result, Tensor};

use crate::device::{CandleDevice, ggml_type};

/// A matrix `[outputs, inputs]`: parts of consecutive outputs.
#[derive(Clone, Debug)]
pub(crate) struct CandleMatrix(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    /// Numbers of [`CandleDevice::numbers`].
    Dense(Tensor),
    Blocks(Arc<QTensor>),
}

impl CandleMatrix {
    /// Brings a matrix to the device.
    pub(crate) fn new(view: WeightView<'_>, device: &CandleDevice) -> Result<Self> {
        let mut parts = Vec::new();
        for (rows, format) in view.formats() {
            let part = view.part(rows.start, rows.len());
            parts.push(Part::new(part, format, device)?);
        }
        Ok(Self(parts))
    }

    /// `input * weight^T`, `[rows, outputs]` in F32.
    pub(crate) fn product(&self, input: &Tensor) -> Result<Tensor> {
        let outputs = self.0.iter().map(|part| part.product(input));
        concatenated(outputs.collect::<Result<_>>()?, D::Minus1)
    }

    /// These rows, in F32.
    pub(crate) fn rows(&self, rows: &Tensor) -> Result<Tensor> {
        match self.0.as_slice() {
            [Part::Dense(numbers)] => numbers.index_select(rows, 0)?.to_dtype(DType::F32),
            [Part::Blocks(blocks)] => blocks.embedding(rows)?.to_dtype(DType::F32),
            _ => self.numbers()?.index_select(rows, 0),
        }
    }

    /// All numbers, `[outputs, inputs]` in F32.
    pub(crate) fn numbers(&self) -> Result<Tensor> {
        let parts = self.0.iter().map(|part| match part {
            Part::Dense(numbers) => numbers.to_dtype(DType::F32),
            Part::Blocks(blocks) => blocks.dequantize(&blocks.device()),
        });
        concatenated(parts.collect::<Result<_>>()?, 0)
    }
}

impl Part {
    fn new(view: WeightView<'_>, format: WeightFormat, device: &CandleDevice) -> Result<Self> {
        let shape = [view.rows(), view.columns()];
        if let Some(blocks) = ggml_type(format) {
            let bytes = view.bytes();
            let dims = shape.to_vec();
            let blocks = ggml_file::qtensor_from_ggml(blocks, &bytes, dims, device.inner())?;
            return Ok(Self::Blocks(Arc::new(blocks)));
        }
        dense(view, format, device).map(Self::Dense)
    }

    fn product(&self, input: &Tensor) -> Result<Tensor> {
        match self {
            Self::Dense(numbers) => dense_product(input, numbers),
            Self::Blocks(blocks) => QMatMul::from_arc(Arc::clone(blocks))?.forward(input),
        }
    }
}

/// `input * weight^T` in F32, of factors in the weight's numbers.
pub(crate) fn dense_product(input: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let input = input.to_dtype(weight.dtype())?;
    input.matmul(&weight.t()?)?.to_dtype(DType::F32)
}

/// `[rows, columns]` in the device's numbers.
pub(crate) fn dense(
    view: WeightView<'_>,
    format: WeightFormat,
    device: &CandleDevice,
) -> Result<Tensor> {
    let (rows, columns) = (view.rows(), view.columns());
    let mut numbers = vec![0.0; rows * columns];
    format.widen(&view.bytes(), &mut numbers);
    let numbers = Tensor::from_vec(numbers, (rows, columns), &candle_core::Device::Cpu)?;
    numbers
        .to_dtype(device.numbers())?
        .to_device(device.inner())
}

/// The parts one behind the other.
fn concatenated(mut parts: Vec<Tensor>, dimension: impl candle_core::shape::Dim) -> Result<Tensor> {
    match parts.len() {
        1 => Ok(parts.remove(0)),
        _ => Tensor::cat(&parts, dimension),
    }
}
