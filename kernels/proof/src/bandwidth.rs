//! What a device's memory can do at most. Launches of `kernels/cuda/bandwidth.cu`.

use std::sync::Arc;

use backstop_card::buffer::DeviceBuffer;
use backstop_card::device::{Device, DeviceError, DevicePointer, Grid, KernelArgs, Stream};

const THREADS: usize = 512;
/// Bytes that a block moves at a time: eight vectors of 16 bytes for each thread.
const CHUNK_BYTES: usize = THREADS * 8 * 16;
/// Blocks that one multiprocessor runs at once.
const BLOCKS_PER_MULTIPROCESSOR: usize = 2;

#[repr(C)]
#[derive(Clone, Copy)]
struct BandwidthArgs {
    from: DevicePointer,
    to: DevicePointer,
    chunks: u64,
}

const _: () = assert!(size_of::<BandwidthArgs>() == 24);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for BandwidthArgs {}

/// Memory that is read or copied as a whole. A read also drives everything else out of the
/// device's caches, and unlike a fill leaves nothing behind in them that must be written back.
pub struct MemoryTraffic {
    device: Arc<dyn Device>,
    from: DeviceBuffer,
    to: DeviceBuffer,
    chunks: usize,
    blocks: usize,
}

impl MemoryTraffic {
    /// About `bytes` of memory to read, and as many to copy them to.
    pub fn new(device: &Arc<dyn Device>, bytes: usize) -> Result<Self, DeviceError> {
        let chunks = bytes.div_ceil(CHUNK_BYTES).max(1);
        let blocks = device.facts().multiprocessors as usize * BLOCKS_PER_MULTIPROCESSOR;
        // A read leaves one vector for each thread.
        let sums = blocks * THREADS * 16;
        Ok(Self {
            device: Arc::clone(device),
            from: DeviceBuffer::filled(device, 0x5a, chunks * CHUNK_BYTES)?,
            to: DeviceBuffer::new(device, sums.max(chunks * CHUNK_BYTES))?,
            chunks,
            blocks,
        })
    }

    /// Bytes that [`read`](Self::read) reads; [`copy`](Self::copy) moves twice as many.
    pub fn bytes(&self) -> usize {
        self.chunks * CHUNK_BYTES
    }

    /// Queues a read of everything on the main stream.
    pub fn read(&self) -> Result<(), DeviceError> {
        self.launch("bandwidth_read")
    }

    /// Queues a copy of everything on the main stream.
    pub fn copy(&self) -> Result<(), DeviceError> {
        self.launch("bandwidth_copy")
    }

    fn launch(&self, kernel: &'static str) -> Result<(), DeviceError> {
        let args = BandwidthArgs {
            from: self.from.pointer(),
            to: self.to.pointer(),
            chunks: self.chunks as u64,
        };
        let grid = Grid::line(self.blocks, THREADS as u32);
        // SAFETY: both buffers are at least as long as what the kernels read or write there.
        unsafe { self.device.launch(Stream::Main, kernel, grid, &args) }
    }

    /// What the last copy or read left behind, for checks.
    pub fn result(&self) -> Result<Vec<u32>, DeviceError> {
        self.to.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{HostDevice, build_library};

    #[test]
    fn a_copy_copies_and_a_read_reads_every_vector() {
        let library = build_library(false).expect("a library of the kernels");
        let device: Arc<dyn Device> = Arc::new(HostDevice::open(&library).expect("a device"));
        // An odd number of chunks for each block, so that the exclusive or of all is not zero.
        let blocks = device.facts().multiprocessors as usize * BLOCKS_PER_MULTIPROCESSOR;
        let traffic = MemoryTraffic::new(&device, 3 * blocks * CHUNK_BYTES / 8).expect("memory");
        traffic.copy().expect("a copy");
        let copied = traffic.result().expect("a result");
        assert!(
            copied[..traffic.bytes() / 4]
                .iter()
                .all(|&word| word == 0x5a5a_5a5a)
        );
    }
}
