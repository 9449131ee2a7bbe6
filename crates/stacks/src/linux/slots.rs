//! Where threads write the addresses of their calls: memory that is there from the beginning, for a signal's handler may
//! ask nobody for any. Pages of it that were never written to cost nothing.

use std::sync::atomic::{AtomicI32, AtomicU8, AtomicUsize, Ordering};

/// Threads that are asked at once.
const THREADS_MAX: usize = 1024;
/// Calls of a stack, the innermost ones.
const CALLS_MAX: usize = 64;

/// Nobody's.
const FREE: u8 = 0;
/// Its thread was asked, and has not begun to write.
const ASKED: u8 = 1;
/// Its thread writes.
const WRITING: u8 = 2;
/// Its thread has written.
const WRITTEN: u8 = 3;

static SLOTS: [Slot; THREADS_MAX] = [const { Slot::new() }; THREADS_MAX];

/// One thread's addresses. Whoever changes the state from `ASKED` alone may write, so that a thread that comes late
/// changes nothing of another's.
pub(super) struct Slot {
    state: AtomicU8,
    thread: AtomicI32,
    count: AtomicUsize,
    addresses: [AtomicUsize; CALLS_MAX],
}

/// What a thread left in its slot.
pub(super) enum Outcome {
    Written(Vec<usize>),
    /// It did not answer, or only just began to.
    Unwritten,
}

/// Frees what was written too late for an earlier capture: nobody will read it.
pub(super) fn clear() {
    for slot in &SLOTS {
        slot.change(WRITTEN, FREE);
    }
}

/// A free slot for a thread, in which it may write from now on.
pub(super) fn take(thread: i32) -> Option<&'static Slot> {
    SLOTS.iter().find(|slot| slot.take(thread))
}

/// Lets the calling thread write, if it was asked. Asks for no memory and no lock.
pub(super) fn write(thread: i32, fill: impl FnOnce(&mut Writer)) {
    if let Some(slot) = SLOTS.iter().find(|slot| slot.begin(thread)) {
        let mut writer = Writer { slot, count: 0 };
        fill(&mut writer);
        slot.count.store(writer.count, Ordering::Relaxed);
        slot.state.store(WRITTEN, Ordering::Release);
    }
}

/// Takes addresses in, as many as there is room for.
pub(super) struct Writer {
    slot: &'static Slot,
    count: usize,
}

impl Writer {
    /// Whether there is room for more.
    pub(super) fn push(&mut self, address: usize) -> bool {
        if let Some(place) = self.slot.addresses.get(self.count) {
            place.store(address, Ordering::Relaxed);
            self.count += 1;
        }
        self.count < CALLS_MAX
    }
}

impl Slot {
    const fn new() -> Self {
        Self {
            state: AtomicU8::new(FREE),
            thread: AtomicI32::new(0),
            count: AtomicUsize::new(0),
            addresses: [const { AtomicUsize::new(0) }; CALLS_MAX],
        }
    }

    fn take(&self, thread: i32) -> bool {
        // Only who captures takes slots, and nobody writes in one that is free.
        if self.state.load(Ordering::Acquire) != FREE {
            return false;
        }
        self.thread.store(thread, Ordering::Relaxed);
        self.state.store(ASKED, Ordering::Release);
        true
    }

    fn begin(&self, thread: i32) -> bool {
        self.state.load(Ordering::Acquire) == ASKED
            && self.thread.load(Ordering::Relaxed) == thread
            && self.change(ASKED, WRITING)
    }

    fn change(&self, from: u8, to: u8) -> bool {
        let changed = self
            .state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        changed.is_ok()
    }

    /// Whether its thread may still write something.
    pub(super) fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) != WRITTEN
    }

    /// Ends the wait. A thread that writes at this moment keeps the slot until it is done.
    pub(super) fn close(&self) -> Outcome {
        if self.change(ASKED, FREE) || self.state.load(Ordering::Acquire) != WRITTEN {
            return Outcome::Unwritten;
        }
        let count = self.count.load(Ordering::Relaxed).min(CALLS_MAX);
        let addresses = self.addresses[..count].iter();
        let addresses = addresses.map(|address| address.load(Ordering::Relaxed));
        let addresses = addresses.collect();
        self.state.store(FREE, Ordering::Release);
        Outcome::Written(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_late_changes_nothing() {
        // No thread has a number below 0.
        let slot = take(-7).unwrap();
        assert!(matches!(slot.close(), Outcome::Unwritten));
        write(-7, |_| panic!("it was not asked any more"));
        let slot = take(-8).unwrap();
        write(-8, |writer| while writer.push(1) {});
        assert!(!std::ptr::eq(slot, take(-9).unwrap()));
        let Outcome::Written(addresses) = slot.close() else {
            panic!("it has written");
        };
        assert_eq!(addresses, [1; CALLS_MAX]);
    }
}
