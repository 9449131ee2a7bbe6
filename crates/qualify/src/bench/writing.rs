//! Files of a benchmark.

use std::collections::BTreeMap;
use std::path::Path;

use super::args::OutputArgs;
use super::result::BenchReport;
use super::{measures, page};
use crate::QualifyError;
use crate::qualification::PROGRAM;
use crate::record::{Run, Subject};
use crate::store::Directory;

/// Where a benchmark's results go.
pub(super) struct Writer<'a> {
    output: &'a OutputArgs,
    /// Of a qualification, which nobody else writes to meanwhile.
    directory: Option<Directory>,
}

impl<'a> Writer<'a> {
    /// Makes the directory of a qualification, or goes on in one of the same server.
    pub(super) fn open(
        output: &'a OutputArgs,
        subject: &Subject,
        began_unix_s: u64,
    ) -> Result<Self, QualifyError> {
        // A benchmark is not resumed but done anew, so its settings are with its numbers.
        let run = Run {
            program: PROGRAM.to_owned(),
            subject: subject.clone(),
            settings: BTreeMap::new(),
            began_unix_s,
        };
        let directory = output
            .into
            .as_deref()
            .map(|root| Directory::open(root, &run));
        Ok(Self {
            output,
            directory: directory.transpose()?,
        })
    }

    /// Writes whatever files are wanted.
    pub(super) fn write(&self, report: &BenchReport) -> Result<(), QualifyError> {
        if let Some(path) = self
            .output
            .json
            .as_deref()
            .filter(|path| *path != Path::new("-"))
        {
            put(path, &json(report)?)?;
        }
        if let Some(path) = &self.output.html {
            put(path, &page::html(report))?;
        }
        if let (Some(root), Some(directory)) = (&self.output.into, &self.directory) {
            put(&root.join("bench/serve.json"), &json(report)?)?;
            directory.write_measures("bench-serve", &measures::measures(report))?;
        }
        Ok(())
    }
}

/// Everything, as JSON for people.
pub(super) fn json(report: &BenchReport) -> Result<String, QualifyError> {
    let text = serde_json::to_string_pretty(report);
    let mut text =
        text.map_err(|error| QualifyError::new(format!("internal error: no JSON: {error}")))?;
    text.push('\n');
    Ok(text)
}

/// A file is replaced as a whole, so that it is never half of two.
fn put(path: &Path, text: &str) -> Result<(), QualifyError> {
    let at = |error: std::io::Error| QualifyError::at(path, error);
    if let Some(directory) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        std::fs::create_dir_all(directory).map_err(at)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    std::fs::write(&beside, text).map_err(at)?;
    std::fs::rename(&beside, path).map_err(at)
}
