//! Spreading work over the threads of whichever rayon pool the caller runs in.
#![expect(
    unsafe_code,
    reason = "tasks write to disjoint, interleaved parts of one output"
)]

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

/// Work (multiply-adds, or something that costs as much) below which a fork costs more than the
/// other threads give back.
const SERIAL_WORK_MAX: usize = 200_000;

/// Threads worth using for `work` multiply-adds.
pub(crate) fn threads_for(work: usize) -> usize {
    if work < SERIAL_WORK_MAX {
        1
    } else {
        rayon::current_num_threads()
    }
}

/// Runs `task` for each number below `tasks`, in parallel if there is work enough.
/// How the tasks are spread must not influence what they compute.
pub(crate) fn for_each(tasks: usize, work: usize, task: impl Fn(usize) + Sync) {
    if tasks <= 1 || threads_for(work) == 1 {
        (0..tasks).for_each(task);
    } else {
        (0..tasks).into_par_iter().with_max_len(1).for_each(&task);
    }
}

/// Splits `out` in chunks of whole rows of `columns` and runs `task(first_row, chunk)` on each.
pub(crate) fn for_each_rows<T: Send>(
    out: &mut [T],
    columns: usize,
    work: usize,
    task: impl Fn(usize, &mut [T]) + Sync,
) {
    let rows = out.len() / columns.max(1);
    let threads = threads_for(work);
    if threads == 1 || rows <= 1 {
        return task(0, out);
    }
    let rows_per_task = rows.div_ceil(threads * 4).max(1);
    out.par_chunks_mut(rows_per_task * columns)
        .enumerate()
        .for_each(|(chunk, out)| task(chunk * rows_per_task, out));
}

/// Splits `out` in chunks of at least `chunk_len` elements, such as independent elements of an
/// element-wise operation, and runs `task(first_element, chunk)` on each.
pub(crate) fn for_each_chunk(
    out: &mut [f32],
    chunk_len: usize,
    task: impl Fn(usize, &mut [f32]) + Sync,
) {
    let threads = threads_for(out.len());
    if threads == 1 {
        return task(0, out);
    }
    let len = out.len().div_ceil(threads * 4).next_multiple_of(chunk_len);
    out.par_chunks_mut(len)
        .enumerate()
        .for_each(|(chunk, out)| task(chunk * len, out));
}

/// An output that several tasks write at once, each its own elements.
#[derive(Clone, Copy)]
pub(crate) struct SharedOutput<'a, T> {
    pointer: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: writes go through `range`, whose callers promise disjointness.
unsafe impl<T: Send> Send for SharedOutput<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedOutput<'_, T> {}

impl<'a, T> SharedOutput<'a, T> {
    pub(crate) fn new(out: &'a mut [T]) -> Self {
        Self {
            pointer: out.as_mut_ptr(),
            len: out.len(),
            borrow: PhantomData,
        }
    }

    /// The elements of `range`, still shared; indices count from its start.
    #[inline(always)]
    pub(crate) fn part(&self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "range outside the output"
        );
        // SAFETY: the start lies within the output, or at its end.
        let pointer = unsafe { self.pointer.add(range.start) };
        Self {
            pointer,
            len: range.len(),
            borrow: PhantomData,
        }
    }

    /// The first element of `range`, all of which is readable and writable, though others may
    /// access those that are not the caller's.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn pointer(&self, range: Range<usize>) -> *mut T {
        self.part(range).pointer
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// While the result lives, no other task may hold any of these elements.
    #[expect(clippy::mut_from_ref, reason = "the caller promises disjointness")]
    #[inline(always)]
    pub(crate) unsafe fn range(&self, range: Range<usize>) -> &mut [T] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "range outside the output"
        );
        // SAFETY: in bounds by the assertion, unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_and_row_is_visited_once() {
        for work in [0, SERIAL_WORK_MAX * 2] {
            let mut out = vec![0.0; 7 * 5];
            for_each_rows(&mut out, 5, work, |first, chunk| {
                for (row, values) in chunk.chunks_mut(5).enumerate() {
                    values
                        .iter_mut()
                        .for_each(|value| *value += (first + row) as f32);
                }
            });
            assert!(
                out.iter()
                    .enumerate()
                    .all(|(at, &value)| value == (at / 5) as f32)
            );

            let mut seen = vec![0; 100];
            let shared = SharedOutput::new(&mut seen);
            for_each(100, work, |task| {
                // SAFETY: each task has its own element.
                let own = unsafe { shared.range(task..task + 1) };
                own[0] += 1;
            });
            assert!(seen.iter().all(|&count| count == 1));
        }
    }
}
