//! The server under test.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::http;

/// Pause between two looks at whether the server is ready.
const POLL: Duration = Duration::from_millis(1);
/// Longest time until it is.
const READY_TIMEOUT: Duration = Duration::from_secs(600);

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// When it was started.
    pub started: Instant,
    /// Time from its start until it was ready.
    pub ready_after: Duration,
}

impl ServerProcess {
    /// Starts `binary serve model` and waits until it is ready.
    pub fn start(binary: &Path, model: &str, arguments: &[&str]) -> io::Result<Self> {
        Self::start_with(binary, model, arguments, Stdio::null())
    }

    /// The same, with what the server says about itself in a file. If it ends early, the error
    /// has its last words.
    pub fn start_with_log(
        binary: &Path,
        model: &str,
        arguments: &[&str],
        log: &Path,
    ) -> io::Result<Self> {
        let file = fs::File::create(log)?;
        Self::start_with(binary, model, arguments, file.into()).map_err(|error| {
            let text = fs::read_to_string(log).unwrap_or_default();
            let words = text.lines().rev().find(|line| !line.trim().is_empty());
            io::Error::other(format!("{error}: {}", words.unwrap_or_default()))
        })
    }

    fn start_with(
        binary: &Path,
        model: &str,
        arguments: &[&str],
        errors: Stdio,
    ) -> io::Result<Self> {
        let address = free_address()?;
        let started = Instant::now();
        let child = Command::new(binary)
            .args(["serve", model, "--port", &address.port().to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()?;
        let mut server = Self {
            child,
            address,
            started,
            ready_after: Duration::ZERO,
        };
        while !server.is_ready() {
            if let Some(status) = server.child.try_wait()? {
                return Err(io::Error::other(format!("the server ended with {status}")));
            }
            if started.elapsed() > READY_TIMEOUT {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(POLL);
        }
        server.ready_after = started.elapsed();
        Ok(server)
    }

    fn is_ready(&self) -> bool {
        http::get(self.address, "/ready").is_ok_and(|answer| answer.status == 200)
    }

    /// A number from `/proc/PID/status`, in KiB: `VmRSS` is what the process holds in memory,
    /// `VmHWM` the most that it ever held.
    pub fn memory_kib(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to do.
        let _ignored = self.child.kill();
        let _ignored = self.child.wait();
    }
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Size of the weight files of the model in `directory`.
pub fn checkpoint_bytes(directory: &Path) -> io::Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(directory)? {
        let path: PathBuf = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            total += fs::metadata(&path)?.len();
        }
    }
    Ok(total)
}
