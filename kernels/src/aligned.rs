//! Owned bytes that start on a cache line, so that vector loads never straddle two.
#![expect(
    unsafe_code,
    reason = "allocates with an alignment and views bytes as numbers"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;

/// Start of small buffers: one cache line, and the width of an AVX-512 register.
const ALIGNMENT: usize = 64;
/// Start of buffers that have room for one: a large page. Weights are walked from front to back by
/// every step, and with small pages the processor looks up an address every few dozen cycles.
const LARGE_PAGE: usize = 2 << 20;

/// A fixed-length, 64-byte-aligned byte buffer; zeroed when made. Large ones cost no memory until
/// they are written, since the zeroes come from the operating system; they lie in large pages, as
/// far as they fill them, where the system has such.
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
        let offset = allocation.as_ptr().align_offset(alignment(len));
        assert!(
            offset < alignment(len),
            "a byte pointer can always be aligned"
        );
        // SAFETY: the layout has as many bytes more than `len`, and the offset is smaller.
        let pointer = unsafe { allocation.add(offset) };
        let buffer = Self {
            pointer,
            allocation,
            len,
        };
        buffer.ask_for_large_pages();
        buffer
    }

    /// Whole large pages only: the rest of another one would be memory that nobody uses.
    fn ask_for_large_pages(&self) {
        #[cfg(target_os = "linux")]
        if self.len >= LARGE_PAGE {
            let len = self.len / LARGE_PAGE * LARGE_PAGE;
            // SAFETY: the pages belong to this buffer alone, and the advice does not change what
            // they hold. A system that cannot follow it says so, and nothing is lost.
            let _advice =
                unsafe { libc::madvise(self.pointer.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
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
        let size = len.checked_add(alignment(len));
        let Some(Ok(layout)) = size.map(|size| Layout::from_size_align(size, 1)) else {
            panic!("a buffer of {len} bytes cannot be addressed");
        };
        layout
    }
}

/// Where a buffer begins.
fn alignment(len: usize) -> usize {
    if len < LARGE_PAGE {
        ALIGNMENT
    } else {
        LARGE_PAGE
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
    fn large_buffers_begin_on_a_large_page() {
        for len in [LARGE_PAGE, 2 * LARGE_PAGE + 77] {
            let mut bytes = AlignedBytes::zeroed(len);
            assert_eq!(bytes.as_slice().as_ptr() as usize % LARGE_PAGE, 0);
            assert!(bytes.as_slice().iter().all(|byte| *byte == 0));
            bytes.as_mut_slice()[len - 1] = 7;
            assert_eq!(bytes.clone().as_slice()[len - 1], 7);
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
