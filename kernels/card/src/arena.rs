//! Memory for activations: one allocation, cut anew in every step.
//!
//! What is given back within a layer is handed out again only after [`Arena::recycle`], which the
//! backend calls where all streams have joined; until then another stream may still use it. The
//! same sequence of requests always gets the same addresses, so that captured graphs stay valid.

use std::sync::{Arc, Mutex, PoisonError};

use super::device::DevicePointer;

/// Every piece starts at a multiple of this many bytes, as panels want it.
const ALIGNMENT: usize = 1024;

/// Hands out pieces of one allocation.
#[derive(Clone, Debug)]
pub struct Arena {
    base: DevicePointer,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    bytes: usize,
    /// Free ranges `(start, end)`, ascending, never touching one another.
    free: Vec<(usize, usize)>,
    /// Given back since the last `recycle`.
    returned: Vec<(usize, usize)>,
    peak: usize,
    /// Bytes behind each piece that nobody may write, for tests.
    guard: usize,
}

/// A piece of the arena, given back when dropped.
#[derive(Debug)]
pub struct Piece {
    pointer: DevicePointer,
    range: (usize, usize),
    /// Where the gap begins.
    end: usize,
    state: Arc<Mutex<State>>,
}

impl Arena {
    /// An arena over `bytes` bytes at `base`.
    pub fn new(base: DevicePointer, bytes: usize) -> Self {
        Self::with_guard(base, bytes, 0)
    }

    /// An arena that leaves a gap behind each piece. Where the gaps lie is seen by
    /// [`Piece::guarded_range`].
    pub fn guarded(base: DevicePointer, bytes: usize) -> Self {
        Self::with_guard(base, bytes, ALIGNMENT)
    }

    fn with_guard(base: DevicePointer, bytes: usize, guard: usize) -> Self {
        let state = State {
            bytes,
            free: vec![(0, bytes)],
            returned: Vec::new(),
            peak: 0,
            guard,
        };
        Self {
            base,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// A piece of at least this many bytes: the first that fits.
    ///
    /// # Panics
    ///
    /// If there is none. The arena is sized by a rehearsal of the largest step.
    pub fn take(&self, bytes: usize) -> Piece {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = bytes.max(1).next_multiple_of(ALIGNMENT);
        let bytes = wanted + state.guard;
        let fits = |&(start, end): &(usize, usize)| end - start >= bytes;
        let Some(index) = state.free.iter().position(fits) else {
            panic!(
                "the activation arena of {} bytes has no {bytes} bytes left",
                state.bytes
            );
        };
        let start = state.free[index].0;
        state.free[index].0 += bytes;
        if state.free[index].0 == state.free[index].1 {
            state.free.remove(index);
        }
        state.peak = state.peak.max(start + bytes);
        Piece {
            pointer: self.base.offset(start),
            range: (start, start + bytes),
            end: start + wanted,
            state: Arc::clone(&self.state),
        }
    }

    /// Makes what was given back available again.
    pub fn recycle(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ranges = std::mem::take(&mut state.free);
        ranges.append(&mut state.returned);
        ranges.sort_unstable();
        for (start, end) in ranges {
            match state.free.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => state.free.push((start, end)),
            }
        }
    }

    /// End of the highest piece so far.
    pub fn peak_bytes(&self) -> usize {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.peak
    }
}

impl Piece {
    /// Where it is.
    pub fn pointer(&self) -> DevicePointer {
        self.pointer
    }

    /// The gap behind the piece, from the arena's base.
    pub fn guarded_range(&self) -> std::ops::Range<usize> {
        self.end..self.range.1
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.returned.push(self.range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena() -> Arena {
        Arena::new(DevicePointer(1 << 20), 16 * ALIGNMENT)
    }

    #[test]
    fn pieces_do_not_overlap_and_are_aligned() {
        let arena = arena();
        let pieces: Vec<Piece> = (1..5).map(|index| arena.take(index * 700)).collect();
        for (index, piece) in pieces.iter().enumerate() {
            assert_eq!(piece.pointer.0 % ALIGNMENT as u64, 0);
            for other in &pieces[..index] {
                assert!(other.range.1 <= piece.range.0 || piece.range.1 <= other.range.0);
            }
        }
    }

    #[test]
    fn memory_returns_only_after_recycling() {
        let arena = arena();
        let first = arena.take(1).pointer;
        let second = arena.take(1).pointer;
        assert_ne!(first, second, "the first may still be in use");
        arena.recycle();
        assert_eq!(arena.take(1).pointer, first);
        arena.recycle();
        let _all = arena.take(16 * ALIGNMENT);
        assert_eq!(arena.peak_bytes(), 16 * ALIGNMENT);
    }

    #[test]
    #[should_panic(expected = "arena")]
    fn an_arena_never_hands_out_what_it_lacks() {
        let _piece = arena().take(17 * ALIGNMENT);
    }
}
