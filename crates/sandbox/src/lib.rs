//! Gives up what a server does not need: files, programs, connections and the kernel's rarer calls.
//!
//! Two steps, each when it can be. [`Sandbox::confine_files`] binds the thread that calls it and what
//! comes of it, so it comes first of all, before there are other threads. [`confine_calls`] binds all
//! threads, and comes when the listening sockets are there. Neither can be taken back, and programs
//! that are started later are bound as well.
//!
//! Both do what the kernel can, and return what that was: a server that runs on an older kernel is
//! better than none.

#[cfg(not(target_os = "linux"))]
mod elsewhere;
mod links;
#[cfg(target_os = "linux")]
mod linux;
mod needs;
mod report;

use std::path::{Path, PathBuf};

#[cfg(not(target_os = "linux"))]
use elsewhere as system;
#[cfg(target_os = "linux")]
use linux as system;

pub use report::{CallsConfinement, FilesConfinement, SandboxError};

/// What a process may still do with files and ports. Everything else is refused: writing anywhere
/// but to the devices and to the directories named for that, removing files but in the directories named for that,
/// reading and executing anything that is not listed, and TCP connections to other ports than those that are listed.
///
/// Paths that do not exist may be listed; they allow nothing. A directory stands for all in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Files and directories that may be read.
    pub read: Vec<PathBuf>,
    /// Directories in which regular files may be read, made, written, renamed and removed, but not shortened.
    pub write: Vec<PathBuf>,
    /// Programs that may be executed, and directories of such; to execute is to read.
    pub read_execute: Vec<PathBuf>,
    /// Directories in which files may be removed.
    pub remove_in: Vec<PathBuf>,
    /// Devices that may be read, written and commanded (`ioctl`).
    pub devices: Vec<PathBuf>,
    /// TCP ports to listen on; 0 stands for those that the kernel chooses.
    pub bind_ports: Vec<u16>,
    /// TCP ports to connect to.
    pub connect_ports: Vec<u16>,
}

impl Sandbox {
    /// What this program needs to be executed again, to load libraries and to look at its machine,
    /// NVIDIA's driver and devices included. It has no directories of data and no port.
    pub fn of_this_program() -> Self {
        Self {
            read: needs::read(),
            write: Vec::new(),
            read_execute: needs::read_execute(),
            remove_in: Vec::new(),
            devices: needs::devices(),
            bind_ports: Vec::new(),
            connect_ports: Vec::new(),
        }
    }

    /// Lets `path` be read, with what is in it, and with the files that links in it lead to: a
    /// checkpoint in Hugging Face's cache is a directory of links.
    pub fn allow_reading(&mut self, path: &Path) {
        self.read.push(path.to_owned());
        self.read.extend(links::files_behind(path));
    }

    /// Lets a file be read that another may take the place of, by renaming or by changing where a
    /// link leads. Permission stays with a file and not with its name, so this lets all of its
    /// directory be read.
    pub fn allow_reading_anew(&mut self, file: &Path) {
        self.read.extend(links::directories_of(file));
    }

    /// Lets a file be written, others be put in its place, and others lie beside it: all of its directory.
    pub fn allow_writing_beside(&mut self, file: &Path) {
        self.write.extend(links::directories_of(file));
    }

    /// Lets a file be removed. Permission to do so lies with its directory, so this lets all files of that be
    /// removed, as far as they are files of this process's user.
    pub fn allow_removing(&mut self, file: &Path) {
        self.remove_in.extend(links::directory_of_name(file));
    }

    /// Confines the calling thread, and threads and processes that it starts from now on. It must be
    /// the only thread. What is open stays open.
    ///
    /// # Errors
    ///
    /// If there are other threads, or if the kernel refuses what it says that it can do. A kernel
    /// that can do less, or nothing, is no error.
    pub fn confine_files(&self) -> Result<FilesConfinement, SandboxError> {
        system::confine_files(self)
    }
}

/// Refuses, to all threads of this process, the calls that no server makes once it listens.
///
/// Refused is whatever would lead out (`connect`, sockets of any family but local streams, TCP's
/// fast open), what looks into or drives other processes and the kernel (`ptrace`, `bpf`, `io_uring`,
/// modules, keys …), and what rearranges the system (mounts, namespaces, clocks …). They fail with
/// EPERM. Accepting connections and using them, local pairs of sockets, threads, and executing what
/// the files' confinement allows go on.
///
/// `connect` is refused on local sockets too: a container engine's, or a proxy's, leads anywhere.
///
/// # Errors
///
/// If a thread cannot be bound. A kernel without filters of calls is no error.
pub fn confine_calls() -> Result<CallsConfinement, SandboxError> {
    system::confine_calls(system::Caller::Server)
}

/// The same for a process that connects to others over TCP. Which ports that may be, [`Sandbox::connect_ports`] says.
///
/// # Errors
///
/// As [`confine_calls`].
pub fn confine_calls_of_client() -> Result<CallsConfinement, SandboxError> {
    system::confine_calls(system::Caller::Client)
}

/// The same for a program that nobody trusts, which has a world of its own already: namespaces without anybody to connect
/// to. It may have local sockets, TCP and UDP, and no others; and neither memory nor messages that no limit counts.
///
/// # Errors
///
/// As [`confine_calls`].
pub fn confine_calls_of_contained() -> Result<CallsConfinement, SandboxError> {
    system::confine_calls(system::Caller::Contained)
}
