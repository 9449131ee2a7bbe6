//! The signal, and what a thread does when it gets one.
//!
//! Within the handler nothing is asked for that the interrupted thread may hold half done: no memory, no lock of this
//! program, no log. Walking the stack reads tables of the program and of its libraries. The unwinder finds them without a
//! lock where the C library has `_dl_find_object` (glibc from 2.35 on); an older one takes the loader's lock, which the
//! interrupted thread itself may hold, for it may be taken again, and another only while it loads a library.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;

use super::slots;

/// Which of the real-time signals that are left to programs, counted from the first: not one of the first, which others
/// like to take.
const SIGNAL_OFFSET: c_int = 9;

fn signal_number() -> c_int {
    libc::SIGRTMIN() + SIGNAL_OFFSET
}

/// Sets the handler up, once. The number of the system's error is kept.
pub(super) fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        // What is bound or loaded at a first use is so from now on.
        walk(|_| true);
        set_handler().map_err(|error| error.raw_os_error().unwrap_or_default())
    });
    installed.map_err(io::Error::from_raw_os_error)
}

fn set_handler() -> io::Result<()> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `sigaction` is plain data, of which all zeroes is a value; the two calls get pointers to it and to a
    // handler of the type that SA_SIGINFO asks for.
    let outcome = unsafe {
        let action = action.assume_init_mut();
        action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
        // Calls that can go on do: who is asked for his stack shall not notice.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigfillset(&raw mut action.sa_mask);
        libc::sigaction(signal_number(), action, ptr::null_mut())
    };
    match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends the signal to a thread of this process; false if there is no such thread any more.
pub(super) fn signal(thread: i32) -> bool {
    // SAFETY: the call takes numbers only. A number that another process has got since is no thread of this process, and
    // is refused.
    let outcome =
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal_number()) };
    outcome == 0
}

/// Writes the calls of the thread that runs it.
extern "C" fn on_signal(_number: c_int, _info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the thread's own number for the last error is there as long as the thread is. It is put back, for what was
    // interrupted may be about to read it.
    let (errno, before) = unsafe {
        let errno = libc::__errno_location();
        (errno, *errno)
    };
    // SAFETY: the call takes nothing and always succeeds.
    let thread = unsafe { libc::gettid() };
    slots::write(thread, |writer| {
        // The frames up to this function are the walk's own, and the next is where the kernel enters the handler.
        let mut passed = 0;
        walk(|frame| {
            if passed == 2 {
                return writer.push(frame.ip() as usize);
            }
            let own = frame.symbol_address() == on_signal as *mut libc::c_void;
            passed += usize::from(own || passed == 1);
            true
        });
    });
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// Shows the calling thread's frames, innermost first, until `each` has enough.
fn walk(each: impl FnMut(&backtrace::Frame) -> bool) {
    // SAFETY: what must not happen at once in two threads is looking up names, which this does not do. The tables that
    // are walked do not change.
    unsafe { backtrace::trace_unsynchronized(each) };
}
