//! The same on a device.

use std::sync::Arc;

use backstop_card::ops::router::Choose;
use backstop_card::pack::RowSource;
use backstop_card::{Device, DeviceBuffer, DevicePointer, Stream};

use super::{RouterCase, Routing};
use crate::PoisonedBuffer;
use crate::catalog::{DeviceResult, DeviceRun, Tolerance};

/// The choice alone: its logits, in two parts, come from the reference's product.
pub(super) fn device<'a>(case: &'a RouterCase, device: &'a Arc<dyn Device>) -> DeviceResult<'a> {
    let (num_experts, top_k) = (case.gate.rows(), case.rule.top_k as usize);
    let product = case.logits();
    let parts: Vec<f32> = [0.3, 0.7]
        .iter()
        .flat_map(|factor| product.iter().map(move |logit| logit * factor))
        .collect();
    let rows = product.len() / num_experts;
    let logits = DeviceBuffer::from_slice(device, &parts)?;
    let experts = Arc::new(PoisonedBuffer::new(device, rows * top_k * 4)?);
    let weights = Arc::new(PoisonedBuffer::new(device, rows * top_k * 4)?);
    let choose = Choose {
        logits: RowSource::Parts {
            values: logits.pointer(),
            parts: 2,
            part_rows: rows,
            rounded: false,
        },
        slots: DevicePointer::NULL,
        experts: experts.pointer(),
        weights: weights.pointer(),
        rows,
        num_experts,
        rule: case.rule,
    };
    Ok(DeviceRun {
        launch: Box::new({
            let outputs = (Arc::clone(&experts), Arc::clone(&weights));
            move || {
                let _owned = (&logits, &outputs);
                // SAFETY: the buffers have these sizes and live as long as the closure.
                unsafe { choose.launch(device.as_ref(), Stream::Main) }
            }
        }),
        read: Box::new(move || {
            let routing = Routing {
                top_k,
                experts: experts.read()?,
                weights: weights.read()?,
            };
            Ok(super::side_by_side(&routing))
        }),
        expected: Box::new(move || {
            let (first, second) = parts.split_at(parts.len() / 2);
            let logits: Vec<f32> = first.iter().zip(second).map(|(a, b)| a + b).collect();
            super::side_by_side(&case.choose(&logits))
        }),
        // Experts must agree, and weights are at most 1 where there are several experts.
        tolerance: Tolerance(1e-5 / num_experts as f32),
    })
}
