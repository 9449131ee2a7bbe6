//! Where a suite's tasks lie on this machine: they are others', and not part of this program.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::read::MultiGzDecoder;

use crate::QualifyError;
use crate::args::SuiteArgs;
use crate::qualification::sha256;

use super::super::Definition;
use super::CodeTasks;

const FILE_BYTES_MAX: u64 = 256 << 20;
const TEXT_BYTES_MAX: u64 = 1 << 30;
/// An interpreter's directories of packages.
const PACKAGES: &str = "import json, sys; print(json.dumps(sys.path))";

/// A file of tasks.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// Of the text, so that a packed file is the same as an unpacked one.
    pub(super) sha256: String,
}

/// Looks in `--data-dir`, then in the packages that are installed.
pub(super) fn find(own: &CodeTasks, args: &SuiteArgs) -> Result<Option<Found>, QualifyError> {
    let in_directory = args
        .data_dir
        .iter()
        .flat_map(|directory| own.files.iter().map(|file| directory.join(file)));
    let path = in_directory.into_iter().find(|path| path.is_file());
    let path = path.or_else(|| in_packages(own.package.as_deref()?, &args.code.python));
    path.map(read).transpose()
}

/// What to do about a suite that has no file.
pub(super) fn advice(own: &CodeTasks, definition: &Definition, args: &SuiteArgs) -> String {
    let files = own.files.join(" or ");
    let place = match &args.data_dir {
        Some(directory) => format!("{files} is not in {}", directory.display()),
        None => format!("--data-dir names a directory with {files}"),
    };
    let package = own
        .package
        .as_deref()
        .and_then(|path| path.split('/').next());
    let package = package.map(|package| {
        format!(
            "; or install the Python package {} for --python",
            package.replace('_', "-")
        )
    });
    format!(
        "{place}, from {}{}",
        definition.source,
        package.unwrap_or_default()
    )
}

fn in_packages(file: &str, python: &Path) -> Option<PathBuf> {
    let asked = Command::new(python)
        .args(["-I", "-c", PACKAGES])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let folders: Vec<PathBuf> = serde_json::from_slice(&asked.stdout).ok()?;
    let mut paths = folders.iter().map(|folder| folder.join(file));
    paths.find(|path| path.is_file())
}

fn read(path: PathBuf) -> Result<Found, QualifyError> {
    let at = |error: std::io::Error| QualifyError::at(&path, error);
    let bytes = backstop_input::read_file(&path, FILE_BYTES_MAX).map_err(at)?;
    let bytes = if path.extension().is_some_and(|end| end == "gz") {
        let mut unpacked = Vec::new();
        MultiGzDecoder::new(bytes.as_slice())
            .take(TEXT_BYTES_MAX + 1)
            .read_to_end(&mut unpacked)
            .map_err(at)?;
        if unpacked.len() as u64 > TEXT_BYTES_MAX {
            return Err(QualifyError::at(
                &path,
                format!("longer than {TEXT_BYTES_MAX} bytes"),
            ));
        }
        unpacked
    } else {
        bytes
    };
    let sha256 = sha256(&bytes);
    let text = String::from_utf8(bytes).map_err(|_| QualifyError::at(&path, "not UTF-8"))?;
    Ok(Found { path, text, sha256 })
}
