//! The stacks of all threads of this process: what each of them is doing, for a log, when nothing moves any more.
//!
//! A thread's stack can be walked only by the thread itself. So each gets a real-time signal, whose handler writes the
//! addresses of its own calls into memory that was set aside before; names are looked up afterwards, by who asked. A
//! thread that the kernel does not let go, or that takes no signals, does not answer in time; the kernel's own word on
//! what it waits for stands in place of its stack.
//!
//! This works on Linux. Elsewhere there are no stacks, and [`prepare`] says so.

#![cfg_attr(
    target_os = "linux",
    expect(
        unsafe_code,
        reason = "signals to single threads, and walking a stack within their handler, have no safe interface"
    )
)]

#[cfg(target_os = "linux")]
mod linux;
mod report;

#[cfg(target_os = "linux")]
pub use linux::{capture, prepare};
pub use report::{Answer, Frame, ThreadStack};

/// There are no stacks on this system.
#[cfg(not(target_os = "linux"))]
pub fn prepare() -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// There are no stacks on this system.
#[cfg(not(target_os = "linux"))]
pub fn capture() -> std::io::Result<Vec<ThreadStack>> {
    Err(std::io::ErrorKind::Unsupported.into())
}
