//! Rotary position embedding on the device: the table of rotations, of which
//! [`RopeCache`](crate::ops::kv_write::RopeCache) takes a step's. Launch of
//! `kernels/cuda/rope_table.cu`.

use std::sync::Arc;

use backstop_kernels::backend::Rope;

use crate::pack::int;
use crate::{Device, DeviceBuffer, DeviceError, DevicePointer, Grid, KernelArgs, Stream};

const THREADS: u32 = 256;
const BLOCKS_MAX: usize = 1024;

#[repr(C)]
#[derive(Clone, Copy)]
struct RopeTableArgs {
    rotations: DevicePointer,
    frequencies: DevicePointer,
    positions: i32,
    half_dim: i32,
    magnitude: f32,
    unused: i32,
}

const _: () = assert!(size_of::<RopeTableArgs>() == 32);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for RopeTableArgs {}

/// Cosine and sine for every position below `positions`: f32 `[positions, dimensions / 2, 2]`.
/// Waits until they are there.
pub fn rotations(
    device: &Arc<dyn Device>,
    rope: &Rope,
    positions: usize,
) -> Result<DeviceBuffer, DeviceError> {
    let frequencies = rope.inverse_frequencies();
    let half_dim = frequencies.len();
    let frequencies = DeviceBuffer::from_slice(device, &frequencies)?;
    let rotations = DeviceBuffer::new(device, positions * half_dim * 8)?;
    let args = RopeTableArgs {
        rotations: rotations.pointer(),
        frequencies: frequencies.pointer(),
        positions: int(positions),
        half_dim: int(half_dim),
        magnitude: rope.magnitude(),
        unused: 0,
    };
    let blocks = (positions * half_dim).div_ceil(THREADS as usize);
    let grid = Grid::line(blocks.clamp(1, BLOCKS_MAX), THREADS);
    // SAFETY: the buffers have these sizes and live until the work is done.
    unsafe { device.launch(Stream::Main, "rope_table", grid, &args)? };
    device.synchronize(Stream::Main)?;
    Ok(rotations)
}
