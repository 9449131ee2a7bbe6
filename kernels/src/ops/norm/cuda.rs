//! Residual additions and norms on the device. Launch of `kernels/cuda/norm.cu`.

use std::sync::Arc;

use super::{AddNormArgs, NormCase};
use crate::backend::Norm;
use crate::catalog::{Case, DeviceResult, DeviceRun, Tolerance};
use crate::cuda::layout::PanelLayout;
use crate::cuda::pack::{PanelOutput, PanelOutputArgs, RowSource, RowSourceArgs, int};
use crate::cuda::{
    Device, DeviceBuffer, DeviceError, DevicePointer, Grid, KernelArgs, PoisonedBuffer, Stream,
};
use crate::element::{Element, narrow_bf16, widen_bf16};

/// Longest row.
pub const COLUMNS_MAX: usize = 16_384;

/// Rows up to this length have eight columns for each thread of a small block.
const SHORT_COLUMNS_MAX: usize = 2048;

/// `residual += addends`, one after the other, then `norm(residual) * weight` into panels.
#[derive(Clone, Copy, Debug)]
pub struct AddNorm {
    /// f32 `[rows, columns]`, updated in place.
    pub residual: DevicePointer,
    /// What is added.
    pub addends: [RowSource; 2],
    /// f32 `[columns]`.
    pub weight: DevicePointer,
    /// Which normalisation.
    pub norm: Norm,
    /// Where the norm goes. E4M3 is quantised from f32.
    pub out: PanelOutput,
    /// Rows.
    pub rows: usize,
    /// Numbers of a row.
    pub columns: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct NormArgs {
    residual: DevicePointer,
    weight: DevicePointer,
    addends: [RowSourceArgs; 2],
    out: PanelOutputArgs,
    epsilon: f32,
    centred: i32,
    rows: i32,
    columns: i32,
}

const _: () = assert!(size_of::<NormArgs>() == 160);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for NormArgs {}

impl AddNorm {
    /// Queues it.
    ///
    /// # Safety
    ///
    /// All pointers are valid for the sizes given.
    pub unsafe fn launch(&self, device: &dyn Device, stream: Stream) -> Result<(), DeviceError> {
        if self.rows == 0 {
            return Ok(());
        }
        assert!(
            (1..=COLUMNS_MAX).contains(&self.columns),
            "columns of a norm"
        );
        let (kernel, threads) = if self.columns <= SHORT_COLUMNS_MAX {
            ("norm_short", 256)
        } else {
            ("norm_long", 512)
        };
        let (centred, epsilon) = match self.norm {
            Norm::Rms { epsilon } => (0, epsilon),
            Norm::LayerWithoutBias { epsilon } => (1, epsilon),
        };
        let args = NormArgs {
            residual: self.residual,
            weight: self.weight,
            addends: self.addends.map(RowSource::args),
            out: self.out.args(self.rows),
            epsilon,
            centred,
            rows: int(self.rows),
            columns: int(self.columns),
        };
        // The row, the weight, and three reductions over warps.
        let shared_bytes = 2 * 4 * self.columns.next_multiple_of(8) + 3 * 4 * threads / 32;
        let grid = Grid::line(self.rows, threads as u32).shared(shared_bytes);
        // SAFETY: the caller's promise; the struct is the kernel's.
        unsafe { device.launch(stream, kernel, grid, &args) }
    }
}

/// Inputs as the device gets them: the first addend in BF16, the second in two parts.
struct Inputs {
    bf16: Option<Vec<u16>>,
    parts: Option<Vec<f32>>,
    /// What they amount to.
    addends: [Option<Vec<f32>>; 2],
}

impl Inputs {
    fn new(case: &NormCase) -> Self {
        let bf16 = case.addends[0]
            .as_ref()
            .map(|values| values.iter().map(|&value| narrow_bf16(value)).collect());
        let parts: Option<Vec<f32>> = case.addends[1].as_ref().map(|values| {
            let first = values.iter().map(|value| value * 0.3);
            let second = values.iter().map(|value| value * 0.7);
            first.chain(second).collect()
        });
        let widened = |bits: &Vec<u16>| bits.iter().map(|&bits| widen_bf16(bits)).collect();
        let summed = |parts: &Vec<f32>| {
            let (first, second) = parts.split_at(parts.len() / 2);
            first.iter().zip(second).map(|(a, b)| a + b).collect()
        };
        Self {
            addends: [bf16.as_ref().map(widened), parts.as_ref().map(summed)],
            bf16,
            parts,
        }
    }

    fn expected(&self, case: &NormCase) -> Vec<f32> {
        let mut hidden = case.hidden.clone();
        let mut out = vec![0.0; hidden.len()];
        let columns = case.weight.len();
        AddNormArgs {
            hidden: &mut hidden,
            addends: [self.addends[0].as_deref(), self.addends[1].as_deref()],
            weight: &case.weight,
            norm: case.norm,
        }
        .reference(&mut out);
        side_by_side(&hidden, &out, columns)
    }
}

fn side_by_side(hidden: &[f32], out: &[f32], columns: usize) -> Vec<f32> {
    let rows = hidden.chunks(columns).zip(out.chunks(columns));
    rows.flat_map(|(hidden, out)| [hidden, out].concat())
        .collect()
}

pub(super) fn device<'a>(case: &'a NormCase, device: &'a Arc<dyn Device>) -> DeviceResult<'a> {
    let inputs = Inputs::new(case);
    let (rows, columns) = (case.rows(), case.weight.len());
    let layout = PanelLayout::for_rows(rows, columns, Element::BF16);
    let residual = Arc::new(DeviceBuffer::from_slice(device, &case.hidden)?);
    let weight = DeviceBuffer::from_slice(device, &case.weight)?;
    let out = Arc::new(PoisonedBuffer::new(device, layout.bytes())?);
    let bf16 = DeviceBuffer::from_slice(device, inputs.bf16.as_deref().unwrap_or_default())?;
    let parts = DeviceBuffer::from_slice(device, inputs.parts.as_deref().unwrap_or_default())?;
    let as_bf16 = RowSource::Bf16 {
        values: bf16.pointer(),
    };
    let as_parts = RowSource::Parts {
        values: parts.pointer(),
        parts: 2,
        part_rows: rows,
        rounded: false,
    };
    let norm = AddNorm {
        residual: residual.pointer(),
        addends: [
            inputs.bf16.as_ref().map_or(RowSource::None, |_| as_bf16),
            inputs.parts.as_ref().map_or(RowSource::None, |_| as_parts),
        ],
        weight: weight.pointer(),
        norm: case.norm,
        out: PanelOutput {
            bf16: out.pointer(),
            capacity: layout.capacity,
            ..PanelOutput::default()
        },
        rows,
        columns,
    };
    let buffers = [weight, bf16, parts];
    Ok(DeviceRun {
        launch: Box::new({
            let (residual, out) = (Arc::clone(&residual), Arc::clone(&out));
            move || {
                let _owned = (&buffers, &residual, &out);
                // SAFETY: the buffers have these sizes and live as long as the closure.
                unsafe { norm.launch(device.as_ref(), Stream::Main) }
            }
        }),
        read: Box::new(move || {
            let hidden: Vec<f32> = residual.read()?;
            let out = layout.unpack(&out.read()?, rows);
            Ok(side_by_side(&hidden, &out, columns))
        }),
        expected: Box::new(move || inputs.expected(case)),
        // The norm is rounded to BF16.
        tolerance: Tolerance(1.0 / 256.0),
    })
}
