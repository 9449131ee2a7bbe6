//! The host executor: the kernels, compiled for the processor, as a device. It is for tests and for
//! work on kernels without a card, and many thousand times slower than one; nothing serves with it.
//!
//! It runs each CUDA thread as a fiber, emulates the card's copies and matrix products, and makes
//! an error of what a card would not forgive (`kernels/cuda/host`). Work is done at once, except
//! that graphs replay what different streams do in pseudo-random order.

mod graph;
mod library;

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use backstop_card::device::{
    Device, DeviceError, DeviceFacts, DevicePointer, Event, Graph, Grid, Stream,
};

use graph::{Capture, Recording};

pub use library::{LIBRARY_VARIABLE, build_library, build_library_of};

/// Alignment of device memory.
const ALIGNMENT: usize = 1024;
/// What the device pretends to have.
const MEMORY_BYTES: u64 = 4 << 30;
/// What undefined memory holds: NaN in every floating-point format.
const POISON: u8 = 0xff;

type Launch = unsafe extern "C" fn(
    *const c_char,
    *const u32,
    u32,
    u32,
    *const c_void,
    usize,
    *mut c_char,
    usize,
) -> c_int;

/// The processor as a device.
pub struct HostDevice {
    launch: Launch,
    // Keeps `launch` where it is.
    _library: libloading::Library,
    facts: DeviceFacts,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes of each allocation by its address.
    allocations: BTreeMap<u64, usize>,
    allocated: u64,
    events: Vec<EventState>,
    capture: Option<Capture>,
    captures: u32,
    graphs: Vec<Recording>,
}

#[derive(Clone)]
enum EventState {
    /// Not recorded yet.
    Unset,
    /// Recorded when everything before it was done.
    Passed(Instant),
    /// Recorded in the capture of this number, behind these pieces of work.
    Captured(u32, Vec<usize>),
}

/// Something that a stream does.
enum Work {
    /// Device or host memory to device or host memory.
    Copy {
        to: u64,
        from: u64,
        bytes: usize,
    },
    Fill {
        to: u64,
        byte: u8,
        bytes: usize,
    },
    Launch {
        kernel: &'static str,
        grid: Grid,
        args: Box<[u8]>,
    },
}

fn failure(attempt: &str, reason: impl Into<String>) -> DeviceError {
    DeviceError {
        attempt: attempt.into(),
        reason: reason.into(),
        fatal: false,
    }
}

impl HostDevice {
    /// Opens a library that [`build_library`] made.
    pub fn open(library: &Path) -> Result<Self, DeviceError> {
        let attempt = format!("opening {}", library.display());
        let wrong = |error: libloading::Error| failure(&attempt, error.to_string());
        // SAFETY: loading runs the static initialisers of our own kernels, which fill a list.
        let opened = unsafe { libloading::Library::new(library) }.map_err(wrong)?;
        // SAFETY: `executor.cpp` defines the function with this signature.
        let launch = unsafe {
            *opened
                .get::<Launch>(b"backstop_host_launch")
                .map_err(wrong)?
        };
        Ok(Self {
            launch,
            _library: opened,
            facts: DeviceFacts {
                name: "host executor".into(),
                multiprocessors: 4,
                memory_bytes: MEMORY_BYTES,
                driver: format!("host executor of Backstop {}", env!("CARGO_PKG_VERSION")),
            },
            state: Mutex::default(),
        })
    }

