//! Owned memory whose first byte is aligned to a cache line.

use std::fmt;

use bytemuck::{AnyBitPattern, NoUninit};
use half::bf16;
use half::slice::HalfBitsSliceExt;

#[cfg(target_endian = "big")]
compile_error!("checkpoints are little-endian and are viewed in place");

/// Alignment of the first byte: a cache line, and the widest vector register.
pub const ALIGNMENT_BYTES: usize = 64;

/// An owned, zero-initialised buffer aligned to [`ALIGNMENT_BYTES`].
///
/// The typed views cover the whole elements in the buffer; they are shorter than the buffer only
/// if its length is not a multiple of the element size.
pub struct AlignedBytes {
    // Over-allocated, so that an aligned start exists. A vector's heap block never moves unless the
    // vector grows, and nothing here grows it, so `start` stays right for the buffer's life.
    storage: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBytes {
    /// A buffer of `length` zero bytes. Pages are taken from the system as they are written.
    pub fn zeroed(length: usize) -> Self {
        let storage = vec![0_u8; length.saturating_add(ALIGNMENT_BYTES - 1)];
        let start = storage.as_ptr().align_offset(ALIGNMENT_BYTES);
        Self {
            storage,
            start,
            length,
        }
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.length]
    }

    /// The bytes, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.length]
    }

    /// The buffer as BF16.
    pub fn as_bf16(&self) -> &[bf16] {
        self.elements::<u16>().reinterpret_cast()
    }

    /// The buffer as BF16, to write.
    pub fn as_bf16_mut(&mut self) -> &mut [bf16] {
        self.elements_mut::<u16>().reinterpret_cast_mut()
    }

    /// The buffer as F32.
    pub fn as_f32(&self) -> &[f32] {
        self.elements()
    }

    /// The buffer as F32, to write.
    pub fn as_f32_mut(&mut self) -> &mut [f32] {
        self.elements_mut()
    }

    fn elements<T: AnyBitPattern + NoUninit>(&self) -> &[T] {
        let whole = self.length - self.length % size_of::<T>();
        // Cannot fail: the start is aligned for any T here and the length is a multiple.
        bytemuck::try_cast_slice(&self.as_slice()[..whole]).unwrap_or_default()
    }

    fn elements_mut<T: AnyBitPattern + NoUninit>(&mut self) -> &mut [T] {
        let whole = self.length - self.length % size_of::<T>();
        bytemuck::try_cast_slice_mut(&mut self.as_mut_slice()[..whole]).unwrap_or_default()
    }
}

impl Clone for AlignedBytes {
    fn clone(&self) -> Self {
        // A copy of the storage would land at another address and need another start.
        let mut copy = Self::zeroed(self.length);
        copy.as_mut_slice().copy_from_slice(self.as_slice());
        copy
    }
}

impl fmt::Debug for AlignedBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AlignedBytes({} bytes)", self.length)
    }
}
