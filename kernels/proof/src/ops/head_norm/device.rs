//! The same on a device.

use std::sync::Arc;

use backstop_card::ops::kv_write::{HeadNorm, PagedCache};
use backstop_card::pack::RowSource;
use backstop_card::{Device, DeviceBuffer};
use backstop_kernels::{Element, KvShape};

use super::{CASE_EPSILON, HeadNormCase};
use crate::catalog::{Case, DeviceResult, DeviceRun, Tolerance};
use crate::ops::kv_write::{Places, Written, bf16_rows};

pub(super) fn device<'a>(
    case: &'a HeadNormCase,
    device: &'a Arc<dyn Device>,
) -> Option<DeviceResult<'a>> {
    let head_dim = case.shape.head_dim as usize;
    PagedCache::supports(Element::BF16, 16, head_dim).then(|| set_up(case, device))
}

fn set_up<'a>(case: &'a HeadNormCase, device: &'a Arc<dyn Device>) -> DeviceResult<'a> {
    let shape = case.shape;
    let layout = KvShape {
        element: Element::BF16,
        block_size: 16,
        kv_heads: shape.kv_heads as usize,
        head_dim: shape.head_dim as usize,
        has_values: true,
    };
    let (bits, rounded) = bf16_rows(&case.qkv);
    let values = DeviceBuffer::from_slice(device, &bits)?;
    let source = RowSource::Bf16 {
        values: values.pointer(),
    };
    let query_gain = DeviceBuffer::from_slice(device, &case.weights[0])?;
    let key_gain = DeviceBuffer::from_slice(device, &case.weights[1])?;
    let norm = HeadNorm {
        query_gain: query_gain.pointer(),
        key_gain: key_gain.pointer(),
        epsilon: CASE_EPSILON,
    };
    let positions: Vec<u32> = (0..case.rows() as u32).collect();
    let places = Places::one_each(&positions, layout.block_size);
    let written = Written::new(device, shape, layout, places, source)?;
    let written = Arc::new(written.with(None, Some(norm)));
    Ok(DeviceRun {
        launch: Box::new({
            let written = Arc::clone(&written);
            let buffers = (values, query_gain, key_gain);
            move || {
                let _owned = &buffers;
                written.launch(device.as_ref())
            }
        }),
        read: Box::new(move || written.rows()),
        expected: Box::new(move || case.run_with(&rounded, 0..case.rows(), super::reference)),
        tolerance: Tolerance::BF16,
    })
}