    /// The device for tests: of the library that the environment names ([`LIBRARY_VARIABLE`]), else
    /// of the present kernels, which are compiled if that has not been done yet.
    pub fn for_tests() -> Result<Arc<dyn Device>, DeviceError> {
        let library = match std::env::var_os(LIBRARY_VARIABLE) {
            Some(named) => named.into(),
            None => build_library(false)
                .map_err(|reason| failure("compiling the kernels for the processor", reason))?,
        };
        Ok(Arc::new(Self::open(&library)?))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does the work, or records it if the stream takes part in a capture.
    ///
    /// # Safety
    ///
    /// The work may be done now, and at each replay.
    unsafe fn queue(&self, stream: Stream, work: Work) -> Result<(), DeviceError> {
        let mut state = self.state();
        if let Some(capture) = state.capture.as_mut().filter(|it| it.takes_part(stream)) {
            capture.push(stream, work);
            return Ok(());
        }
        drop(state);
        // SAFETY: the caller's promise.
        unsafe { self.perform(&work) }
    }

    /// # Safety
    ///
    /// Memory that the work names is valid.
    unsafe fn perform(&self, work: &Work) -> Result<(), DeviceError> {
        match *work {
            // SAFETY: the caller's promise; `copy` because pinned memory may be copied in itself.
            Work::Copy { to, from, bytes } => unsafe {
                std::ptr::copy(from as *const u8, to as *mut u8, bytes);
            },
            // SAFETY: the caller's promise.
            Work::Fill { to, byte, bytes } => unsafe {
                std::ptr::write_bytes(to as *mut u8, byte, bytes);
            },
            Work::Launch {
                kernel,
                grid,
                ref args,
            } => {
                // SAFETY: the caller's promise.
                return unsafe { self.launch_now(kernel, grid, args) };
            }
        }
        Ok(())
    }

    /// # Safety
    ///
    /// `args` are the kernel's, and their pointers are valid.
    unsafe fn launch_now(&self, kernel: &str, grid: Grid, args: &[u8]) -> Result<(), DeviceError> {
        let name = CString::new(kernel).map_err(|_| failure(kernel, "a name with a zero"))?;
        let mut message = vec![0u8; 4096];
        // SAFETY: the lengths are those of the slices, and the arguments are the caller's promise.
        let result = unsafe {
            (self.launch)(
                name.as_ptr(),
                grid.blocks.as_ptr(),
                grid.threads,
                grid.shared_bytes,
                args.as_ptr().cast(),
                args.len(),
                message.as_mut_ptr().cast(),
                message.len(),
            )
        };
        if result == 0 {
            return Ok(());
        }
        message.truncate(message.iter().position(|&byte| byte == 0).unwrap_or(0));
        Err(failure("launching", String::from_utf8_lossy(&message)))
    }

    /// Fails unless these bytes are within one allocation.
    fn check_range(
        &self,
        attempt: &str,
        pointer: DevicePointer,
        bytes: usize,
    ) -> Result<(), DeviceError> {
        let state = self.state();
        let before = state.allocations.range(..=pointer.0).next_back();
        let inside = before.is_some_and(|(&begin, &length)| {
            pointer.0 - begin <= length as u64
                && bytes as u64 <= length as u64 - (pointer.0 - begin)
        });
        if inside {
            return Ok(());
        }
        let reason = format!(
            "{bytes} bytes at {:#x} are not in one allocation",
            pointer.0
        );
        Err(failure(attempt, reason))
    }
}

fn layout(bytes: usize) -> Result<Layout, DeviceError> {
    let wrong = |_| failure("allocating", format!("{bytes} bytes are too many"));
    Layout::from_size_align(bytes, ALIGNMENT).map_err(wrong)
}

impl Device for HostDevice {
    fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    fn free_bytes(&self) -> Result<u64, DeviceError> {
        Ok(MEMORY_BYTES - self.state().allocated)
    }

    fn allocate(&self, bytes: usize) -> Result<DevicePointer, DeviceError> {
        let pointer = self.allocate_pinned(bytes)?;
        let mut state = self.state();
        if bytes as u64 > MEMORY_BYTES - state.allocated {
            // SAFETY: just allocated with this layout.
            unsafe { dealloc(pointer, layout(bytes)?) };
            return Err(failure("allocating", format!("no {bytes} bytes are left")));
        }
        state.allocated += bytes as u64;
        state.allocations.insert(pointer as u64, bytes);
        // SAFETY: the memory has this many bytes.
        unsafe { std::ptr::write_bytes(pointer, POISON, bytes) };
        Ok(DevicePointer(pointer as u64))
    }

