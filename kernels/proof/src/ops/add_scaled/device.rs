//! The same on a device.

use std::sync::Arc;

use backstop_card::ops::add_scaled::AddScaled;
use backstop_card::pack::RowSource;
use backstop_card::{Device, DeviceBuffer, Stream};
use backstop_kernels::{narrow_bf16, widen_bf16};

use super::{AddScaledArgs, AddScaledCase};
use crate::PoisonedBuffer;
use crate::catalog::{Case, DeviceResult, DeviceRun, Tolerance};

/// The first addend comes as BF16, the second as f32.
pub(super) fn device<'a>(case: &'a AddScaledCase, device: &'a Arc<dyn Device>) -> DeviceResult<'a> {
    let bf16: Vec<u16> = case.a.iter().map(|&value| narrow_bf16(value)).collect();
    let a = DeviceBuffer::from_slice(device, &bf16)?;
    let b = DeviceBuffer::from_slice(device, &case.b)?;
    let out = Arc::new(PoisonedBuffer::new(device, case.b.len() * 4)?);
    let add = AddScaled {
        a: RowSource::Bf16 {
            values: a.pointer(),
        },
        b: RowSource::f32(b.pointer()),
        scale: case.scale,
        out: out.pointer(),
        rows: case.rows(),
        columns: case.columns,
    };
    let inputs = [a, b];
    Ok(DeviceRun {
        launch: Box::new({
            let out = Arc::clone(&out);
            move || {
                let _owned = (&inputs, &out);
                // SAFETY: the buffers have these sizes and live as long as the closure.
                unsafe { add.launch(device.as_ref(), Stream::Main) }
            }
        }),
        read: Box::new(move || out.read()),
        expected: Box::new(move || {
            let a: Vec<f32> = bf16.iter().map(|&bits| widen_bf16(bits)).collect();
            let mut out = vec![0.0; a.len()];
            let args = AddScaledArgs {
                a: &a,
                b: &case.b,
                scale: case.scale,
            };
            super::reference(&args, &mut out);
            out
        }),
        tolerance: Tolerance::EXACT,
    })
}
