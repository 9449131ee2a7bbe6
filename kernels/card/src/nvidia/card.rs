//! A card, through its driver.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{
    self, CUcontext, CUdevice, CUdevice_attribute, CUevent, CUevent_flags, CUevent_wait_flags,
    CUfunction, CUfunction_attribute, CUgraphExec, CUgraphInstantiate_flags, CUmodule, CUstream,
    CUstreamCaptureMode,
};

use super::NoCuda;
use super::driver::{Card, attribute, failure, find};
use crate::cubins::{CUBINS, Cubin, KernelFacts};
use crate::device::{Device, DeviceError, DeviceFacts, DevicePointer, Event, Graph, Grid, Stream};

/// What every allocation is aligned to. The driver promises less.
const ALIGNMENT: u64 = 1024;

/// Share of a multiprocessor's memory that is shared memory, for all kernels: as much as there is.
const CARVEOUT_PERCENT: i32 = 100;

/// Number of the next opened card, from 1.
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// The opened card whose context the driver uses for this thread's calls.
    static BOUND: Cell<u64> = const { Cell::new(0) };
}

/// A loaded kernel.
struct Kernel {
    function: CUfunction,
    argument_bytes: usize,
    threads: u32,
}

/// An opened card with all kernels loaded.
pub(super) struct NvidiaDevice {
    facts: DeviceFacts,
    serial: u64,
    device: CUdevice,
    context: CUcontext,
    streams: [CUstream; Stream::ALL.len()],
    modules: Vec<CUmodule>,
    kernels: HashMap<String, Kernel>,
    events: Mutex<Vec<CUevent>>,
    /// Locked while one is queued: the driver forbids to queue a graph from two threads at once.
    graphs: Mutex<Vec<CUgraphExec>>,
    /// Where the driver's memory begins, for allocations that had to be moved to be aligned.
    moved: Mutex<HashMap<DevicePointer, u64>>,
}

// SAFETY: the handles belong to the driver, which may be called from any thread; what it wants
// synchronised is behind locks.
unsafe impl Send for NvidiaDevice {}
// SAFETY: as above.
unsafe impl Sync for NvidiaDevice {}

impl NvidiaDevice {
    /// Opens a card and loads all kernels.
    pub(super) fn open(ordinal: u32) -> Result<Self, NoCuda> {
        let card = find(ordinal)?;
        let failed = |error| NoCuda::Failed { ordinal, error };
        // SAFETY: the driver gave the device. Whoever retains a context releases it, see `drop`.
        let context = unsafe { result::primary_ctx::retain(card.device) };
        let context = context.map_err(|error| failed(failure("creating a context", error)))?;
        let mut opened = Self::empty(card, context);
        // What is half set up is given back by `drop`.
        opened.set_up().map_err(failed)?;
        Ok(opened)
    }

    /// A card with nothing but a context.
    fn empty(card: Card, context: CUcontext) -> Self {
        Self {
            facts: DeviceFacts {
                name: card.name,
                multiprocessors: 0,
                memory_bytes: 0,
                driver: card.driver,
            },
            serial: NEXT_SERIAL.fetch_add(1, Ordering::Relaxed),
            device: card.device,
            context,
            streams: [ptr::null_mut(); Stream::ALL.len()],
            modules: Vec::new(),
            kernels: HashMap::new(),
            events: Mutex::default(),
            graphs: Mutex::default(),
            moved: Mutex::default(),
        }
    }

