//! The same on a device.

use std::sync::Arc;

use backstop_card::layout::PanelLayout;
use backstop_card::ops::norm::AddNorm;
use backstop_card::pack::{PanelOutput, RowSource};
use backstop_card::{Device, DeviceBuffer, Stream};
use backstop_kernels::{Element, narrow_bf16, widen_bf16};

use super::{AddNormArgs, NormCase};
use crate::PoisonedBuffer;
use crate::catalog::{Case, DeviceResult, DeviceRun, Tolerance};

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
        let args = AddNormArgs {
            hidden: &mut hidden,
            addends: [self.addends[0].as_deref(), self.addends[1].as_deref()],
            weight: &case.weight,
            norm: case.norm,
        };
        super::add_reference(args, &mut out);
        super::side_by_side(&hidden, &out, columns)
    }
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
            Ok(super::side_by_side(&hidden, &out, columns))
        }),
        expected: Box::new(move || inputs.expected(case)),
        // The norm is rounded to BF16.
        tolerance: Tolerance(1.0 / 256.0),
    })
}
