//! The same on a device.

use std::sync::Arc;

use backstop_card::ops::kv_write::PagedCache;
use backstop_card::ops::rope::rotations;
use backstop_card::pack::RowSource;
use backstop_card::{Device, DeviceBuffer};
use backstop_kernels::backend::RopePairing;
use backstop_kernels::{Element, KvShape};

use super::RopeCase;
use crate::catalog::{Case, DeviceResult, DeviceRun, Tolerance};
use crate::ops::kv_write::{Places, Written, bf16_rows};

/// Parts in which pairs of neighbours come; halves come in BF16.
const PARTS: usize = 3;

pub(super) fn device<'a>(
    case: &'a RopeCase,
    device: &'a Arc<dyn Device>,
) -> Option<DeviceResult<'a>> {
    let head_dim = case.shape.head_dim as usize;
    let supported = PagedCache::supports(Element::BF16, 16, head_dim)
        && case.rope.dimensions == case.shape.head_dim;
    supported.then(|| set_up(case, device))
}

fn set_up<'a>(case: &'a RopeCase, device: &'a Arc<dyn Device>) -> DeviceResult<'a> {
    let shape = case.shape;
    let layout = KvShape {
        element: Element::BF16,
        block_size: 16,
        kv_heads: shape.kv_heads as usize,
        head_dim: shape.head_dim as usize,
        has_values: true,
    };
    let positions = case.positions.iter().max().map_or(0, |&last| last + 1) as usize;
    let rotations = rotations(device, &case.rope, positions)?;
    let (bits, rounded) = bf16_rows(&case.qkv);
    let halves = DeviceBuffer::from_slice(device, &bits)?;
    let parts: Vec<f32> = [0.5, 0.375, 0.125]
        .iter()
        .flat_map(|share| case.qkv.iter().map(move |value| value * share))
        .collect();
    let parts = DeviceBuffer::from_slice(device, &parts)?;
    let source = match case.rope.pairing {
        RopePairing::Halves => RowSource::Bf16 {
            values: halves.pointer(),
        },
        RopePairing::Interleaved => RowSource::Parts {
            values: parts.pointer(),
            parts: PARTS,
            part_rows: case.rows(),
            rounded: false,
        },
    };
    let rope = Some((rotations.pointer(), case.rope.pairing));
    let written = Written::new(
        device,
        shape,
        layout,
        Places::one_each(&case.positions, layout.block_size),
        source,
    )?;
    let written = Arc::new(written.with(rope, None));
    let expected = match case.rope.pairing {
        RopePairing::Halves => rounded,
        RopePairing::Interleaved => case.qkv.clone(),
    };
    Ok(DeviceRun {
        launch: Box::new({
            let (written, buffers) = (Arc::clone(&written), (halves, parts, rotations));
            move || {
                let _owned = &buffers;
                written.launch(device.as_ref())
            }
        }),
        read: Box::new(move || written.rows()),
        expected: Box::new(move || case.run_with(&expected, 0..case.rows(), super::reference)),
        tolerance: Tolerance::BF16,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{case_rope, scalings};
    use super::*;
    use crate::host::HostDevice;
    use backstop_kernels::ops::rope::RopeTable;

    #[test]
    fn the_table_is_that_of_the_processor() {
        let device = HostDevice::for_tests().unwrap();
        for scaling in scalings() {
            let rope = case_rope(64, RopePairing::Halves, scaling);
            let positions = 3000;
            let rotations = rotations(&device, &rope, positions).unwrap();
            let actual: Vec<f32> = rotations.read().unwrap();
            let all: Vec<u32> = (0..positions as u32).collect();
            let table = RopeTable::new(&all, &rope);
            let expected = (0..positions).flat_map(|row| {
                let (cosines, sines) = table.row(row);
                cosines.iter().zip(sines)
            });
            for (index, (actual, (cosine, sine))) in actual.chunks(2).zip(expected).enumerate() {
                for (actual, expected) in [(actual[0], *cosine), (actual[1], *sine)] {
                    // The processor's functions are not always rounded correctly, and what they
                    // give is rounded once more when it is scaled.
                    let error = (actual - expected).abs();
                    assert!(
                        error <= expected.abs() * 2.0 * f32::EPSILON,
                        "{index}: {actual} {expected}"
                    );
                }
            }
        }
    }
}
