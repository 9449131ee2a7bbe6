//! A process in which grammars are tried.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use backstop_text::ConstraintFactory;
use backstop_text::constraint::Recipe;

use super::{GrammarWorker, TrialFailure};

/// How long a worker may take to sort the vocabulary.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between two looks at whether anybody still waits.
const POLL: Duration = Duration::from_millis(20);
/// Bytes of a worker's answer at most.
const REPLY_BYTES_MAX: u64 = 64;

/// A process that tries grammars. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) child: Child,
    lines: Sender<String>,
    replies: Receiver<()>,
    /// What it was given so far, the recipe included.
    pub(super) trials: usize,
}

impl Worker {
    /// Starts the program and waits until it has read how to make the factory.
    pub(super) fn start(
        program: &GrammarWorker,
        factory: &ConstraintFactory,
        waiting: &dyn Fn() -> bool,
    ) -> Result<Self, TrialFailure> {
        let recipe = Recipe::of(factory).map_err(io::Error::other)?;
        let recipe = serde_json::to_string(&recipe).map_err(io::Error::from)?;
        let mut child = Command::new(&program.program)
            .args(&program.arguments)
            .arg0("backstop")
            .env_clear()
            // Every trial has a thread of its own, and each would leave memory of its own behind.
            .env("MALLOC_ARENA_MAX", "1")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Whoever interrupts the server in a terminal does not interrupt its trials: it drains.
            .process_group(0)
            .spawn()?;
        let (lines, to_write) = channel();
        let (answered, replies) = channel();
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let mut worker = Self {
            child,
            lines,
            replies,
            trials: 0,
        };
        let (Some(input), Some(output)) = (input, output) else {
            return Err(io::Error::other("a worker has no pipes").into());
        };
        std::thread::Builder::new()
            .name("grammar-trial".to_owned())
            .spawn(move || talk(input, output, &to_write, &answered))?;
        match worker.answers(recipe, START_TIMEOUT, waiting) {
            Err(TrialFailure::TooMuch) => {
                let error = "a worker did not start";
                Err(TrialFailure::Unavailable(io::Error::other(error)))
            }
            result => result.map(|()| worker),
        }
    }

    /// Gives the worker a line and waits for its answer.
    pub(super) fn answers(
        &mut self,
        line: String,
        timeout: Duration,
        waiting: &dyn Fn() -> bool,
    ) -> Result<(), TrialFailure> {
        let began = Instant::now();
        self.trials += 1;
        if self.lines.send(line).is_err() {
            return Err(TrialFailure::TooMuch);
        }
        loop {
            match self.replies.recv_timeout(POLL) {
                Ok(()) => return Ok(()),
                Err(RecvTimeoutError::Timeout) if !waiting() => {
                    return Err(TrialFailure::Abandoned);
                }
                Err(RecvTimeoutError::Timeout) if began.elapsed() < timeout => {}
                Err(_) => return Err(TrialFailure::TooMuch),
            }
        }
    }

    /// Ends the process, if it has not ended by itself, and says how.
    pub(super) fn end(&mut self) -> String {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        ended.map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// Writes lines to a worker and reads its answers, until either side is gone.
fn talk(
    mut input: ChildStdin,
    output: ChildStdout,
    lines: &Receiver<String>,
    answered: &Sender<()>,
) {
    let mut output = BufReader::new(output);
    while let Ok(mut line) = lines.recv() {
        line.push('\n');
        let written = input
            .write_all(line.as_bytes())
            .and_then(|()| input.flush());
        let mut reply = String::new();
        let read = (&mut output).take(REPLY_BYTES_MAX).read_line(&mut reply);
        let complete = written.is_ok() && read.is_ok() && reply.ends_with('\n');
        if !complete || answered.send(()).is_err() {
            return;
        }
    }
}
