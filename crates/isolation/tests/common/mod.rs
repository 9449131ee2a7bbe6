//! What the tests of whole runs share.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use backstop_isolation::{Finished, Interpreter, Isolation, Job, Limits};

/// The stages are this crate's own program.
pub(crate) static ISOLATION: LazyLock<Isolation> = LazyLock::new(|| {
    let stages = PathBuf::from(env!("CARGO_BIN_EXE_backstop-contain"));
    Isolation::by(stages).unwrap_or_else(|error| panic!("{error}"))
});
pub(crate) static PYTHON: LazyLock<Interpreter> =
    LazyLock::new(|| Interpreter::find("python3").expect("a Python interpreter"));

/// Small enough that a program which fills something up is soon done.
pub(crate) fn limits() -> Limits {
    Limits {
        wall: Duration::from_secs(60),
        cpu: Duration::from_secs(30),
        memory_bytes: 256 << 20,
        processes: 24,
        file_bytes: 4 << 20,
        disk_bytes: 16 << 20,
        output_bytes: 256 << 10,
    }
}

/// `python` as a word stands for the interpreter.
pub(crate) fn words(words: &[&str]) -> Vec<OsString> {
    let word = |word: &&str| match *word {
        "python" => PYTHON.program.clone().into_os_string(),
        other => other.into(),
    };
    words.iter().map(word).collect()
}

pub(crate) fn job<'a>(program: &'a [OsString], directory: Option<&'a Path>) -> Job<'a> {
    Job {
        program,
        directory,
        read_only: PYTHON.read_only.clone(),
        environment: Vec::new(),
        input: &[],
        limits: limits(),
    }
}

/// Both streams, for people who look at a failed test.
pub(crate) fn text(finished: &Finished) -> String {
    let (output, errors) = (&finished.output, &finished.errors);
    let (output, errors) = (
        String::from_utf8_lossy(output),
        String::from_utf8_lossy(errors),
    );
    format!("{output}{errors}")
}
