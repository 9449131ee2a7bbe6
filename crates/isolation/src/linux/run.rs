//! The process that asks: starts the stages, feeds them, and waits until everything is over.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::memory::Group;
use super::wire::{Entry, Failure, Message, Settings, receive, send};
use super::{Identity, Isolation, outer};
use crate::{Ended, Finished, IsolationError, Job, STAGE};

mod streams;

use streams::Streams;

/// How long a world may take to be made; a large directory is copied.
const SETUP: Duration = Duration::from_secs(120);
/// How long the kernel may take to end everything.
const TEARDOWN: Duration = Duration::from_secs(20);
/// How often it is looked whether the memory was enough.
const INTERVAL: Duration = Duration::from_millis(50);
const TEARDOWN_INTERVAL: Duration = Duration::from_millis(1);

/// Runs a job; or, as a trial, puts all layers around nothing.
pub(super) fn run(
    isolation: &Isolation,
    job: &Job<'_>,
    is_trial: bool,
) -> Result<Finished, IsolationError> {
    // What is written lies in memory as well.
    let bytes = job
        .limits
        .memory_bytes
        .saturating_add(job.limits.disk_bytes);
    let group = isolation.memory.group(bytes).map_err(|error| {
        Failure::of("control group", format_args!("making it: {error}")).into_error()
    })?;
    let (control, theirs) = UnixStream::pair()?;
    let mut child = Command::new(&isolation.program)
        .args([STAGE, outer::NAME])
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut attempt = Attempt {
        streams: Streams::of(&mut child, job.limits.output_bytes),
        control,
        child,
        group,
        started: None,
    };
    let told = attempt.tell(isolation, job, is_trial);
    let ended = told.and_then(|()| attempt.watch(job.limits.wall));
    attempt.tear_down();
    attempt.finished(ended?, is_trial)
}

struct Attempt {
    control: UnixStream,
    child: Child,
    streams: Streams,
    group: Option<Group>,
    started: Option<Instant>,
}

/// How it ended, as far as is known.
enum End {
    Said(Message),
    TimedOut,
    OutOfMemory,
    TooMuchOutput,
    /// Nobody said anything.
    Lost,
}

impl Attempt {
    /// Lets the stages go, and tells them what they need. A stage that fails says so before it goes.
    fn tell(
        &mut self,
        isolation: &Isolation,
        job: &Job<'_>,
        is_trial: bool,
    ) -> Result<(), IsolationError> {
        self.control.set_read_timeout(Some(SETUP))?;
        self.control.set_write_timeout(Some(SETUP))?;
        match self.tell_all(isolation, job, is_trial) {
            // The other end is gone, and may have said why.
            Err(IsolationError::Machine(error)) => match receive(&self.control) {
                Ok(Some(Message::Failed(failure))) => Err(failure.into_error()),
                _ => Err(error.into()),
            },
            told => told,
        }
    }

    fn tell_all(
        &mut self,
        isolation: &Isolation,
        job: &Job<'_>,
        is_trial: bool,
    ) -> Result<(), IsolationError> {
        let process = self.child.id();
        if let Some(group) = &self.group {
            group.add(process).map_err(|error| {
                Failure::of("control group", format_args!("entering it: {error}")).into_error()
            })?;
        }
        let maps = match isolation.identity {
            Identity::Own { user, group } => Some((user, group)),
            Identity::Another { .. } => None,
        };
        send(&self.control, &Entry { maps })?;
        if maps.is_none() {
            match receive(&self.control)? {
                Some(Message::Entered) => {}
                Some(Message::Failed(failure)) => return Err(failure.into_error()),
                _ => return Err(self.lost()),
            }
            isolation.identity.write_maps(process).map_err(|error| {
                let what = format_args!("writing its users: {error}");
                Failure::of(outer::IDENTITIES, what).into_error()
            })?;
            send(&self.control, &())?;
        }
        send(&self.control, &settings(isolation, job, is_trial))?;
        Ok((&self.control).write_all(job.input)?)
    }

