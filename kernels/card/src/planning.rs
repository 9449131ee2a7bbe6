//! A device that does nothing but count: the rehearsal that sizes memory before any is taken.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::device::{Device, DeviceError, DeviceFacts, DevicePointer, Event, Graph, Grid, Stream};

/// Bytes between the addresses of allocations are multiples of this, as drivers do it.
const ALIGNMENT: u64 = 1024;

/// Pretends to be another device, but has unlimited memory and computes nothing.
#[derive(Debug)]
pub struct PlanningDevice {
    facts: DeviceFacts,
    free_bytes: u64,
    allocated: AtomicU64,
    events: AtomicU32,
}

impl PlanningDevice {
    /// A stand-in for the device with these facts.
    pub fn new(facts: DeviceFacts) -> Self {
        Self {
            facts,
            free_bytes: u64::MAX / 2,
            allocated: AtomicU64::new(0),
            events: AtomicU32::new(0),
        }
    }

    /// Says that so much memory is free, however much is asked for.
    pub fn with_free_bytes(self, free_bytes: u64) -> Self {
        Self { free_bytes, ..self }
    }

    /// Bytes of device memory asked for so far.
    pub fn allocated_bytes(&self) -> u64 {
        self.allocated.load(Ordering::Relaxed)
    }
}

impl Device for PlanningDevice {
    fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    fn free_bytes(&self) -> Result<u64, DeviceError> {
        Ok(self.free_bytes)
    }

    fn allocate(&self, bytes: usize) -> Result<DevicePointer, DeviceError> {
        let bytes = (bytes as u64).next_multiple_of(ALIGNMENT);
        let before = self.allocated.fetch_add(bytes, Ordering::Relaxed);
        Ok(DevicePointer(before + ALIGNMENT))
    }

    unsafe fn free(&self, _: DevicePointer) {}

    fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8, DeviceError> {
        Ok(Box::leak(vec![0u64; bytes.div_ceil(8)].into_boxed_slice())
            .as_mut_ptr()
            .cast())
    }

    unsafe fn free_pinned(&self, memory: *mut u8, bytes: usize) {
        let words = std::ptr::slice_from_raw_parts_mut(memory.cast::<u64>(), bytes.div_ceil(8));
        // SAFETY: `allocate_pinned` leaked a box of this many words.
        drop(unsafe { Box::from_raw(words) });
    }

    unsafe fn upload(
        &self,
        _: Stream,
        _: DevicePointer,
        _: *const u8,
        _: usize,
    ) -> Result<(), DeviceError> {
        Ok(())
    }

    unsafe fn download(
        &self,
        _: Stream,
        _: *mut u8,
        _: DevicePointer,
        _: usize,
    ) -> Result<(), DeviceError> {
        Ok(())
    }

    unsafe fn fill(&self, _: Stream, _: DevicePointer, _: u8, _: usize) -> Result<(), DeviceError> {
        Ok(())
    }

    unsafe fn launch_bytes(
        &self,
        _: Stream,
        _: &'static str,
        _: Grid,
        _: &[u8],
    ) -> Result<(), DeviceError> {
        Ok(())
    }

    fn create_event(&self) -> Result<Event, DeviceError> {
        Ok(Event(self.events.fetch_add(1, Ordering::Relaxed)))
    }

    fn record(&self, _: Event, _: Stream) -> Result<(), DeviceError> {
        Ok(())
    }

    fn wait_event(&self, _: Stream, _: Event) -> Result<(), DeviceError> {
        Ok(())
    }

    fn wait_host(&self, _: Event) -> Result<(), DeviceError> {
        Ok(())
    }

    fn synchronize(&self, _: Stream) -> Result<(), DeviceError> {
        Ok(())
    }

    fn elapsed_ms(&self, _: Event, _: Event) -> Result<f32, DeviceError> {
        Ok(0.0)
    }

    fn begin_capture(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn end_capture(&self) -> Result<Graph, DeviceError> {
        Ok(Graph(0))
    }

    fn replay(&self, _: Graph) -> Result<(), DeviceError> {
        Ok(())
    }

    fn release_graphs(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}