    unsafe fn free(&self, memory: DevicePointer) {
        let mut state = self.state();
        let bytes = state.allocations.remove(&memory.0);
        let Some((bytes, Ok(layout))) = bytes.map(|bytes| (bytes, layout(bytes))) else {
            // A card's driver would refuse as well; the caller broke its promise.
            panic!("freeing {:#x}, which was not allocated", memory.0);
        };
        state.allocated -= bytes as u64;
        // SAFETY: `allocate` made it with this layout, and it was still in the list.
        unsafe { dealloc(memory.0 as *mut u8, layout) };
    }

    fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8, DeviceError> {
        if bytes == 0 {
            return Err(failure("allocating", "no bytes"));
        }
        // SAFETY: the layout is not empty.
        let pointer = unsafe { alloc_zeroed(layout(bytes)?) };
        if pointer.is_null() {
            return Err(failure("allocating", format!("no {bytes} bytes are left")));
        }
        Ok(pointer)
    }

    unsafe fn free_pinned(&self, memory: *mut u8, bytes: usize) {
        if let Ok(layout) = layout(bytes) {
            // SAFETY: `allocate_pinned` made it with this layout.
            unsafe { dealloc(memory, layout) };
        }
    }

    unsafe fn upload(
        &self,
        stream: Stream,
        to: DevicePointer,
        from: *const u8,
        bytes: usize,
    ) -> Result<(), DeviceError> {
        self.check_range("uploading", to, bytes)?;
        let (to, from) = (to.0, from as u64);
        // SAFETY: the target was checked, and the source is the caller's promise.
        unsafe { self.queue(stream, Work::Copy { to, from, bytes }) }
    }

    unsafe fn download(
        &self,
        stream: Stream,
        to: *mut u8,
        from: DevicePointer,
        bytes: usize,
    ) -> Result<(), DeviceError> {
        self.check_range("downloading", from, bytes)?;
        let (to, from) = (to as u64, from.0);
        // SAFETY: the source was checked, and the target is the caller's promise.
        unsafe { self.queue(stream, Work::Copy { to, from, bytes }) }
    }

    unsafe fn fill(
        &self,
        stream: Stream,
        to: DevicePointer,
        byte: u8,
        bytes: usize,
    ) -> Result<(), DeviceError> {
        self.check_range("filling", to, bytes)?;
        let to = to.0;
        // SAFETY: the range was checked.
        unsafe { self.queue(stream, Work::Fill { to, byte, bytes }) }
    }

    unsafe fn launch_bytes(
        &self,
        stream: Stream,
        kernel: &'static str,
        grid: Grid,
        args: &[u8],
    ) -> Result<(), DeviceError> {
        let args = args.into();
        // SAFETY: the caller's promise.
        unsafe { self.queue(stream, Work::Launch { kernel, grid, args }) }
    }

    fn create_event(&self) -> Result<Event, DeviceError> {
        let mut state = self.state();
        state.events.push(EventState::Unset);
        Ok(Event(state.events.len() as u32 - 1))
    }

    fn record(&self, event: Event, stream: Stream) -> Result<(), DeviceError> {
        let mut state = self.state();
        let number = state.captures;
        let capture = state.capture.as_ref().filter(|it| it.takes_part(stream));
        let recorded = match capture {
            Some(capture) => EventState::Captured(number, capture.frontier(stream)),
            None => EventState::Passed(Instant::now()),
        };
        *state.event("recording an event", event)? = recorded;
        Ok(())
    }

