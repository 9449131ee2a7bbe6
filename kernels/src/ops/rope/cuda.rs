//! Rotary position embedding on the device: the table of rotations, of which
//! [`RopeCache`](crate::ops::kv_write::cuda::RopeCache) takes a step's. Launch of
//! `kernels/cuda/rope_table.cu`.
#![expect(unsafe_code, reason = "launches are outside the compiler's view")]

use std::sync::Arc;

use super::{RopeCase, inverse_frequencies};
use crate::backend::RopePairing;
use crate::catalog::{Case, DeviceResult, DeviceRun, Tolerance};
use crate::cpu::kv_cache::KvShape;
use crate::cuda::pack::{RowSource, int};
use crate::cuda::{Device, DeviceBuffer, DeviceError, DevicePointer, Grid, KernelArgs, Stream};
use crate::element::Element;
use crate::ops::kv_write::cuda::{PagedCache, Places, Written, bf16_rows};

const THREADS: u32 = 256;
const BLOCKS_MAX: usize = 1024;

#[repr(C)]
#[derive(Clone, Copy)]
struct RopeTableArgs {
    rotations: DevicePointer,
    frequencies: DevicePointer,
    positions: i32,
    half_dim: i32,
}

const _: () = assert!(size_of::<RopeTableArgs>() == 24);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for RopeTableArgs {}

/// Cosine and sine for every position below `positions`: f32 `[positions, head_dim / 2, 2]`. Waits
/// until they are there.
pub fn rotations(
    device: &Arc<dyn Device>,
    theta: f32,
    head_dim: usize,
    positions: usize,
) -> Result<DeviceBuffer, DeviceError> {
    let half_dim = head_dim / 2;
    let frequencies = DeviceBuffer::from_slice(device, &inverse_frequencies(theta, head_dim))?;
    let rotations = DeviceBuffer::new(device, positions * half_dim * 8)?;
    let args = RopeTableArgs {
        rotations: rotations.pointer(),
        frequencies: frequencies.pointer(),
        positions: int(positions),
        half_dim: int(half_dim),
    };
    let blocks = (positions * half_dim).div_ceil(THREADS as usize);
    let grid = Grid::line(blocks.clamp(1, BLOCKS_MAX), THREADS);
    // SAFETY: the buffers have these sizes and live until the work is done.
    unsafe { device.launch(Stream::Main, "rope_table", grid, &args)? };
    device.synchronize(Stream::Main)?;
    Ok(rotations)
}

/// Parts in which pairs of neighbours come; halves come in BF16.
const PARTS: usize = 3;

pub(super) fn device<'a>(
    case: &'a RopeCase,
    device: &'a Arc<dyn Device>,
) -> Option<DeviceResult<'a>> {
    let head_dim = case.shape.head_dim as usize;
    PagedCache::supports(Element::BF16, 16, head_dim).then(|| set_up(case, device))
}

/// Each row in a slot and a block of its own.
fn places(case: &RopeCase, positions: usize, block_size: usize) -> Places {
    let rows = case.rows();
    let table_stride = positions.div_ceil(block_size);
    Places {
        rows: (0u32..).zip(case.positions.iter().copied()).collect(),
        tables: (0..rows * table_stride)
            .map(|entry| (entry / table_stride) as u32)
            .collect(),
        table_stride,
        blocks: rows,
    }
}

fn set_up<'a>(case: &'a RopeCase, device: &'a Arc<dyn Device>) -> DeviceResult<'a> {
    let shape = case.shape;
    let layout = KvShape {
        element: Element::BF16,
        block_size: 16,
        kv_heads: shape.kv_heads as usize,
        head_dim: shape.head_dim as usize,
    };
    let positions = case.positions.iter().max().map_or(0, |&last| last + 1) as usize;
    let rotations = rotations(
        device,
        super::CASE_THETA,
        shape.head_dim as usize,
        positions,
    )?;
    let (bits, rounded) = bf16_rows(&case.qkv);
    let halves = DeviceBuffer::from_slice(device, &bits)?;
    let columns = case.qkv.len() / case.rows();
    let parts: Vec<f32> = [0.5, 0.375, 0.125]
        .iter()
        .flat_map(|share| case.qkv.iter().map(move |value| value * share))
        .collect();
    let parts = DeviceBuffer::from_slice(device, &parts)?;
    let source = match case.pairing {
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
    let rope = Some((rotations.pointer(), case.pairing));
    let written = Arc::new(Written::new(
        device,
        (shape, layout),
        places(case, positions, layout.block_size),
        source,
        rope,
    )?);
    let expected = match case.pairing {
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
        read: Box::new(move || {
            let queries = written.queries()?;
            let heads = (shape.heads * shape.head_dim) as usize;
            let places = written.keys_and_values()?;
            let mut out = Vec::with_capacity(case.rows() * columns);
            let rows = queries
                .chunks(heads)
                .zip(places.chunks(shape.kv_heads as usize));
            for (queries, places) in rows {
                out.extend_from_slice(queries);
                for side in 0..2 {
                    out.extend(places.iter().flat_map(|place| &place[side]));
                }
            }
            Ok(out)
        }),
        expected: Box::new(move || {
            case.run_with(&expected, 0..case.rows(), |args| args.reference())
        }),
        tolerance: Tolerance::BF16,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::host::HostDevice;
    use crate::ops::rope::RopeTable;

    #[test]
    fn the_table_is_that_of_the_processor() {
        let device = HostDevice::for_tests().unwrap();
        let (theta, head_dim, positions) = (5e4, 64, 5000);
        let rotations = rotations(&device, theta, head_dim, positions).unwrap();
        let actual: Vec<f32> = rotations.read().unwrap();
        let all: Vec<u32> = (0..positions as u32).collect();
        let table = RopeTable::new(&all, theta, head_dim);
        let expected = table.cosines.iter().zip(&table.sines);
        for (index, (actual, (cosine, sine))) in actual.chunks(2).zip(expected).enumerate() {
            for (actual, expected) in [(actual[0], *cosine), (actual[1], *sine)] {
                // The processor's functions are not always rounded correctly.
                let error = (actual - expected).abs();
                assert!(
                    error <= expected.abs() * f32::EPSILON,
                    "{index}: {actual} {expected}"
                );
            }
        }
    }
}
