//! What the CUDA engine asks of a device: memory, streams, launches, graphs.
//!
//! Two devices exist: the card, through its driver, and the host executor, which runs the same
//! kernels on the processor in tests.

use std::fmt;

/// Address in the device's memory; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct DevicePointer(pub u64);

impl DevicePointer {
    /// No memory.
    pub const NULL: Self = Self(0);

    /// `bytes` further on.
    #[must_use]
    pub fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// Queues of work. Work of one stream runs in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Everything, unless said otherwise.
    Main,
    /// Work that may run beside the main stream's.
    Side,
    /// Copies to and from the host that may overlap with computing.
    Copy,
}

impl Stream {
    /// All streams, in the order of their indices.
    pub const ALL: [Self; 3] = [Self::Main, Self::Side, Self::Copy];
}

/// A point in a stream's work, see [`Device::record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event(pub u32);

/// Recorded launches, see [`Device::end_capture`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Graph(pub u32);

/// Blocks and threads of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks in x, y and z.
    pub blocks: [u32; 3],
    /// Threads of a block; as many as the kernel was defined for.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
}

impl Grid {
    /// A row of blocks.
    pub fn line(blocks: usize, threads: u32) -> Self {
        Self::new([blocks, 1, 1], threads)
    }

    /// Blocks in three dimensions.
    pub fn new(blocks: [usize; 3], threads: u32) -> Self {
        let blocks = blocks.map(|count| u32::try_from(count).expect("a grid fits 32 bits"));
        Self {
            blocks,
            threads,
            shared_bytes: 0,
        }
    }

    /// With this much dynamic shared memory.
    #[must_use]
    pub fn shared(self, bytes: usize) -> Self {
        Self {
            shared_bytes: bytes as u32,
            ..self
        }
    }
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Its name, as its maker has it.
    pub name: String,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of device memory.
    pub memory_bytes: u64,
    /// Version of the driver or of the host executor, for people.
    pub driver: String,
}

/// A call to a device failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct DeviceError {
    /// What was attempted.
    pub attempt: String,
    /// What the device says.
    pub reason: String,
    /// The device is of no further use to this process.
    pub fatal: bool,
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.attempt, self.reason)
    }
}

/// The only argument of a kernel: a plain struct with the layout that the kernel declares.
///
/// # Safety
///
/// The type is `repr(C)` and consists of numbers and [`DevicePointer`]s without padding between
/// them that the kernel would read.
pub unsafe trait KernelArgs: Copy {}

/// A device. Methods queue work on a stream and return, unless they say that they wait.
pub trait Device: Send + Sync {
    /// What it is.
    fn facts(&self) -> &DeviceFacts;

    /// Free bytes of device memory.
    fn free_bytes(&self) -> Result<u64, DeviceError>;

    /// Memory, aligned to at least 1024 bytes, with undefined contents.
    fn allocate(&self, bytes: usize) -> Result<DevicePointer, DeviceError>;

    /// Gives memory back after all queued work.
    ///
    /// # Safety
    ///
    /// The memory came from [`allocate`](Self::allocate) and nothing uses it any more.
    unsafe fn free(&self, memory: DevicePointer);

    /// Host memory that copies can overlap with computing, zeroed.
    fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8, DeviceError>;

    /// Gives pinned memory back.
    ///
    /// # Safety
    ///
    /// The memory came from [`allocate_pinned`](Self::allocate_pinned) with as many bytes, and
    /// nothing uses it any more.
    unsafe fn free_pinned(&self, memory: *mut u8, bytes: usize);

    /// Copies from the host.
    ///
    /// # Safety
    ///
    /// Both ranges are valid, and the source stays unchanged until the stream has passed the copy.
    unsafe fn upload(
        &self,
        stream: Stream,
        to: DevicePointer,
        from: *const u8,
        bytes: usize,
    ) -> Result<(), DeviceError>;

    /// Copies to the host.
    ///
    /// # Safety
    ///
    /// Both ranges are valid, and nobody reads the destination until the stream has passed the
    /// copy.
    unsafe fn download(
        &self,
        stream: Stream,
        to: *mut u8,
        from: DevicePointer,
        bytes: usize,
    ) -> Result<(), DeviceError>;

    /// Sets every byte.
    ///
    /// # Safety
    ///
    /// The range is valid.
    unsafe fn fill(
        &self,
        stream: Stream,
        to: DevicePointer,
        byte: u8,
        bytes: usize,
    ) -> Result<(), DeviceError>;

    /// Queues a kernel. `args` are the bytes of its argument struct.
    ///
    /// # Safety
    ///
    /// The bytes are of the struct that the kernel takes, and its pointers are valid for what the
    /// kernel does with them.
    unsafe fn launch_bytes(
        &self,
        stream: Stream,
        kernel: &'static str,
        grid: Grid,
        args: &[u8],
    ) -> Result<(), DeviceError>;

    /// A new event.
    fn create_event(&self) -> Result<Event, DeviceError>;

    /// Marks the stream's present end.
    fn record(&self, event: Event, stream: Stream) -> Result<(), DeviceError>;

    /// Lets later work of the stream wait for the event.
    fn wait_event(&self, stream: Stream, event: Event) -> Result<(), DeviceError>;

    /// Waits on the host until the event has passed.
    fn wait_host(&self, event: Event) -> Result<(), DeviceError>;

    /// Waits until everything queued on the stream is done.
    fn synchronize(&self, stream: Stream) -> Result<(), DeviceError>;

    /// Milliseconds between two passed events.
    fn elapsed_ms(&self, from: Event, to: Event) -> Result<f32, DeviceError>;

    /// From here on, work of the main stream, and of streams that wait for its events, is recorded
    /// instead of done.
    fn begin_capture(&self) -> Result<(), DeviceError>;

    /// Ends the recording. All streams that took part have been joined to the main stream again.
    fn end_capture(&self) -> Result<Graph, DeviceError>;

    /// Queues recorded work on the main stream.
    fn replay(&self, graph: Graph) -> Result<(), DeviceError>;

    /// Gives back all recordings; none is replayed any more.
    fn release_graphs(&self) -> Result<(), DeviceError>;
}

impl dyn Device + '_ {
    /// Queues a kernel.
    ///
    /// # Safety
    ///
    /// `A` is the struct that the kernel takes, and its pointers are valid for what the kernel
    /// does with them.
    pub unsafe fn launch<A: KernelArgs>(
        &self,
        stream: Stream,
        kernel: &'static str,
        grid: Grid,
        args: &A,
    ) -> Result<(), DeviceError> {
        // SAFETY: `KernelArgs` are plain structs, whose bytes may be read.
        let bytes = unsafe {
            std::slice::from_raw_parts(std::ptr::from_ref(args).cast::<u8>(), size_of::<A>())
        };
        // SAFETY: the caller's promise.
        unsafe { self.launch_bytes(stream, kernel, grid, bytes) }
    }
}
