//! Processes that run the cases of one kernel. A kernel that ruins the device's context costs its
//! process and the case at hand, and the next process goes on behind it; one that never ends is
//! given up.

use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use backstop_card::cubins::DIRECTORY_VARIABLE;
use serde_json::{Value, json};

use crate::cases::{CHECKS, is_fatal};
use crate::settings::DeviceKind;

/// Longest time for opening the device.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest time for one case, its data and its reference included.
const CASE_TIMEOUT: Duration = Duration::from_secs(6);
/// Longest time for checks that are many cases in one.
const MANY_TIMEOUT: Duration = Duration::from_secs(20);
/// All of them on the host executor, whose library may have to be compiled.
const HOST_TIMEOUT: Duration = Duration::from_secs(1200);
/// Processes that one kernel may ruin before it is given up. After one that hangs it is given up
/// at once: the next case would hang as well.
const LOSSES_MAX: usize = 3;

/// What a process does with each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Compare with the reference.
    Check,
    /// Take the time.
    Time,
    /// Launch what is timed a few times, for a profiler that watches.
    Launch,
}

impl Task {
    const ALL: [Self; 3] = [Self::Check, Self::Time, Self::Launch];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Time => "time",
            Self::Launch => "launch",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|task| task.name() == name)
    }
}

/// Some cases of a kernel.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) device: DeviceKind,
    pub(crate) task: Task,
    pub(crate) kernel: String,
    /// Their numbers.
    pub(crate) cases: Vec<usize>,
    /// Directory of the compiled kernels to use, if not those built in.
    pub(crate) cubins: Option<PathBuf>,
}

/// How a process that runs cases ended.
enum End {
    /// With the last case.
    Done,
    /// There was no more time for the stage.
    NoTime,
    /// By itself; another one can go on.
    Lost,
    /// It had to be ended.
    Hung,
}

impl Job {
    /// Adds to a command, if not this program then one that starts it, what runs some cases.
    pub(crate) fn command<'a>(&self, command: &'a mut Command, cases: &[usize]) -> &'a mut Command {
        let numbers: Vec<String> = cases.iter().map(usize::to_string).collect();
        if let Some(directory) = &self.cubins {
            command.env(DIRECTORY_VARIABLE, directory);
        }
        command
            .args(["worker", self.device.name(), self.task.name(), &self.kernel])
            .arg(numbers.join(","))
    }

    /// Results of all cases in their order, and whether there was time for all.
    pub(crate) fn run(&self, left: impl Fn() -> Duration) -> io::Result<(Vec<Value>, bool)> {
        let mut results = Vec::new();
        let mut losses = 0;
        while results.len() < self.cases.len() {
            match self.run_process(&mut results, &left)? {
                End::Done => {}
                End::NoTime => return Ok((results, false)),
                End::Lost if losses + 1 < LOSSES_MAX => losses += 1,
                End::Lost => self.give_up(&mut results, "too many ended their process"),
                End::Hung => self.give_up(&mut results, "the case before did not end"),
            }
        }
        Ok((results, true))
    }

    fn case_timeout(&self) -> Duration {
        let is_many = CHECKS.iter().any(|(name, _)| *name == self.kernel);
        let card = if is_many { MANY_TIMEOUT } else { CASE_TIMEOUT };
        self.device.limit(card, HOST_TIMEOUT)
    }

    fn give_up(&self, results: &mut Vec<Value>, why: &str) {
        for &number in &self.cases[results.len()..] {
            results.push(json!({"index": number, "outcome": "not tried", "detail": why}));
        }
    }

    /// Adds the results of one process, which begins with the first case that has none.
    fn run_process(
        &self,
        results: &mut Vec<Value>,
        left: &impl Fn() -> Duration,
    ) -> io::Result<End> {
        let mut worker = Worker::start(self, &self.cases[results.len()..])?;
        let mut longest = self.device.limit(OPEN_TIMEOUT, HOST_TIMEOUT);
        while let Some(number) = self.cases.get(results.len()) {
            let timeout = left().min(longest);
            if timeout.is_zero() {
                return Ok(End::NoTime);
            }
            let (reason, end) = match worker.next(timeout) {
                Ok(message) if message["opened"] == json!(true) => {
                    longest = self.case_timeout();
                    continue;
                }
                Ok(result) => {
                    let ended = is_fatal(&result);
                    results.push(result);
                    if ended {
                        return Ok(End::Lost);
                    }
                    continue;
                }
                Err(_) if left().is_zero() => return Ok(End::NoTime),
                Err(None) => (format!("no end after {} s", timeout.as_secs()), End::Hung),
                Err(Some(reason)) => (reason, End::Lost),
            };
            results.push(json!({
                "index": number,
                "outcome": "failed",
                "detail": reason,
                "hung": matches!(end, End::Hung),
            }));
            return Ok(end);
        }
        Ok(End::Done)
    }
}

struct Worker {
    child: Child,
    lines: Receiver<Value>,
}

impl Worker {
    fn start(job: &Job, cases: &[usize]) -> io::Result<Self> {
        let mut child = job
            .command(&mut Command::new(std::env::current_exe()?), cases)
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

    /// What it says next, or how it ended; nothing if it goes on without a word.
    fn next(&mut self, timeout: Duration) -> Result<Value, Option<String>> {
        self.lines
            .recv_timeout(timeout)
            .map_err(|error| match error {
                RecvTimeoutError::Timeout => None,
                RecvTimeoutError::Disconnected => Some(match self.child.wait() {
                    Ok(status) => format!("its process ended with {status}"),
                    Err(error) => error.to_string(),
                }),
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
