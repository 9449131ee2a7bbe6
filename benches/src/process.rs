//! The server under test.

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{self, SILENCE_MAX, Server};

/// Pause between two looks at whether the server is ready.
const POLL: Duration = Duration::from_millis(1);
/// Longest time until it is.
const READY_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest time for the answer to whether it is.
const READY_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    silence_max: Duration,
    /// When it was started.
    pub started: Instant,
    /// Time from its start until it was ready.
    pub ready_after: Duration,
}

/// How a server is started.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// The program.
    pub binary: &'a Path,
    /// What it serves.
    pub model: &'a str,
    /// Further arguments.
    pub arguments: &'a [&'a str],
    /// Where to append what it says about itself, if anywhere.
    pub log: Option<&'a Path>,
    /// Longest time until it is ready.
    pub ready_within: Duration,
    /// Longest silence once it is.
    pub silence_max: Duration,
}

impl ServerProcess {
    /// Starts `binary serve model` and waits until it is ready, however long that takes.
    pub fn start(binary: &Path, model: &str, arguments: &[&str]) -> io::Result<Self> {
        Self::launch(&Start {
            binary,
            model,
            arguments,
            log: None,
            ready_within: READY_TIMEOUT,
            silence_max: SILENCE_MAX,
        })
    }

    /// Starts a server and waits until it is ready. If it ends early, the error has its last
    /// words; if it is not ready in time, it is [`io::ErrorKind::TimedOut`].
    pub fn launch(start: &Start<'_>) -> io::Result<Self> {
        let errors = match start.log {
            None => Stdio::null(),
            Some(log) => {
                let mut file = fs::File::options().append(true).create(true).open(log)?;
                let (model, arguments) = (start.model, start.arguments.join(" "));
                writeln!(file, "\n== serve {model} {arguments}")?;
                file.into()
            }
        };
        Self::start_with(start, errors).map_err(|error| {
            let text = start.log.map(fs::read_to_string);
            let text = text.and_then(Result::ok).unwrap_or_default();
            let words = text.lines().rev().find(|line| !line.trim().is_empty());
            let words = words.unwrap_or_default();
            io::Error::new(error.kind(), format!("{error}: {words}"))
        })
    }

    fn start_with(start: &Start<'_>, errors: Stdio) -> io::Result<Self> {
        let address = free_address()?;
        let started = Instant::now();
        let child = Command::new(start.binary)
            .args(["serve", start.model, "--port", &address.port().to_string()])
            .args(start.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()?;
        let mut server = Self {
            child,
            address,
            silence_max: start.silence_max,
            started,
            ready_after: Duration::ZERO,
        };
        while !server.is_ready() {
            if let Some(status) = server.child.try_wait()? {
                return Err(io::Error::other(format!("the server ended with {status}")));
            }
            if started.elapsed() > start.ready_within {
                let seconds = start.ready_within.as_secs();
                let what = format!("the server was not ready after {seconds} s");
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            thread::sleep(POLL);
        }
        server.ready_after = started.elapsed();
        Ok(server)
    }

    /// Whom to ask.
    pub fn server(&self) -> Server {
        Server {
            address: self.address,
            silence_max: self.silence_max,
        }
    }

    fn is_ready(&self) -> bool {
        let server = Server {
            address: self.address,
            silence_max: READY_ANSWER_TIMEOUT,
        };
        http::get(server, "/ready").is_ok_and(|answer| answer.status == 200)
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
