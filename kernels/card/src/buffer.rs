//! Device memory that gives itself back, and simple ways to fill and read it.

use std::sync::Arc;

use super::device::{Device, DeviceError, DevicePointer, Stream};

/// Device memory.
pub struct DeviceBuffer {
    device: Arc<dyn Device>,
    pointer: DevicePointer,
    bytes: usize,
}

impl DeviceBuffer {
    /// Memory with undefined contents.
    pub fn new(device: &Arc<dyn Device>, bytes: usize) -> Result<Self, DeviceError> {
        // Devices refuse empty allocations; one byte costs nothing.
        let pointer = device.allocate(bytes.max(1))?;
        Ok(Self {
            device: Arc::clone(device),
            pointer,
            bytes,
        })
    }

    /// Memory with these contents; waits for the copy.
    pub fn from_slice<T: Plain>(
        device: &Arc<dyn Device>,
        values: &[T],
    ) -> Result<Self, DeviceError> {
        let buffer = Self::new(device, size_of_val(values))?;
        // SAFETY: the buffer is as long as the values, and the copy ends before they are released.
        unsafe {
            let from = values.as_ptr().cast();
            device.upload(Stream::Main, buffer.pointer, from, size_of_val(values))?;
        }
        device.synchronize(Stream::Main)?;
        Ok(buffer)
    }

    /// Memory of this many bytes, all alike.
    pub fn filled(device: &Arc<dyn Device>, byte: u8, bytes: usize) -> Result<Self, DeviceError> {
        let buffer = Self::new(device, bytes)?;
        // SAFETY: the buffer is this long.
        unsafe { device.fill(Stream::Main, buffer.pointer, byte, bytes)? };
        Ok(buffer)
    }

    /// The contents, after all work of the main stream.
    pub fn read<T: Plain>(&self) -> Result<Vec<T>, DeviceError> {
        let count = self.bytes / size_of::<T>();
        let mut values = vec![T::default(); count];
        // SAFETY: the vector has room for the buffer's bytes, and is read after the wait.
        unsafe {
            let to = values.as_mut_ptr().cast();
            self.device
                .download(Stream::Main, to, self.pointer, count * size_of::<T>())?;
        }
        self.device.synchronize(Stream::Main)?;
        Ok(values)
    }

    /// Where it is.
    pub fn pointer(&self) -> DevicePointer {
        self.pointer
    }

    /// How long it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        // SAFETY: `allocate` gave the memory, and its owner is gone.
        unsafe { self.device.free(self.pointer) }
    }
}

/// Numbers whose every bit pattern is a value.
///
/// # Safety
///
/// The type has no padding and no invalid bit patterns.
pub unsafe trait Plain: Copy + Default {}

// SAFETY: numbers.
unsafe impl Plain for u8 {}
// SAFETY: numbers.
unsafe impl Plain for u16 {}
// SAFETY: numbers.
unsafe impl Plain for u32 {}
// SAFETY: numbers.
unsafe impl Plain for u64 {}
// SAFETY: numbers.
unsafe impl Plain for i32 {}
// SAFETY: numbers.
unsafe impl Plain for f32 {}
