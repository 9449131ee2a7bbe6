//! A package that is installed on this machine: where its programs are, and which version it is.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::QualifyError;
use crate::subprocess::{Bounds, listen};

use super::args::Kind;

/// To import nothing and read a file may still take long on a busy machine.
const BOUNDS: Bounds = Bounds {
    time: Duration::from_secs(120),
    output_bytes: 4096,
};
const SHEBANG_BYTES_MAX: u64 = 4096;
const VERSION: &str =
    "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))";

/// A package that is installed.
#[derive(Clone, Debug)]
pub(super) struct Package {
    /// Where its programs are.
    programs: PathBuf,
    /// The interpreter that it is installed for.
    pub(super) python: PathBuf,
    /// `lm-eval 0.4.13`.
    pub(super) name: String,
}

impl Package {
    /// Finds a package in a virtual environment, or by a program of its own in `PATH`.
    pub(super) fn find(
        kind: Kind,
        program: &str,
        venv: Option<&Path>,
    ) -> Result<Self, QualifyError> {
        let (programs, python) = match venv {
            Some(venv) => {
                let programs = std::path::absolute(venv.join("bin"))
                    .map_err(|error| QualifyError::at(venv, error))?;
                let python = programs.join("python");
                (programs, python)
            }
            None => {
                let found = in_path(program).ok_or_else(|| lacking(kind, program))?;
                let python = interpreter(&found)?;
                (found.parent().unwrap_or(Path::new("/")).to_owned(), python)
            }
        };
        if !programs.join(program).is_file() {
            return Err(lacking(kind, program));
        }
        let version = version(&python, kind.distribution())?;
        Ok(Self {
            programs,
            python,
            name: format!("{} {version}", kind.name()),
        })
    }

    /// One of its programs.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Where its programs are.
    pub(super) fn programs(&self) -> &Path {
        &self.programs
    }
}

fn lacking(kind: Kind, program: &str) -> QualifyError {
    QualifyError::new(format!(
        "{program} is not there: install {} in a virtual environment and name it with --venv",
        kind.distribution()
    ))
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|place| place.is_file())
}

/// What a script says that runs it.
fn interpreter(script: &Path) -> Result<PathBuf, QualifyError> {
    let mut first = String::new();
    let file = std::fs::File::open(script).map_err(|error| QualifyError::at(script, error))?;
    let read = BufReader::new(file.take(SHEBANG_BYTES_MAX)).read_line(&mut first);
    let python = read.ok().and_then(|_| first.trim().strip_prefix("#!"));
    match python.map(Path::new) {
        Some(python) if python.is_absolute() && python.is_file() => Ok(python.to_owned()),
        _ => Err(QualifyError::at(
            script,
            "it does not say which Python runs it; name its virtual environment with --venv",
        )),
    }
}

fn version(python: &Path, distribution: &str) -> Result<String, QualifyError> {
    let mut command = Command::new(python);
    command
        .env_clear()
        .args(["-I", "-c", VERSION, distribution]);
    let said = listen(&mut command, Vec::new(), BOUNDS)
        .map_err(|error| QualifyError::at(python, error))?;
    let version = String::from_utf8_lossy(&said.output).trim().to_owned();
    if !said.status.success() || version.is_empty() {
        return Err(QualifyError::at(
            python,
            format!("{distribution} is not installed there"),
        ));
    }
    Ok(version)
}
