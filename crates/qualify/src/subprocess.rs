//! Other programs, run to their end within limits: of time, and of what they may write.

use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long a program may take, and how much it may say, on its output and again on its errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) time: Duration,
    pub(crate) output_bytes: u64,
}

/// What a program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) output: Vec<u8>,
    pub(crate) errors: String,
}

/// Why a program did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stopped {
    #[error("it cannot be started: {0}")]
    NotStarted(io::Error),
    #[error("it took longer than {} s", .0.as_secs_f64())]
    TooSlow(Duration),
    #[error("it wrote more than {0} bytes")]
    TooMuch(u64),
    #[error("it was lost: {0}")]
    Lost(io::Error),
}

/// Runs a program with this input, and returns what it said.
pub(crate) fn listen(
    command: &mut Command,
    input: Vec<u8>,
    bounds: Bounds,
) -> Result<Said, Stopped> {
    let mut group = Group::start(
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )?;
    let began = Instant::now();
    if let Some(mut into) = group.0.stdin.take() {
        // A program that does not read all of it says by its status whether that is well.
        thread::spawn(move || into.write_all(&input));
    }
    let output = read_apart(group.0.stdout.take(), bounds.output_bytes);
    let errors = read_apart(group.0.stderr.take(), bounds.output_bytes);
    let left = || bounds.time.saturating_sub(began.elapsed());
    let output = output
        .recv_timeout(left())
        .map_err(|_| Stopped::TooSlow(bounds.time))?
        .map_err(Stopped::Lost)?;
    let errors = errors
        .recv_timeout(left())
        .map_err(|_| Stopped::TooSlow(bounds.time))?
        .map_err(Stopped::Lost)?;
    if output.len().max(errors.len()) as u64 > bounds.output_bytes {
        return Err(Stopped::TooMuch(bounds.output_bytes));
    }
    let status = loop {
        match group.look(began, bounds.time)? {
            Some(status) => break status,
            None => thread::sleep(LOOK_AGAIN),
        }
    };
    Ok(Said {
        status,
        output,
        errors: String::from_utf8_lossy(&errors).trim().to_owned(),
    })
}

/// Runs a program whose output goes where the caller has it go. It ends, with its children, when this is dropped.
pub(crate) async fn wait(command: &mut Command, time: Duration) -> Result<ExitStatus, Stopped> {
    let mut group = Group::start(command.stdin(Stdio::null()))?;
    let began = Instant::now();
    loop {
        if let Some(status) = group.look(began, time)? {
            return Ok(status);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// `exit status 3`, or the signal that ended it.
pub(crate) fn explain(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// A program and its children, all of which end when this is dropped.
struct Group(Child);

impl Group {
    fn start(command: &mut Command) -> Result<Self, Stopped> {
        let started = command.process_group(0).spawn();
        started.map(Self).map_err(Stopped::NotStarted)
    }

    /// Whether it has ended, while it has time.
    fn look(&mut self, began: Instant, time: Duration) -> Result<Option<ExitStatus>, Stopped> {
        let status = self.0.try_wait().map_err(Stopped::Lost)?;
        if status.is_none() && began.elapsed() > time {
            return Err(Stopped::TooSlow(time));
        }
        Ok(status)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its children may outlive it; the group may be gone.
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// Reads up to one byte more than allowed, on a thread that ends with the program.
fn read_apart(
    from: Option<impl Read + Send + 'static>,
    bytes_max: u64,
) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = from.map_or(Ok(0), |from| {
            from.take(bytes_max.saturating_add(1))
                .read_to_end(&mut bytes)
        });
        // Whoever asked may have given up.
        let _ = sender.send(read.map(|_| bytes));
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, input: &str, bounds: Bounds) -> Result<Said, Stopped> {
        listen(
            Command::new("sh").args(["-c", script]),
            input.into(),
            bounds,
        )
    }

    const AMPLE: Bounds = Bounds {
        time: Duration::from_secs(60),
        output_bytes: 1 << 20,
    };

    #[test]
    fn a_program_is_heard_to_its_end() {
        let said = shell("cat; echo why >&2; exit 3", "in", AMPLE).unwrap();
        assert_eq!(
            (said.output.as_slice(), said.errors.as_str()),
            (&b"in"[..], "why")
        );
        assert_eq!(explain(said.status), "exit status 3");
        assert_eq!(
            explain(shell("kill -9 $$", "", AMPLE).unwrap().status),
            "signal 9"
        );
    }

    #[test]
    fn a_program_that_goes_on_and_its_children_are_ended() {
        let hasty = Bounds {
            time: Duration::from_millis(200),
            ..AMPLE
        };
        for script in [
            "sleep 600",
            "sleep 600 & sleep 600",
            "sleep 600 & exec >&- 2>&-; sleep 600",
        ] {
            assert!(
                matches!(shell(script, "", hasty), Err(Stopped::TooSlow(_))),
                "{script}"
            );
        }
    }

    #[tokio::test]
    async fn a_program_that_is_waited_for_is_ended_in_time() {
        let time = Duration::from_millis(200);
        let waited = wait(Command::new("sleep").arg("600"), time).await;
        assert!(matches!(waited, Err(Stopped::TooSlow(_))));
        let missing = wait(&mut Command::new("/nowhere/program"), time).await;
        assert!(matches!(missing, Err(Stopped::NotStarted(_))));
    }

    #[test]
    fn a_program_that_writes_without_end_is_ended() {
        let small = Bounds {
            output_bytes: 1000,
            ..AMPLE
        };
        for script in ["yes", "yes >&2"] {
            assert!(matches!(
                shell(script, "", small),
                Err(Stopped::TooMuch(1000))
            ));
        }
    }
}
