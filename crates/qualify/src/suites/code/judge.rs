//! Runs one answer against its task's tests, isolated from this machine.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Duration;

use backstop_isolation::{Ended, Finished, Interpreter, Isolation, Job, Limits};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::QualifyError;
use crate::args::CodeArgs;

use super::CodeTasks;

const HARNESS: &str = include_str!("harness.py");
/// For the interpreter's start, and for finding the program in an answer.
const FURTHER_CPU: Duration = Duration::from_secs(10);
/// On a machine that is busy with other things, such as the model.
const WALL_FACTOR: u32 = 5;
const PROCESSES_MAX: u32 = 32;
const DISK_BYTES_MAX: u64 = 64 << 20;
/// The verdict, which is all that leaves.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
const ERRORS_CHARACTERS_MAX: usize = 300;

/// What judges programs.
pub(super) struct Judge {
    isolation: Isolation,
    interpreter: Interpreter,
    version: String,
    cpu: Duration,
    memory_bytes: u64,
}

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Verdict {
    /// `passed`, `failed`, `timed out`, `out of memory`, `no code` ...
    pub(super) outcome: String,
    pub(super) reason: Option<String>,
    /// Which kinds of inputs were passed.
    #[serde(default)]
    pub(super) passed: Vec<String>,
}

impl Judge {
    /// Finds the interpreter, and sees whether it tells right from wrong within the isolation there is.
    pub(super) fn new(args: &CodeArgs, own: &CodeTasks) -> Result<Self, QualifyError> {
        let of = |error: &dyn std::error::Error| QualifyError::new(error.to_string());
        let isolation = Isolation::available().map_err(|error| of(&error))?;
        let interpreter = Interpreter::find(&args.python).map_err(|error| of(&error))?;
        let suites = Duration::try_from_secs_f64(own.cpu_s)
            .map_err(|error| QualifyError::new(format!("cpu_s: {error}")))?;
        let judge = Self {
            version: version(&interpreter),
            isolation,
            interpreter,
            cpu: args.code_timeout.unwrap_or(suites),
            memory_bytes: own.memory_mib << 20,
        };
        judge.prove()?;
        Ok(judge)
    }

    pub(super) fn cpu_s(&self) -> f64 {
        self.cpu.as_secs_f64()
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Runs an answer: a program, or a text that a program is to be found in.
    pub(super) fn run(
        &self,
        task: &str,
        checks: &Value,
        answer: &str,
        is_script: bool,
    ) -> Result<Verdict, QualifyError> {
        let word = word()?;
        let mut input = checks.clone();
        let fields =
            json!({"word": word, "answer": answer, "is_script": is_script, "cpu_s": self.cpu_s()});
        if let (Some(input), Some(fields)) = (input.as_object_mut(), fields.as_object()) {
            input.extend(fields.clone());
        }
        let input = input.to_string().into_bytes();
        let program = [
            self.interpreter.program.clone().into_os_string(),
            "-I".into(),
            "-c".into(),
            OsString::from(HARNESS),
        ];
        let job = Job {
            program: &program,
            directory: None,
            read_only: self.interpreter.read_only.clone(),
            environment: Vec::new(),
            input: &input,
            limits: Limits {
                wall: (self.cpu + FURTHER_CPU) * WALL_FACTOR,
                cpu: self.cpu + FURTHER_CPU,
                memory_bytes: self.memory_bytes,
                processes: PROCESSES_MAX,
                disk_bytes: DISK_BYTES_MAX,
                output_bytes: OUTPUT_BYTES_MAX,
                ..Limits::default()
            },
        };
        let finished = self
            .isolation
            .run(&job)
            .map_err(|error| QualifyError::new(format!("{task}: {error}")))?;
        let verdict = verdict(&finished, &word);
        if verdict.outcome == "reference failed" {
            return Err(QualifyError::new(format!(
                "the reference solution of {task} fails: {}",
                verdict.reason.unwrap_or_default()
            )));
        }
        Ok(verdict)
    }

    /// A judge that takes everything for wrong, or for right, would not be noticed later.
    fn prove(&self) -> Result<(), QualifyError> {
        for (number, expected) in [(4, "passed"), (5, "failed")] {
            let test = format!("assert double(2) == {number}");
            let checks = json!({"entry_point": "double", "test": test});
            let answer = "```python\ndef double(x):\n    return 2 * x\n```";
            let verdict = self.run("a first program", &checks, answer, true)?;
            if verdict.outcome != expected {
                let reason = verdict.reason.unwrap_or_default();
                return Err(QualifyError::new(format!(
                    "{} cannot judge programs here: one that should have {expected} has {} ({reason}); it must be Python \
                     3.10 or later: --python",
                    self.interpreter.program.display(),
                    verdict.outcome,
                )));
            }
        }
        Ok(())
    }
}

/// A word that the program does not know.
fn word() -> Result<String, QualifyError> {
    let bits = getrandom::u64()
        .map_err(|error| QualifyError::new(format!("no random numbers: {error}")))?;
    Ok(format!("{bits:016x}"))
}

fn version(interpreter: &Interpreter) -> String {
    let asked = Command::new(&interpreter.program)
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    let answer = asked.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&answer).trim().to_owned()
}

fn verdict(finished: &Finished, word: &str) -> Verdict {
    let output = String::from_utf8_lossy(&finished.output);
    let line = output
        .lines()
        .filter_map(|line| line.strip_prefix(word))
        .next_back();
    if let Some(Ok(verdict)) = line.map(serde_json::from_str) {
        return verdict;
    }
    let (outcome, reason) = match finished.ended {
        Ended::TimedOut => ("timed out", None),
        Ended::OutOfMemory => ("out of memory", None),
        Ended::TooMuchOutput => ("failed", Some("it wrote too much".to_owned())),
        Ended::Killed(signal) => ("failed", Some(format!("it ended by signal {signal}"))),
        Ended::Exited(status) => {
            let errors = String::from_utf8_lossy(&finished.errors);
            let errors: String = errors.trim().chars().take(ERRORS_CHARACTERS_MAX).collect();
            (
                "failed",
                Some(format!(
                    "it ended by itself ({status}) before its tests had; {errors}"
                )),
            )
        }
    };
    Verdict {
        outcome: outcome.into(),
        reason,
        passed: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(ended: Ended, output: &str) -> Finished {
        Finished {
            ended,
            output: output.into(),
            errors: Vec::new(),
            seconds: 0.0,
        }
    }

    #[test]
    fn only_the_line_with_the_word_counts() {
        let passed = "{\"outcome\": \"passed\", \"reason\": null, \"passed\": []}";
        let said = |text: &str| verdict(&finished(Ended::Exited(0), text), "word").outcome;
        assert_eq!(said(&format!("\nword {passed}\n")), "passed");
        assert_eq!(said(&format!("sword {passed}\n")), "failed");
        assert_eq!(said(passed), "failed");
        assert_eq!(said(""), "failed", "an exit before the tests is no pass");
    }

    #[test]
    fn what_the_kernel_ended_is_named() {
        assert_eq!(
            verdict(&finished(Ended::TimedOut, ""), "word").outcome,
            "timed out"
        );
        assert_eq!(
            verdict(&finished(Ended::OutOfMemory, ""), "word").outcome,
            "out of memory"
        );
        assert_eq!(
            verdict(&finished(Ended::Killed(11), ""), "word").outcome,
            "failed"
        );
    }
}
