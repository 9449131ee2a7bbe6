//! A Unix socket that has a name among the files.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener as Unregistered;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use rustix::fs::{Mode, RawMode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use tokio::net::{UnixListener, UnixStream};

/// What may be taken away from everybody.
const ALL_PERMISSIONS: u32 = 0o777;

/// A socket file that was made, and that nobody is let in by yet. It is removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    listener: Unregistered,
    file: OwnFile,
}

impl SocketFile {
    /// Listens at `path`, which may be opened by whom `mode` lets write to it, such as 0600. What a server has left
    /// there that runs no more is replaced.
    ///
    /// It must be called before there are other threads: for a moment it changes with which permissions this process
    /// makes files, so that the socket never has others than it should.
    ///
    /// # Errors
    ///
    /// If a server listens there, if there is something other than a socket, and whatever the operating system says.
    pub fn listen(path: &Path, mode: u32) -> io::Result<Self> {
        make_room(path)?;
        // Some systems have fewer bits for it.
        let withheld = Mode::from_bits_truncate((ALL_PERMISSIONS & !mode) as RawMode);
        let usual = rustix::process::umask(withheld);
        let listener = Unregistered::bind(path);
        rustix::process::umask(usual);
        let listener = listener?;
        listener.set_nonblocking(true)?;
        let file = OwnFile::new(path)?;
        Ok(Self { listener, file })
    }

    /// The same within a runtime, to be served.
    ///
    /// # Errors
    ///
    /// If the runtime cannot wait for it.
    pub fn register(self) -> io::Result<UnixSocket> {
        let Self { listener, file } = self;
        Ok(UnixSocket {
            listener: UnixListener::from_std(listener)?,
            _file: file,
        })
    }
}

/// A socket file that is listened at. It is removed when this is dropped.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    _file: OwnFile,
}

impl UnixSocket {
    /// The next who connects. Nothing is lost if the wait is given up.
    ///
    /// # Errors
    ///
    /// Whatever the operating system says.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        std::future::poll_fn(|context| self.poll_accept(context)).await
    }

    pub(super) fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        let accepted = self.listener.poll_accept(context);
        accepted.map_ok(|(stream, _)| stream)
    }
}

/// A file that this process made.
#[derive(Debug)]
struct OwnFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl OwnFile {
    fn new(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    fn is(&self, metadata: &Metadata) -> bool {
        (self.device, self.inode) == (metadata.dev(), metadata.ino())
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        // Another server may have taken its place in the meantime.
        let is_here = fs::symlink_metadata(&self.path).is_ok_and(|present| self.is(&present));
        if is_here && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, "cannot remove the socket {}", self.path.display());
        }
    }
}

/// Removes a socket at `path` at which nobody listens.
fn make_room(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let text = "there is a file of this name, which is no socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Ok(_) => {}
    }
    if is_listened_at(path)? {
        let text = "another server listens there";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    tracing::info!(
        "replacing the socket {}, at which nobody listens",
        path.display()
    );
    fs::remove_file(path)
}

/// Whether anybody listens at a socket. Nobody is waited for.
fn is_listened_at(path: &Path) -> io::Result<bool> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => Ok(true),
        // So many wait to be accepted that there is no room for another.
        Err(Errno::AGAIN | Errno::INPROGRESS) => Ok(true),
        Err(Errno::CONNREFUSED) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
