//! Processes that run the cases of one kernel. A kernel that never ends or that ruins the device's
//! context costs its process and the case at hand, and the next process goes on behind it.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cases::is_fatal;
use crate::stage::DeviceKind;

/// Longest time for one case, its data included; for the first also that of opening the device.
const CASE_TIMEOUT: Duration = Duration::from_secs(30);
/// The same on the host executor, whose library may have to be compiled.
const HOST_CASE_TIMEOUT: Duration = Duration::from_secs(1200);
/// Processes that one kernel may cost before it is given up.
const LOSSES_MAX: usize = 4;

/// What a process does with each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Compare with the reference.
    Check,
    /// Take the time.
    Time,
}

impl Task {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Time => "time",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Check, Self::Time]
            .into_iter()
            .find(|task| task.name() == name)
    }
}

/// The cases of a kernel.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) device: DeviceKind,
    pub(crate) task: Task,
    pub(crate) kernel: String,
    /// How many there are.
    pub(crate) cases: usize,
}

impl Job {
    /// Results of all cases in their order, and whether there was time for all.
    pub(crate) fn run(&self, left: impl Fn() -> Duration) -> io::Result<(Vec<Value>, bool)> {
        let longest = match self.device {
            DeviceKind::Cuda => CASE_TIMEOUT,
            DeviceKind::Host => HOST_CASE_TIMEOUT,
        };
        let mut results = Vec::new();
        let mut losses = 0;
        while results.len() < self.cases && losses < LOSSES_MAX {
            let mut worker = Worker::start(self, results.len())?;
            while results.len() < self.cases {
                let timeout = left().min(longest);
                if timeout.is_zero() {
                    return Ok((results, false));
                }
                match worker.next(timeout) {
                    Ok(result) => {
                        let ended = is_fatal(&result);
                        results.push(result);
                        if ended {
                            losses += 1;
                            break;
                        }
                    }
                    Err(_) if left().is_zero() => return Ok((results, false)),
                    Err(reason) => {
                        losses += 1;
                        results.push(json!({"outcome": "failed", "detail": reason}));
                        break;
                    }
                }
            }
        }
        while results.len() < self.cases {
            results.push(json!({"outcome": "not tried", "detail": "too many ended their process"}));
        }
        Ok((results, true))
    }
}

struct Worker {
    child: Child,
    lines: Receiver<Value>,
}

impl Worker {
    fn start(job: &Job, first: usize) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["worker", job.device.name(), job.task.name(), &job.kernel])
            .arg(first.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    // What is no result, such as a kernel's own words, is left alone.
                    let Ok(result) = serde_json::from_str(&line) else {
                        continue;
                    };
                    if sender.send(result).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { child, lines })
    }

    fn next(&mut self, timeout: Duration) -> Result<Value, String> {
        self.lines
            .recv_timeout(timeout)
            .map_err(|error| match error {
                RecvTimeoutError::Timeout => format!("no end after {} s", timeout.as_secs()),
                RecvTimeoutError::Disconnected => match self.child.wait() {
                    Ok(status) => format!("its process ended with {status}"),
                    Err(error) => error.to_string(),
                },
            })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to do.
        let _ignored = self.child.kill();
        let _ignored = self.child.wait();
    }
}

/// Hands a result to the process that waits for it.
pub(crate) fn send(result: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{result}")?;
    out.flush()
}