    fn set_up(&mut self) -> Result<(), DeviceError> {
        self.bind()?;
        let asking = |error| failure("asking for its properties", error);
        let property = |which| attribute(self.device, which).map_err(asking);
        let multiprocessors =
            property(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let shared_bytes =
            property(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        // SAFETY: the driver gave the device.
        let memory_bytes = unsafe { result::device::total_mem(self.device) }.map_err(asking)?;
        self.facts.multiprocessors = multiprocessors.unsigned_abs();
        self.facts.memory_bytes = memory_bytes as u64;
        for stream in &mut self.streams {
            *stream = result::stream::create(result::stream::StreamKind::NonBlocking)
                .map_err(|error| failure("creating a stream", error))?;
        }
        CUBINS
            .iter()
            .try_for_each(|cubin| self.load(cubin, shared_bytes))
    }

    /// Loads the kernels of a cubin.
    fn load(&mut self, cubin: &Cubin, shared_bytes: i32) -> Result<(), DeviceError> {
        let attempt = || format!("loading the kernels of {}", cubin.name);
        let cubin = cubin
            .chosen()
            .map_err(|error| wrong(attempt(), error.to_string()))?;
        let facts = cubin
            .kernels()
            .map_err(|error| wrong(attempt(), error.to_string()))?;
        // SAFETY: the image is a whole cubin, as reading its tables has shown.
        let module = unsafe { result::module::load_data(cubin.image.as_ptr().cast()) }
            .map_err(|error| failure(attempt(), error))?;
        self.modules.push(module);
        for KernelFacts {
            name,
            argument_bytes,
            threads,
        } in facts
        {
            let function = resolve(module, &name, shared_bytes)
                .map_err(|error| failure(format!("loading kernel {name}"), error))?;
            let kernel = Kernel {
                function,
                argument_bytes,
                threads,
            };
            self.kernels.insert(name, kernel);
        }
        Ok(())
    }

    /// Makes the card's context the one of this thread's calls.
    fn bind(&self) -> Result<(), DeviceError> {
        if BOUND.get() != self.serial {
            // SAFETY: the context lives as long as `self`.
            unsafe { result::ctx::set_current(self.context) }
                .map_err(|error| failure("choosing the card for a thread", error))?;
            BOUND.set(self.serial);
        }
        Ok(())
    }

    /// Calls the driver.
    fn call<T>(
        &self,
        attempt: impl FnOnce() -> String,
        call: impl FnOnce() -> Result<T, DriverError>,
    ) -> Result<T, DeviceError> {
        self.bind()?;
        call().map_err(|error| failure(attempt(), error))
    }

    fn stream(&self, stream: Stream) -> CUstream {
        self.streams[stream as usize]
    }

    fn event(&self, event: Event) -> Result<CUevent, DeviceError> {
        let events = lock(&self.events);
        let handle = events.get(event.0 as usize).copied();
        handle.ok_or_else(|| wrong(format!("using {event:?}"), "there is no such event"))
    }
}

/// A kernel's handle, loaded, with all shared memory allowed.
fn resolve(module: CUmodule, name: &str, shared_bytes: i32) -> Result<CUfunction, DriverError> {
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: the module is loaded and stays so as long as the function is used.
    unsafe {
        let function = result::module::get_function(module, name)?;
        // Now rather than at the first launch, which may be within a recording.
        sys::cuFuncLoad(function).result()?;
        let fixed_bytes = result::function::get_function_attribute(
            function,
            CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
        )?;
        result::function::set_function_attribute(
            function,
            CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
            shared_bytes - fixed_bytes,
        )?;
        // Kernels that want different shares of a multiprocessor's memory cannot run on it side by
        // side, as those of two streams should.
        result::function::set_function_attribute(
            function,
            CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT,
            CARVEOUT_PERCENT,
        )?;
        Ok(function)
    }
}

/// A caller's mistake.
fn wrong(attempt: String, reason: impl Into<String>) -> DeviceError {
    DeviceError {
        attempt,
        reason: reason.into(),
        fatal: false,
    }
}

/// The lists are never left half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device for NvidiaDevice {
    fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    fn free_bytes(&self) -> Result<u64, DeviceError> {
        let (free, _) = self.call(|| "asking for free memory".into(), result::mem_get_info)?;
        Ok(free as u64)
    }

    fn allocate(&self, bytes: usize) -> Result<DevicePointer, DeviceError> {
        let attempt = || format!("allocating {bytes} bytes of device memory");
        // SAFETY: the memory is used only after a kernel or copy has written it.
        let allocate = |bytes| unsafe { result::malloc_sync(bytes) };
        let start = self.call(attempt, || allocate(bytes))?;
        if start % ALIGNMENT == 0 {
            return Ok(DevicePointer(start));
        }
        // SAFETY: nobody has seen this memory.
        self.call(attempt, || unsafe { result::free_sync(start) })?;
        let start = self.call(attempt, || allocate(bytes + ALIGNMENT as usize))?;
        let aligned = DevicePointer(start.next_multiple_of(ALIGNMENT));
        lock(&self.moved).insert(aligned, start);
        Ok(aligned)
    }

    unsafe fn free(&self, memory: DevicePointer) {
        let start = lock(&self.moved).remove(&memory).unwrap_or(memory.0);
        // If this fails, an earlier error has spoilt the context, and its memory goes with it.
        let _ = self.call(String::new, || {
            result::ctx::synchronize()?;
            // SAFETY: the caller's promise, and the card is idle.
            unsafe { result::free_sync(start) }
        });
    }

    fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8, DeviceError> {
        let attempt = || format!("allocating {bytes} bytes of pinned host memory");
        let memory = self.call(attempt, || {
            // SAFETY: the memory is zeroed below, before anybody sees it.
            unsafe { result::malloc_host(bytes.max(1), sys::CU_MEMHOSTALLOC_PORTABLE) }
        })?;
        let memory = memory.cast::<u8>();
        // SAFETY: the driver has just given this many bytes.
        unsafe { memory.write_bytes(0, bytes) };
        Ok(memory)
    }

    unsafe fn free_pinned(&self, memory: *mut u8, _bytes: usize) {
        let _ = self.call(String::new, || {
            result::ctx::synchronize()?;
            // SAFETY: the caller's promise, and the card is idle.
            unsafe { result::free_host(memory.cast()) }
        });
    }

    unsafe fn upload(
        &self,
        stream: Stream,
        to: DevicePointer,
        from: *const u8,
        bytes: usize,
    ) -> Result<(), DeviceError> {
        if bytes == 0 {
            return Ok(());
        }
        let attempt = || format!("copying {bytes} bytes to the device");
        let stream = self.stream(stream);
        // SAFETY: the caller's promise.
        let copy = || unsafe { sys::cuMemcpyHtoDAsync_v2(to.0, from.cast(), bytes, stream) };
        self.call(attempt, || copy().result())
    }

    unsafe fn download(
        &self,
        stream: Stream,
        to: *mut u8,
        from: DevicePointer,
        bytes: usize,
    ) -> Result<(), DeviceError> {
        if bytes == 0 {
            return Ok(());
        }
        let attempt = || format!("copying {bytes} bytes from the device");
        let stream = self.stream(stream);
        // SAFETY: the caller's promise.
        let copy = || unsafe { sys::cuMemcpyDtoHAsync_v2(to.cast(), from.0, bytes, stream) };
        self.call(attempt, || copy().result())
    }

    unsafe fn fill(
        &self,
        stream: Stream,
        to: DevicePointer,
        byte: u8,
        bytes: usize,
    ) -> Result<(), DeviceError> {
        if bytes == 0 {
            return Ok(());
        }
        let attempt = || format!("filling {bytes} bytes");
        let stream = self.stream(stream);
        // SAFETY: the caller's promise.
        let fill = || unsafe { result::memset_d8_async(to.0, byte, bytes, stream) };
        self.call(attempt, fill)
    }

    unsafe fn launch_bytes(
        &self,
        stream: Stream,
        kernel: &'static str,
        grid: Grid,
        args: &[u8],
    ) -> Result<(), DeviceError> {
        let attempt = || format!("launching {kernel} with {grid:?}");
        let Some(loaded) = self.kernels.get(kernel) else {
            return Err(wrong(attempt(), "there is no such kernel"));
        };
        if args.len() != loaded.argument_bytes || grid.threads != loaded.threads {
            let reason = format!(
                "it takes {} bytes of arguments, not {}, and {} threads",
                loaded.argument_bytes,
                args.len(),
                loaded.threads
            );
            return Err(wrong(attempt(), reason));
        }
        let [x, y, z] = grid.blocks;
        let threads = (grid.threads, 1, 1);
        let mut parameters = [args.as_ptr().cast_mut().cast::<c_void>()];
        let (shared, stream) = (grid.shared_bytes, self.stream(stream));
        self.call(attempt, || {
            // SAFETY: the arguments have the kernel's length, and the driver copies them before it
            // returns; the rest is the caller's promise.
            unsafe {
                let (function, parameters) = (loaded.function, &mut parameters);
                result::launch_kernel(function, (x, y, z), threads, shared, stream, parameters)
            }
        })
    }

    fn create_event(&self) -> Result<Event, DeviceError> {
        let event = self.call(
            || "creating an event".into(),
            || result::event::create(CUevent_flags::CU_EVENT_DEFAULT),
        )?;
        let mut events = lock(&self.events);
        events.push(event);
        Ok(Event(events.len() as u32 - 1))
    }

    fn record(&self, event: Event, stream: Stream) -> Result<(), DeviceError> {
        let handle = self.event(event)?;
        let attempt = || format!("recording {event:?} on {stream:?}");
        // SAFETY: events and streams live as long as `self`.
        let record = || unsafe { result::event::record(handle, self.stream(stream)) };
        self.call(attempt, record)
    }

    fn wait_event(&self, stream: Stream, event: Event) -> Result<(), DeviceError> {
        let handle = self.event(event)?;
        let attempt = || format!("letting {stream:?} wait for {event:?}");
        let flags = CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: events and streams live as long as `self`.
        let wait = || unsafe { result::stream::wait_event(self.stream(stream), handle, flags) };
        self.call(attempt, wait)
    }

    fn wait_host(&self, event: Event) -> Result<(), DeviceError> {
        let handle = self.event(event)?;
        let attempt = || format!("waiting for {event:?}");
        // SAFETY: events live as long as `self`.
        self.call(attempt, || unsafe { result::event::synchronize(handle) })
    }

    fn synchronize(&self, stream: Stream) -> Result<(), DeviceError> {
        let attempt = || format!("waiting for {stream:?}");
        // SAFETY: streams live as long as `self`.
        let wait = || unsafe { result::stream::synchronize(self.stream(stream)) };
        self.call(attempt, wait)
    }

    fn elapsed_ms(&self, from: Event, to: Event) -> Result<f32, DeviceError> {
        let (start, end) = (self.event(from)?, self.event(to)?);
        let attempt = || format!("timing {from:?} to {to:?}");
        // SAFETY: events live as long as `self`.
        self.call(attempt, || unsafe { result::event::elapsed(start, end) })
    }

    fn begin_capture(&self) -> Result<(), DeviceError> {
        // In this mode, what cannot be recorded, such as an allocation, is an error if this thread
        // does it, and other threads may do as they like.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let main = self.stream(Stream::Main);
        // SAFETY: streams live as long as `self`.
        let begin = || unsafe { result::stream::begin_capture(main, mode) };
        self.call(|| "beginning to record a graph".into(), begin)
    }

    fn end_capture(&self) -> Result<Graph, DeviceError> {
        let main = self.stream(Stream::Main);
        let attempt = || "recording a graph".into();
        // SAFETY: streams live as long as `self`.
        let graph = self.call(attempt, || unsafe { result::stream::end_capture(main) })?;
        let executable = self.call(attempt, || {
            // SAFETY: the driver gave the graph, and nothing refers to it once it is instantiated.
            unsafe {
                let executable = result::graph::instantiate(graph, CUgraphInstantiate_flags(0));
                result::graph::destroy(graph)?;
                executable
            }
        })?;
        let mut graphs = lock(&self.graphs);
        graphs.push(executable);
        // Now rather than at the first replay.
        // SAFETY: graphs and streams live as long as `self`.
        self.call(attempt, || unsafe {
            result::graph::upload(executable, main)
        })?;
        Ok(Graph(graphs.len() as u32 - 1))
    }

    fn replay(&self, graph: Graph) -> Result<(), DeviceError> {
        let attempt = || format!("replaying {graph:?}");
        let graphs = lock(&self.graphs);
        let Some(&executable) = graphs.get(graph.0 as usize) else {
            return Err(wrong(attempt(), "there is no such graph"));
        };
        let main = self.stream(Stream::Main);
        // SAFETY: graphs and streams live as long as `self`, and the lock is held.
        self.call(attempt, || unsafe {
            result::graph::launch(executable, main)
        })
    }

    fn release_graphs(&self) -> Result<(), DeviceError> {
        self.synchronize(Stream::Main)?;
        for graph in lock(&self.graphs).drain(..) {
            // SAFETY: the driver gave the graph, nobody else has it, and what was queued of it is done.
            let destroy = || unsafe { result::graph::exec_destroy(graph) };
            self.call(|| "giving back a graph".into(), destroy)?;
        }
        Ok(())
    }
}

impl Drop for NvidiaDevice {
    fn drop(&mut self) {
        // Errors here mean that an earlier one has spoilt the context; it goes in any case.
        let _ = self.bind();
        let _ = result::ctx::synchronize();
        // SAFETY: the driver gave these handles, and nobody else has them.
        unsafe {
            for graph in lock(&self.graphs).drain(..) {
                let _ = result::graph::exec_destroy(graph);
            }
            for event in lock(&self.events).drain(..) {
                let _ = result::event::destroy(event);
            }
            for stream in self.streams.into_iter().filter(|stream| !stream.is_null()) {
                let _ = result::stream::destroy(stream);
            }
            for module in self.modules.drain(..) {
                let _ = result::module::unload(module);
            }
            let _ = result::primary_ctx::release(self.device);
        }
    }
}
