//! Where a team's tests run: never bare, never with a network.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use backstop_isolation::{Ended, Interpreter, Isolation, Job, Limits};

use crate::QualifyError;

use super::counts;

/// `{tests}` in a command.
pub(super) const TESTS: &str = "{tests}";
/// The exit status of a script whose preparation failed.
const NOT_SET_UP: i32 = 121;
/// Of what a run said, the end.
const SAID_BYTES_MAX: usize = 2000;
const OUTPUT_BYTES_MAX: usize = 4 << 20;
const DISK_BYTES_MAX: u64 = 1 << 30;
pub(super) const PROCESSES_MAX: u32 = 512;

/// Runs tests in a directory.
pub(super) trait Runs: Send + Sync {
    /// Runs a script with these arguments, the directory's files being in the working directory.
    fn run(&self, directory: &Path, argv: &[OsString]) -> Result<Ran, QualifyError>;
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ran {
    /// Whether it ended with status 0.
    pub(super) well: bool,
    /// How it ended, for people.
    pub(super) ended: String,
    /// Tests that passed, if it says so.
    pub(super) passed: Option<u64>,
    /// The end of what it said.
    pub(super) said: String,
}

/// A team's commands.
#[derive(Clone, Debug)]
pub(super) struct Commands {
    pub(super) setup: Option<String>,
    pub(super) test: String,
}

impl Commands {
    /// What to run for these tests. They are the shell's arguments, so that no name of a file is taken for a command.
    pub(super) fn argv(&self, tests: &[String]) -> Vec<OsString> {
        let setup = self.setup.as_ref().map_or_else(String::new, |setup| {
            format!("(\n{setup}\n) >&2 || exit {NOT_SET_UP}\n")
        });
        let script = format!("{setup}{}\n", self.test.replace(TESTS, "\"$@\""));
        let mut argv: Vec<OsString> =
            vec!["/bin/sh".into(), "-c".into(), script.into(), "sh".into()];
        for test in tests {
            // Not an option.
            let plain = if test.starts_with('-') {
                format!("./{test}")
            } else {
                test.clone()
            };
            argv.push(plain.into());
        }
        argv
    }
}

/// What a run may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    pub(super) time: Duration,
    pub(super) memory_bytes: u64,
}

/// This machine's own isolation.
pub(super) struct Isolated {
    isolation: Isolation,
    environment: Option<PathBuf>,
    read_only: Vec<PathBuf>,
    allowance: Allowance,
    slots: Slots,
}

impl Isolated {
    /// With a directory of the team's that can be read (a virtual environment, a toolchain).
    pub(super) fn new(
        environment: Option<&Path>,
        allowance: Allowance,
    ) -> Result<Self, QualifyError> {
        let isolation =
            Isolation::available().map_err(|lack| QualifyError::new(lack.to_string()))?;
        let environment = environment
            .map(|path| {
                path.canonicalize()
                    .map_err(|error| QualifyError::at(path, error))
            })
            .transpose()?;
        let mut read_only: Vec<PathBuf> = environment.iter().cloned().collect();
        // A virtual environment is nothing without what it was made from.
        if let Some(python) = environment.as_ref().map(|path| path.join("bin/python"))
            && python.is_file()
        {
            let interpreter =
                Interpreter::find(&python).map_err(|error| QualifyError::at(&python, error))?;
            read_only.extend(interpreter.read_only);
            read_only.sort();
            read_only.dedup();
        }
        Ok(Self {
            isolation,
            environment,
            read_only,
            allowance,
            slots: Slots::new(),
        })
    }

    fn variables(&self) -> Vec<(String, String)> {
        let mut path = "/usr/local/bin:/usr/bin:/bin".to_owned();
        let mut variables = vec![
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("HOME".to_owned(), "/tmp".to_owned()),
            ("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()),
            ("CI".to_owned(), "true".to_owned()),
        ];
        if let Some(environment) = &self.environment {
            path = format!("{}/bin:{path}", environment.display());
            variables.push(("VIRTUAL_ENV".to_owned(), environment.display().to_string()));
        }
        variables.push(("PATH".to_owned(), path));
        variables
    }
}

impl Runs for Isolated {
    fn run(&self, directory: &Path, argv: &[OsString]) -> Result<Ran, QualifyError> {
        let _slot = self.slots.take();
        let job = Job {
            program: argv,
            directory: Some(directory),
            read_only: self.read_only.clone(),
            environment: self.variables(),
            input: &[],
            limits: Limits {
                wall: self.allowance.time,
                cpu: self.allowance.time,
                memory_bytes: self.allowance.memory_bytes,
                disk_bytes: DISK_BYTES_MAX,
                file_bytes: DISK_BYTES_MAX,
                processes: PROCESSES_MAX,
                output_bytes: OUTPUT_BYTES_MAX,
            },
        };
        let finished = self
            .isolation
            .run(&job)
            .map_err(|error| QualifyError::new(error.to_string()))?;
        let (ended, status) = match finished.ended {
            Ended::Exited(status) => (explain_status(status), Some(status)),
            Ended::Killed(signal) => (format!("ended by signal {signal}"), None),
            Ended::TimedOut => ("took too long".to_owned(), None),
            Ended::OutOfMemory => ("took too much memory".to_owned(), None),
            Ended::TooMuchOutput => ("wrote too much".to_owned(), None),
        };
        Ok(Ran::new(
            status == Some(0),
            ended,
            &finished.output,
            &finished.errors,
        ))
    }
}

impl Ran {
    pub(super) fn new(well: bool, ended: String, output: &[u8], errors: &[u8]) -> Self {
        let output = String::from_utf8_lossy(output);
        let errors = String::from_utf8_lossy(errors);
        let all = format!("{output}\n{errors}");
        let all = all.trim();
        let mut begin = all.len().saturating_sub(SAID_BYTES_MAX);
        while !all.is_char_boundary(begin) {
            begin += 1;
        }
        Self {
            well,
            ended,
            passed: counts::passed(&output).or_else(|| counts::passed(&errors)),
            said: all[begin..].to_owned(),
        }
    }
}

pub(super) fn explain_status(status: i32) -> String {
    match status {
        NOT_SET_UP => format!("could not be set up, or ended with status {status}"),
        _ => format!("ended with status {status}"),
    }
}

/// As many runs at once as there are processors: the more wait, the sooner would runs be too slow.
pub(super) struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

pub(super) struct Slot<'a>(&'a Slots);

impl Slots {
    pub(super) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            free: Mutex::new(processors),
            freed: Condvar::new(),
        }
    }

    pub(super) fn take(&self) -> Slot<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.freed.wait_while(free, |free| *free == 0);
        *waited.unwrap_or_else(PoisonError::into_inner) -= 1;
        Slot(self)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_arguments_and_never_commands() {
        let commands = Commands {
            setup: Some("make # all".into()),
            test: "check {tests} -q".into(),
        };
        let argv = commands.argv(&["a; rm -rf x".into(), "-c".into()]);
        assert_eq!(
            argv[2],
            "(\nmake # all\n) >&2 || exit 121\ncheck \"$@\" -q\n"
        );
        assert_eq!(argv[3..], ["sh", "a; rm -rf x", "./-c"]);
    }

    #[test]
    fn of_a_long_output_the_end_is_kept() {
        let ran = Ran::new(
            true,
            String::new(),
            "ä".repeat(3000).as_bytes(),
            b"Ran 2 tests in 0s",
        );
        assert_eq!(ran.passed, Some(2));
        assert!(ran.said.len() <= SAID_BYTES_MAX && ran.said.ends_with("Ran 2 tests in 0s"));
    }
}