    /// Waits for the first that ends it.
    fn watch(&mut self, wall: Duration) -> Result<End, IsolationError> {
        let mut deadline = Instant::now() + SETUP;
        loop {
            let now = Instant::now();
            if now >= deadline {
                return Ok(End::TimedOut);
            }
            let mut left = deadline - now;
            if let Some(group) = &self.group {
                if group.ran_out() {
                    return Ok(End::OutOfMemory);
                }
                left = left.min(INTERVAL);
            }
            let is_told = self.streams.wait(Some(&self.control), left)?;
            if self.streams.are_full() {
                return Ok(End::TooMuchOutput);
            }
            if is_told {
                match receive(&self.control) {
                    Ok(Some(Message::Started)) => {
                        let now = Instant::now();
                        self.started = Some(now);
                        deadline = now + wall;
                    }
                    Ok(Some(message)) => return Ok(End::Said(message)),
                    Ok(None) | Err(_) => return Ok(End::Lost),
                }
            }
        }
    }

    /// Ends everything: the first process goes when this socket does, and the kernel kills the others with it.
    fn tear_down(&mut self) {
        let _is_closed_already = self.control.shutdown(std::net::Shutdown::Both);
        let deadline = Instant::now() + TEARDOWN;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() >= deadline {
                // The first process is tied to this one's life.
                let _is_gone = self.child.kill();
                let _is_gone = self.child.wait();
                break;
            }
            // What it still writes is read, so that nothing waits for that.
            let waited = self.streams.wait(None, TEARDOWN_INTERVAL);
            if waited.is_err() || self.streams.are_closed() {
                std::thread::sleep(TEARDOWN_INTERVAL);
            }
        }
        self.streams.read_rest();
    }

    fn lost(&self) -> IsolationError {
        let errors = String::from_utf8_lossy(&self.streams.errors);
        let last = errors.trim().lines().last().unwrap_or("it said nothing");
        IsolationError::Lost(last.to_owned())
    }

    fn finished(mut self, end: End, is_trial: bool) -> Result<Finished, IsolationError> {
        let so_far = self.started.map(|started| started.elapsed());
        let so_far = so_far.unwrap_or_default().as_secs_f64();
        let is_short = self.group.as_ref().is_some_and(Group::ran_out);
        let (ended, seconds) = match end {
            End::Said(Message::Failed(failure)) if !is_short => return Err(failure.into_error()),
            End::Lost if !is_short => return Err(self.lost()),
            End::TimedOut if self.started.is_none() => {
                let what = "making the world took too long";
                return Err(Failure::of("root file system", what).into_error());
            }
            End::TooMuchOutput => (Ended::TooMuchOutput, so_far),
            _ if is_short => (Ended::OutOfMemory, so_far),
            End::Said(message) => said(message),
            End::TimedOut => (Ended::TimedOut, so_far),
            End::OutOfMemory | End::Lost => (Ended::OutOfMemory, so_far),
        };
        let ended = match ended {
            Ended::Exited(_) | Ended::Killed(_) if self.streams.are_full() && !is_trial => {
                Ended::TooMuchOutput
            }
            ended => ended,
        };
        Ok(Finished {
            ended,
            output: std::mem::take(&mut self.streams.output),
            errors: std::mem::take(&mut self.streams.errors),
            seconds,
        })
    }
}

fn said(message: Message) -> (Ended, f64) {
    match message {
        Message::Exited { status, seconds } => (Ended::Exited(status), seconds),
        Message::Killed { signal, seconds } => (Ended::Killed(signal), seconds),
        Message::OutOfTime { seconds } => (Ended::TimedOut, seconds),
        Message::OutOfMemory { seconds } => (Ended::OutOfMemory, seconds),
        Message::Entered | Message::Started | Message::Failed(_) => (Ended::Killed(0), 0.0),
    }
}

fn settings(isolation: &Isolation, job: &Job<'_>, is_trial: bool) -> Settings {
    let (user, group) = isolation.identity.of_program();
    Settings {
        program: job.program.to_vec(),
        directory: job.directory.map(std::path::Path::to_owned),
        read_only: job.read_only.clone(),
        environment: job.environment.clone(),
        input_bytes: job.input.len() as u64,
        limits: job.limits.clone(),
        user,
        group,
        is_another: matches!(isolation.identity, Identity::Another { .. }),
        memory_is_watched: isolation.memory == super::Memory::Watched,
        is_trial,
    }
}
