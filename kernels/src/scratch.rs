//! Scratch memory that each thread keeps between kernels.
#![expect(unsafe_code, reason = "views f32 numbers as others")]

use std::cell::RefCell;

use crate::aligned::AlignedBytes;

thread_local! {
    static FREE: RefCell<Vec<AlignedBytes>> = const { RefCell::new(Vec::new()) };
}

/// Runs `body` with `len` aligned f32 numbers of unspecified content. Calls may nest.
pub(crate) fn with_scratch<R>(len: usize, body: impl FnOnce(&mut [f32]) -> R) -> R {
    if len == 0 {
        return body(&mut []);
    }
    let kept = FREE.with_borrow_mut(|free| {
        let fitting = (0..free.len()).filter(|&index| free[index].len() >= len * 4);
        let best = fitting.min_by_key(|&index| free[index].len());
        // A buffer that never fits is given up, so that their number stays that of nested calls.
        let given = best.or_else(|| free.len().checked_sub(1));
        given.map(|index| free.swap_remove(index))
    });
    let mut bytes = match kept {
        Some(bytes) if bytes.len() >= len * 4 => bytes,
        _ => AlignedBytes::zeroed((len * 4).next_power_of_two()),
    };
    let result = body(&mut bytes.as_f32_mut()[..len]);
    FREE.with_borrow_mut(|free| free.push(bytes));
    result
}

/// Numbers that any bytes stand for, and that are aligned no more strictly than a cache line.
///
/// # Safety
/// As the name says.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: integers and floats.
unsafe impl Plain for i8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for [f32; 4] {}

/// The same with numbers of another kind.
pub(crate) fn with_scratch_of<T: Plain, R>(len: usize, body: impl FnOnce(&mut [T]) -> R) -> R {
    with_scratch((len * size_of::<T>()).div_ceil(4), |scratch| {
        // SAFETY: the scratch memory is aligned to a cache line and as long as `len` numbers.
        body(unsafe { std::slice::from_raw_parts_mut(scratch.as_mut_ptr().cast(), len) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_nests_and_grows() {
        with_scratch(10, |outer| {
            outer.fill(1.0);
            with_scratch(1000, |inner| inner.fill(2.0));
            assert_eq!(outer, [1.0; 10]);
        });
        with_scratch(5000, |all| assert_eq!(all.len(), 5000));
        with_scratch(0, |none| assert!(none.is_empty()));
    }
}
