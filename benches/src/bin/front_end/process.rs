//! The server's process, and the processor time of its threads.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

/// Clock ticks in a second, in which Linux counts processor time for programs.
const TICKS: f64 = 100.0;

/// A running server; killed when dropped.
pub(crate) struct FrontEnd {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl FrontEnd {
    /// Starts this program as the server and waits until it listens.
    pub(crate) fn start(model: &str, step_ms: u64) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", model, &step_ms.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let mut server = Self {
            child,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        };
        let port = line.trim().parse();
        server.address.set_port(port.map_err(io::Error::other)?);
        Ok(server)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for FrontEnd {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to do.
        let _ignored = self.child.kill();
        let _ignored = self.child.wait();
    }
}

/// Processor time, of the engine's thread and of all others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuTime {
    pub(crate) engine_s: f64,
    pub(crate) front_end_s: f64,
}

impl CpuTime {
    /// What a process has used so far.
    pub(crate) fn of(process: u32) -> Self {
        let mut total = Self::default();
        let threads = fs::read_dir(format!("/proc/{process}/task"));
        for thread in threads.into_iter().flatten().flatten() {
            let text = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The name stands in parentheses and may hold anything; numbers follow it.
            let Some((head, rest)) = text.rsplit_once(") ") else {
                continue;
            };
            let fields: Vec<&str> = rest.split(' ').collect();
            let ticks = |place: usize| fields.get(place).and_then(|f| f.parse::<f64>().ok());
            let seconds = (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / TICKS;
            if head.ends_with("(engine") {
                total.engine_s += seconds;
            } else {
                total.front_end_s += seconds;
            }
        }
        total
    }

    /// What was used since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            engine_s: self.engine_s - before.engine_s,
            front_end_s: self.front_end_s - before.front_end_s,
        }
    }
}
