//! What is run, within which limits, and what became of it.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::IsolationError;

/// The longest input, which lies in memory.
const INPUT_BYTES_MAX: usize = 64 << 20;
/// The longest command line and environment; the kernel's own limit for one argument is the same.
const ARGUMENTS_BYTES_MAX: usize = 1 << 20;
/// Directories that are made for each program, so nothing of the host can lie there.
const OWN: [&str; 4] = ["/dev", "/proc", "/run", "/sys"];
/// Below these it may, at a price: it appears among the program's own files.
const WRITABLE: [&str; 2] = ["/tmp", "/work"];

/// What a program may use up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Time on the clock, from its start on.
    pub wall: Duration,
    /// Time on the processor, of each process.
    pub cpu: Duration,
    /// Memory of all its processes.
    pub memory_bytes: u64,
    /// Processes and threads at one time.
    pub processes: u32,
    /// The longest file.
    pub file_bytes: u64,
    /// All of `/work`, `/tmp` and `/dev/shm`, which lie in memory.
    pub disk_bytes: u64,
    /// What it may write to its output and its errors together.
    pub output_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(30),
            cpu: Duration::from_secs(30),
            memory_bytes: 1 << 30,
            processes: 64,
            file_bytes: 64 << 20,
            disk_bytes: 256 << 20,
            output_bytes: 1 << 20,
        }
    }
}

/// A program, and what it may see.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// The program and its arguments. A name without a slash is looked for in `/usr/local/bin`, `/usr/bin` and `/bin`.
    pub program: &'a [OsString],
    /// A directory whose files, directories and links are copied to `/work`, where the program starts and may write. Nothing
    /// comes back from there.
    pub directory: Option<&'a Path>,
    /// Files and directories that it may read and execute where they are, beside the system's programs and libraries.
    pub read_only: Vec<PathBuf>,
    /// Its environment, beside `PATH`, `HOME`, `TMPDIR`, `USER` and `LANG`. It has nothing of this process's.
    pub environment: Vec<(String, String)>,
    /// Its input.
    pub input: &'a [u8],
    /// What it may use up.
    pub limits: Limits,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// It was still running when its time was up, on the clock or on the processor.
    TimedOut,
    /// Its processes wanted more memory than they may have.
    OutOfMemory,
    /// It wrote more than anybody wants to read.
    TooMuchOutput,
}

/// What became of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// How it ended.
    pub ended: Ended,
    /// What it wrote to its standard output.
    pub output: Vec<u8>,
    /// What it wrote to its standard error.
    pub errors: Vec<u8>,
    /// How long it ran.
    pub seconds: f64,
}

impl Job<'_> {
    /// Refuses what cannot be done, or would open the host.
    pub(crate) fn check(&self) -> Result<(), IsolationError> {
        let refused = |reason: String| Err(IsolationError::Job(reason));
        let Some(program) = self.program.first() else {
            return refused("no program was named".to_owned());
        };
        if program.is_empty() {
            return refused("the program's name is empty".to_owned());
        }
        let arguments = self.program.iter().map(|argument| argument.len());
        let environment = self.environment.iter();
        let environment = environment.map(|(name, value)| name.len() + value.len());
        if arguments.chain(environment).sum::<usize>() > ARGUMENTS_BYTES_MAX {
            return refused(format!(
                "the program's arguments and environment have more than {ARGUMENTS_BYTES_MAX} bytes; give it a file or an input"
            ));
        }
        if self.input.len() > INPUT_BYTES_MAX {
            return refused(format!(
                "the input has more than {INPUT_BYTES_MAX} bytes; give the program a file"
            ));
        }
        for (name, value) in &self.environment {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return refused(format!(
                    "{name:?} cannot be a variable of the environment, or its value cannot be one"
                ));
            }
        }
        self.read_only
            .iter()
            .try_for_each(|path| check_read_only(path))?;
        self.limits.check()
    }
}

impl Limits {
    fn check(&self) -> Result<(), IsolationError> {
        let least = [
            ("the time on the clock", self.wall.as_millis(), 1),
            ("the time on the processor", self.cpu.as_millis(), 1),
            (
                "memory_bytes",
                u128::from(self.memory_bytes),
                MEMORY_BYTES_MIN,
            ),
            ("processes", u128::from(self.processes), 1),
            ("file_bytes", u128::from(self.file_bytes), 1),
            ("disk_bytes", u128::from(self.disk_bytes), DISK_BYTES_MIN),
        ];
        for (name, value, least) in least {
            if value < least {
                return Err(IsolationError::Job(format!(
                    "{name} must be at least {least}, it is {value}"
                )));
            }
        }
        Ok(())
    }
}

/// With less, not even what contains the program fits.
const MEMORY_BYTES_MIN: u128 = 16 << 20;
const DISK_BYTES_MIN: u128 = 1 << 20;

fn check_read_only(path: &Path) -> Result<(), IsolationError> {
    let plain = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let own = OWN
        .iter()
        .find(|own| path.starts_with(own) || Path::new(own).starts_with(path));
    let reason = match own {
        _ if !path.is_absolute() || !plain => "it is no absolute path",
        Some(_) => "it is, or lies in, what each program has of its own",
        None if WRITABLE.iter().any(|own| path == Path::new(own)) => {
            "each program has one of its own"
        }
        None => return Ok(()),
    };
    Err(IsolationError::Job(format!(
        "{} cannot be shown to the program: {reason}",
        path.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(program: &[OsString]) -> Job<'_> {
        Job {
            program,
            directory: None,
            read_only: Vec::new(),
            environment: Vec::new(),
            input: &[],
            limits: Limits::default(),
        }
    }

    #[test]
    fn what_would_open_the_host_is_refused() {
        let program = [OsString::from("true")];
        for path in [
            "/",
            "/proc",
            "/proc/1",
            "/dev/sda",
            "/run",
            "/sys/kernel",
            "/work",
            "/tmp",
            "usr",
            "/usr/../etc",
        ] {
            let mut job = job(&program);
            job.read_only.push(PathBuf::from(path));
            let refused = job.check().unwrap_err().to_string();
            assert!(refused.starts_with(path), "{path}: {refused}");
        }
        let mut allowed = job(&program);
        allowed.read_only = vec![
            "/opt/python".into(),
            "/tmp/environment".into(),
            "/work/environment".into(),
        ];
        allowed.check().unwrap();
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        let named = [OsString::from("true")];
        assert!(job(&[]).check().is_err());
        assert!(job(&[OsString::new()]).check().is_err());
        let mut twice = job(&named);
        twice.environment.push(("A=B".to_owned(), "C".to_owned()));
        assert!(twice.check().is_err());
        let mut nothing = job(&named);
        nothing.limits.processes = 0;
        let refused = nothing.check().unwrap_err().to_string();
        assert!(refused.contains("processes"), "{refused}");
    }
}
