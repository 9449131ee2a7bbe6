//! The kernel's rarer calls, in all threads.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc;

use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, MountFlags, UnmountFlags, fsopen, mount, unmount};
use rustix::process::{Resource, getrlimit, setpriority_process, setrlimit};

use crate::process::{Test, confine_calls_too, confine_files, run_within};

pub(crate) const TESTS: &[Test] = &[
    (
        "threads_from_before_and_later_ones_are_bound",
        all_threads_are_bound,
    ),
    ("privileges_are_not_gained", privileges_are_not_gained),
    (
        "calls_cannot_be_queued_past_the_filter",
        calls_cannot_be_queued,
    ),
    ("the_system_is_not_rearranged", the_system_is_not_rearranged),
    (
        "calls_are_confined_in_programs_that_are_started",
        children_are_confined,
    ),
    (
        "a_confined_process_is_confined_once_more",
        a_confined_process_is_confined_once_more,
    ),
];

/// What one of them runs within.
pub(crate) const STEPS: &[Test] = &[("connects", connects)];

/// What a thread's status says.
fn status(thread: &str, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap().trim_start_matches(':').trim().to_owned()
}

fn threads() -> Vec<String> {
    let entries = fs::read_dir("/proc/self/task").unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string());
    names.map(Result::unwrap).collect()
}

fn all_threads_are_bound() {
    let (go, gone) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        gone.recv().unwrap();
        UdpSocket::bind("127.0.0.1:0").map(drop)
    });
    confine_calls_too();
    assert_eq!(threads().len(), 2);
    for thread in threads() {
        assert_eq!(status(&thread, "Seccomp"), "2");
        assert_eq!(status(&thread, "NoNewPrivs"), "1");
    }
    go.send(()).unwrap();
    let before: io::Result<()> = thread.join().unwrap();
    let later = std::thread::spawn(|| TcpListener::bind("127.0.0.1:0").map(drop));
    for outcome in [before, later.join().unwrap()] {
        let error = outcome.unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::PERM), "{error}");
    }
}

fn privileges_are_not_gained() {
    confine_files();
    let [thread] = threads().try_into().unwrap();
    assert_eq!(status(&thread, "NoNewPrivs"), "1");
}

fn calls_cannot_be_queued() {
    confine_calls_too();
    let error = io_uring::IoUring::new(8).err().expect("it is refused");
    assert_eq!(Errno::from_io_error(&error), Some(Errno::PERM), "{error}");
}

/// Most of this only root could do at all; others are refused it in any case.
fn the_system_is_not_rearranged() {
    confine_calls_too();
    let nothing: Option<&std::ffi::CStr> = None;
    let mounted = mount("none", "/mnt", "tmpfs", MountFlags::empty(), nothing);
    let outcomes = [
        ("mount", mounted),
        ("umount2", unmount("/mnt", UnmountFlags::empty())),
        ("fsopen", fsopen("tmpfs", FsOpenFlags::empty()).map(drop)),
        ("sethostname", rustix::system::sethostname(b"another")),
    ];
    for (name, outcome) in outcomes {
        assert_eq!(outcome, Err(Errno::PERM), "{name}");
    }
    let error = std::os::unix::fs::chroot("/").unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::PERM));
    // What the process does to itself goes on.
    let limit = getrlimit(Resource::Core);
    assert_eq!(setrlimit(Resource::Core, limit), Ok(()));
    assert_eq!(setpriority_process(None, 5), Ok(()));
}

fn children_are_confined() {
    confine_calls_too();
    let outcome = run_within("connects");
    let why = String::from_utf8_lossy(&outcome.stderr);
    assert!(why.contains("PermissionDenied"), "{why}");
    // Files are not confined here, so that another program can say it of itself.
    let output = Command::new("grep")
        .args(["^Seccomp:", "/proc/self/status"])
        .output();
    assert_eq!(output.unwrap().stdout, b"Seccomp:\t2\n");
}

fn connects() {
    TcpStream::connect("127.0.0.1:9").unwrap();
}

fn a_confined_process_is_confined_once_more() {
    confine_files();
    confine_calls_too();
    confine_calls_too();
    confine_files();
}
