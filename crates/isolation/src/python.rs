//! Which directories a Python interpreter needs.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::IsolationError;

/// What an interpreter says of itself.
const QUESTION: &str = "import json, os, sys
print(json.dumps({'program': sys.executable, 'prefixes': [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]}))";
/// What each program sees anyway.
const SYSTEM: [&str; 4] = ["/usr", "/bin", "/lib", "/lib64"];

/// A Python interpreter of this machine, and what it needs beside the system's libraries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// Its absolute path; in a virtual environment, the one there.
    pub program: PathBuf,
    /// What [`Job::read_only`](crate::Job::read_only) must have for it.
    pub read_only: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Answer {
    program: PathBuf,
    prefixes: Vec<PathBuf>,
}

impl Interpreter {
    /// Asks an interpreter, by its name or path, where it and its libraries are. It is run outside of any isolation, so it
    /// must be one that the operator trusts.
    ///
    /// # Errors
    ///
    /// If there is none, or it does not answer.
    pub fn find(command: impl AsRef<OsStr>) -> Result<Self, IsolationError> {
        let name = command.as_ref();
        let failed = |reason: String| IsolationError::Program {
            program: name.to_string_lossy().into_owned(),
            reason,
        };
        let asked = Command::new(name)
            .args(["-I", "-c", QUESTION])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .map_err(|error| failed(error.to_string()))?;
        let answer: Answer = serde_json::from_slice(&asked.stdout)
            .map_err(|_| failed("it does not say where it is; is it Python 3?".to_owned()))?;
        Ok(Self::of(answer))
    }

    fn of(answer: Answer) -> Self {
        let in_system = |path: &Path| SYSTEM.iter().any(|system| path.starts_with(system));
        let read_only: BTreeSet<PathBuf> = answer
            .prefixes
            .into_iter()
            .filter(|prefix| !in_system(prefix))
            .collect();
        Self {
            program: answer.program,
            read_only: read_only.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_environment_needs_itself_and_what_it_was_made_from() {
        let answer = Answer {
            program: "/home/me/venv/bin/python".into(),
            prefixes: vec![
                "/home/me/venv".into(),
                "/opt/python".into(),
                "/home/me/venv".into(),
                "/opt/python".into(),
            ],
        };
        let interpreter = Interpreter::of(answer);
        let expected = [PathBuf::from("/home/me/venv"), PathBuf::from("/opt/python")];
        assert_eq!(interpreter.read_only, expected);
    }

    #[test]
    fn the_systems_interpreter_needs_nothing_more() {
        let answer = Answer {
            program: "/usr/bin/python3".into(),
            prefixes: vec!["/usr".into(); 4],
        };
        assert!(Interpreter::of(answer).read_only.is_empty());
    }
}