    fn wait_event(&self, stream: Stream, event: Event) -> Result<(), DeviceError> {
        let attempt = "letting a stream wait for an event";
        let mut state = self.state();
        let (number, recorded) = (state.captures, state.event(attempt, event)?.clone());
        match (recorded, state.capture.as_mut()) {
            (EventState::Unset, _) => Err(failure(attempt, "it was never recorded")),
            (EventState::Captured(of, work), Some(capture)) if of == number => {
                capture.wait(stream, work);
                Ok(())
            }
            (EventState::Captured(..), _) => {
                Err(failure(attempt, "it was recorded in another capture"))
            }
            (EventState::Passed(_), Some(capture)) if capture.takes_part(stream) => {
                Err(failure(attempt, "it was recorded outside of the capture"))
            }
            (EventState::Passed(_), _) => Ok(()),
        }
    }

    fn wait_host(&self, event: Event) -> Result<(), DeviceError> {
        self.state().passed("waiting for an event", event).map(drop)
    }

    fn synchronize(&self, stream: Stream) -> Result<(), DeviceError> {
        let state = self.state();
        if state
            .capture
            .as_ref()
            .is_some_and(|it| it.takes_part(stream))
        {
            return Err(failure("waiting for a stream", "it is being captured"));
        }
        Ok(())
    }

    fn elapsed_ms(&self, from: Event, to: Event) -> Result<f32, DeviceError> {
        let mut state = self.state();
        let from = state.passed("measuring time", from)?;
        let to = state.passed("measuring time", to)?;
        Ok(to.saturating_duration_since(from).as_secs_f32() * 1e3)
    }

    fn begin_capture(&self) -> Result<(), DeviceError> {
        let mut state = self.state();
        if state.capture.is_some() {
            return Err(failure("beginning a capture", "there is one already"));
        }
        state.captures += 1;
        state.capture = Some(Capture::new());
        Ok(())
    }

    fn end_capture(&self) -> Result<Graph, DeviceError> {
        let attempt = "ending a capture";
        let mut state = self.state();
        let capture = state.capture.take();
        let capture = capture.ok_or_else(|| failure(attempt, "there is none"))?;
        let recording = capture.end().map_err(|reason| failure(attempt, reason))?;
        state.graphs.push(recording);
        Ok(Graph(state.graphs.len() as u32 - 1))
    }

    fn replay(&self, graph: Graph) -> Result<(), DeviceError> {
        let attempt = "replaying a graph";
        let mut state = self.state();
        if state.capture.is_some() {
            return Err(failure(attempt, "a capture is in progress"));
        }
        let recording = state.graphs.get_mut(graph.0 as usize);
        let recording = recording.ok_or_else(|| failure(attempt, "there is no such graph"))?;
        let work = recording.shuffled();
        drop(state);
        for piece in work {
            // SAFETY: who recorded the work promised that it may be replayed.
            unsafe { self.perform(&piece)? };
        }
        Ok(())
    }

    fn release_graphs(&self) -> Result<(), DeviceError> {
        self.state().graphs.clear();
        Ok(())
    }
}

impl State {
    fn event(&mut self, attempt: &str, event: Event) -> Result<&mut EventState, DeviceError> {
        let found = self.events.get_mut(event.0 as usize);
        found.ok_or_else(|| failure(attempt, "there is no such event"))
    }

    fn passed(&mut self, attempt: &str, event: Event) -> Result<Instant, DeviceError> {
        match self.event(attempt, event)? {
            EventState::Passed(moment) => Ok(*moment),
            EventState::Unset => Err(failure(attempt, "it was never recorded")),
            EventState::Captured(..) => Err(failure(attempt, "it was recorded in a capture")),
        }
    }
}

impl Drop for HostDevice {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (&pointer, &bytes) in &state.allocations {
            if let Ok(layout) = layout(bytes) {
                // SAFETY: `allocate` made it with this layout, and with the device gone nobody
                // may use its memory.
                unsafe { dealloc(pointer as *mut u8, layout) };
            }
        }
    }
}
