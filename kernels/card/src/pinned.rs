//! Host memory that copies to and from a device can overlap with computing.

use std::sync::Arc;

use super::device::{Device, DeviceError};

/// Pinned bytes, aligned to eight.
pub struct Pinned {
    device: Arc<dyn Device>,
    memory: *mut u8,
    bytes: usize,
}

// SAFETY: the memory belongs to its owner alone and is reached through `&self` and `&mut self`.
unsafe impl Send for Pinned {}
// SAFETY: as above.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// Zeroed memory.
    pub fn new(device: &Arc<dyn Device>, bytes: usize) -> Result<Self, DeviceError> {
        let bytes = bytes.max(8).next_multiple_of(8);
        Ok(Self {
            memory: device.allocate_pinned(bytes)?,
            device: Arc::clone(device),
            bytes,
        })
    }

    /// The bytes. No copy to or from the device may be on its way.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the allocation has this many initialised bytes.
        unsafe { std::slice::from_raw_parts_mut(self.memory, self.bytes) }
    }

    /// The bytes. No copy from the device may be on its way.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the allocation has this many initialised bytes.
        unsafe { std::slice::from_raw_parts(self.memory, self.bytes) }
    }

    /// Where it is, for copies.
    pub fn pointer(&self) -> *mut u8 {
        self.memory
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: `allocate_pinned` gave the memory, in this size, and its owner is gone.
        unsafe { self.device.free_pinned(self.memory, self.bytes) }
    }
}
