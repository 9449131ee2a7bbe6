//! Owned bytes that start on a cache line, so that vector loads never straddle two.
#![expect(
    unsafe_code,
    reason = "allocates with an alignment and views bytes as numbers"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;

/// Start of every allocation: one cache line, and the width of an AVX-512 register.
const ALIGNMENT: usize = 64;

/// A fixed-length, 64-byte-aligned byte buffer; zeroed when made. Large ones cost no memory until
/// they are written, since the zeroes come from the operating system.
pub struct AlignedBytes {
    /// First byte of the buffer, within the allocation.
    pointer: NonNull<u8>,
    /// First byte of the allocation.
    allocation: NonNull<u8>,
    len: usize,
}

// SAFETY: the buffer owns its allocation alone, and bytes may be read and written on any thread.
unsafe impl Send for AlignedBytes {}
// SAFETY: a shared reference only allows reads.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    /// A buffer of `len` zero bytes. Aborts when memory is exhausted, as `Vec` does.
    pub fn zeroed(len: usize) -> Self {
        let layout = Self::layout(len);
        // SAFETY: the layout's size is at least ALIGNMENT, thus not zero.
        let allocation = unsafe { alloc_zeroed(layout) };
        let Some(allocation) = NonNull::new(allocation) else {
            handle_alloc_error(layout)
        };
        let offset = allocation.as_ptr().align_offset(ALIGNMENT);
        assert!(offset < ALIGNMENT, "a byte pointer can always be aligned");
        // SAFETY: the layout has ALIGNMENT bytes more than `len`, and the offset is smaller.
        let pointer = unsafe { allocation.add(offset) };
        Self {
            pointer,
            allocation,
            len,
        }
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut copy = Self::zeroed(bytes.len());
        copy.as_mut_slice().copy_from_slice(bytes);
        copy
    }

    /// A copy of `values` as native-endian f32.
    pub fn from_f32(values: &[f32]) -> Self {
        let mut copy = Self::zeroed(size_of_val(values));
        copy.as_f32_mut().copy_from_slice(values);
        copy
    }

    /// `values` rounded to BF16, ties to even.
    pub fn bf16_from_f32(values: &[f32]) -> Self {
        let mut copy = Self::zeroed(values.len() * 2);
        for (bits, &value) in copy.as_u16_mut().iter_mut().zip(values) {
            *bits = half::bf16::from_f32(value).to_bits();
        }
        copy
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the buffer has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `pointer` addresses `len` initialised bytes for as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }

    /// The bytes, writable.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and the exclusive borrow makes this the only view.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }

    /// The bytes as f32; a remainder shorter than one number is left out.
    pub fn as_f32(&self) -> &[f32] {
        // SAFETY: aligned to 64 bytes, initialised, and every bit pattern is an f32.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr().cast(), self.len / 4) }
    }

    /// The bytes as writable f32; a remainder shorter than one number is left out.
    pub fn as_f32_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `as_f32`, and the exclusive borrow makes this the only view.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr().cast(), self.len / 4) }
    }

    /// The bytes as 16-bit words, such as the bits of BF16; an odd last byte is left out.
    pub fn as_u16(&self) -> &[u16] {
        // SAFETY: aligned to 64 bytes, initialised, and every bit pattern is a u16.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr().cast(), self.len / 2) }
    }

    /// The bytes as writable 16-bit words; an odd last byte is left out.
    pub fn as_u16_mut(&mut self) -> &mut [u16] {
        // SAFETY: as in `as_u16`, and the exclusive borrow makes this the only view.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr().cast(), self.len / 2) }
    }

    /// Room for `len` bytes from an aligned address on. The allocation itself asks for no
    /// alignment: for an aligned one the standard library writes the zeroes itself, which would
    /// cost the time and the memory that untouched pages save.
    fn layout(len: usize) -> Layout {
        let size = len.checked_add(ALIGNMENT);
        let Some(Ok(layout)) = size.map(|size| Layout::from_size_align(size, 1)) else {
            panic!("a buffer of {len} bytes cannot be addressed");
        };
        layout
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with the same layout, and freed only here.
        unsafe { dealloc(self.allocation.as_ptr(), Self::layout(self.len)) }
    }
}

impl Clone for AlignedBytes {
    fn clone(&self) -> Self {
        Self::copy_of(self.as_slice())
    }
}

impl fmt::Debug for AlignedBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AlignedBytes({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zero() {
        for len in [0, 1, 63, 64, 65, 4096] {
            let bytes = AlignedBytes::zeroed(len);
            assert_eq!(bytes.as_slice().as_ptr() as usize % ALIGNMENT, 0);
            assert_eq!(bytes.as_slice(), vec![0; len]);
            assert_eq!(bytes.as_f32().len(), len / 4);
        }
    }

    #[test]
    fn typed_views_see_the_same_bytes() {
        let floats = AlignedBytes::from_f32(&[1.0, -2.5]);
        assert_eq!(floats.as_f32(), [1.0, -2.5]);
        assert_eq!(floats.as_u16()[1], 0x3f80);
        let brain = AlignedBytes::bf16_from_f32(&[1.0, 3.0]);
        assert_eq!(brain.as_u16(), [0x3f80, 0x4040]);
        assert_eq!(brain.clone().as_slice(), brain.as_slice());
    }
}
