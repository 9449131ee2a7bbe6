//! Activations, whose buffers are reused so that a steady state allocates nothing.

use std::sync::{Arc, Mutex, PoisonError};

use crate::aligned::AlignedBytes;

/// Buffers that are kept for reuse at most; a step has fewer activations alive at once.
const KEPT_BUFFERS_MAX: usize = 16;

/// Buffers of dropped activations.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    free: Mutex<Vec<AlignedBytes>>,
}

impl BufferPool {
    /// An activation with unspecified (but initialised) content.
    pub(crate) fn take(self: &Arc<Self>, rows: usize, columns: usize) -> CpuActivation {
        let bytes = rows * columns * 4;
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        // The smallest that fits, so that large buffers stay free for large activations.
        let best = (0..free.len())
            .filter(|&index| free[index].len() >= bytes)
            .min_by_key(|&index| free[index].len());
        let data = match best {
            Some(index) => free.swap_remove(index),
            None => AlignedBytes::zeroed(bytes.next_power_of_two()),
        };
        CpuActivation {
            rows,
            columns,
            data: Some(data),
            pool: Arc::clone(self),
        }
    }

    fn put(&self, data: AlignedBytes) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() >= KEPT_BUFFERS_MAX {
            let smallest = (0..free.len()).min_by_key(|&index| free[index].len());
            if let Some(index) = smallest {
                free.swap_remove(index);
            }
        }
        free.push(data);
    }
}

/// A `[rows, columns]` matrix of f32, row-major. Its buffer goes back to the backend on drop.
#[derive(Debug)]
pub struct CpuActivation {
    rows: usize,
    columns: usize,
    /// Present until dropped.
    data: Option<AlignedBytes>,
    pool: Arc<BufferPool>,
}

impl CpuActivation {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements of one row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The elements, row after row.
    pub fn values(&self) -> &[f32] {
        match &self.data {
            Some(data) => &data.as_f32()[..self.rows * self.columns],
            None => &[],
        }
    }

    /// The elements, writable.
    pub fn values_mut(&mut self) -> &mut [f32] {
        match &mut self.data {
            Some(data) => &mut data.as_f32_mut()[..self.rows * self.columns],
            None => &mut [],
        }
    }
}

impl Drop for CpuActivation {
    fn drop(&mut self) {
        if let Some(data) = self.data.take() {
            self.pool.put(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_reused_and_their_number_is_bounded() {
        let pool = Arc::new(BufferPool::default());
        let first = pool.take(4, 8);
        let address = first.values().as_ptr();
        drop(first);
        assert_eq!(pool.take(2, 3).values().as_ptr(), address);

        let many: Vec<_> = (1..40).map(|rows| pool.take(rows, 64)).collect();
        drop(many);
        assert_eq!(pool.free.lock().unwrap().len(), KEPT_BUFFERS_MAX);
    }
}
