//! One run of a package: its directory, its environment, its log.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::QualifyError;
use crate::subprocess::{explain, wait};

use super::args::{Kind, RunArgs};
use super::package::Package;

/// Of a log, when a package fails.
const LOG_BYTES_SHOWN: u64 = 3000;
const RUNS_MAX: u32 = 10_000;
/// What packages may know of whoever runs them: where their data and caches are, and whether to stay offline.
const PASSED_ON: &[&str] = &[
    "HOME",
    "LANG",
    "TMPDIR",
    "TZ",
    "XDG_CACHE_HOME",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_DATASETS_CACHE",
    "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "TIKTOKEN_CACHE_DIR",
    "NLTK_DATA",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "HUMANEVAL_OVERRIDE_PATH",
    "MBPP_OVERRIDE_PATH",
    "DOCKER_HOST",
    "XDG_RUNTIME_DIR",
];

/// A package that is about to run.
pub(super) struct HarnessRun<'a> {
    pub(super) args: &'a RunArgs,
    pub(super) package: Package,
    /// Everything that it writes.
    pub(super) directory: PathBuf,
    /// With `/v1`.
    pub(super) base_url: String,
    api_key: String,
}

impl<'a> HarnessRun<'a> {
    /// Finds the package and makes a directory for this run.
    pub(super) fn prepare(args: &'a RunArgs) -> Result<Self, QualifyError> {
        let program = match args.kind {
            Kind::LmEval => "lm_eval",
            Kind::Evalplus => "evalplus.codegen",
            Kind::Bfcl => "bfcl",
            Kind::MiniSweAgent => "mini",
        };
        let api_key = match &args.api_key_file {
            None => "none".to_owned(),
            Some(file) => backstop_client::read_key(file)?,
        };
        // That it is an address is better said here than by a package's stack.
        backstop_client::Endpoint::new(&args.url, Some(&api_key), None)?;
        let url = args.url.trim_end_matches('/');
        let base_url = if url.ends_with("/v1") {
            url.to_owned()
        } else {
            format!("{url}/v1")
        };
        let package = Package::find(args.kind, program, args.venv.as_deref())?;
        Ok(Self {
            directory: new_directory(&args.into.join("adapters").join(args.kind.name()))?,
            args,
            package,
            base_url,
            api_key,
        })
    }

    /// Runs one of the package's programs to its end. What it says goes into the log.
    pub(super) async fn run<A: AsRef<OsStr>>(
        &self,
        program: &Path,
        arguments: &[A],
        environment: &[(&str, &OsStr)],
    ) -> Result<(), QualifyError> {
        let log_path = self.directory.join("log.txt");
        let at = |error| QualifyError::at(&log_path, error);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&log_path)
            .map_err(at)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(
                PASSED_ON
                    .iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .env("PATH", self.path())
            .env("PYTHONUNBUFFERED", "1")
            .env("PYTHONNOUSERSITE", "1")
            .env("OPENAI_BASE_URL", &self.base_url)
            // What LiteLLM calls it.
            .env("OPENAI_API_BASE", &self.base_url)
            .env("OPENAI_API_KEY", &self.api_key)
            .envs(environment.iter().copied())
            .current_dir(&self.directory)
            .stdout(log.try_clone().map_err(at)?)
            .stderr(log);
        tracing::info!(
            "{} runs; its log is {}",
            self.package.name,
            log_path.display()
        );
        let ended = wait(&mut command, self.args.timeout).await;
        let why = match ended {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => format!("it ended with {}", explain(status)),
            Err(error) => error.to_string(),
        };
        Err(QualifyError::new(format!(
            "{}: {why}; the end of {}:\n{}",
            self.package.name,
            log_path.display(),
            end_of(&log_path).unwrap_or_default()
        )))
    }

    /// Refuses to let the package run what the model wrote, unless that was asked for.
    pub(super) fn needs_containment(&self, what: &str, instead: &str) -> Result<(), QualifyError> {
        if self.args.uncontained {
            tracing::warn!("{what}, on this machine and not contained");
            return Ok(());
        }
        Err(QualifyError::new(format!(
            "{what}, not contained: {instead}, or say --uncontained on a machine that nothing depends on"
        )))
    }

    /// The value of one of the package's own options: `--name value` or `--name=value`.
    pub(super) fn value_of(&self, names: &[&str]) -> Option<&str> {
        let arguments = &self.args.arguments;
        let mut found = None;
        for (place, argument) in arguments.iter().enumerate() {
            if names.contains(&argument.as_str()) {
                found = arguments.get(place + 1).map(String::as_str);
            } else if let Some((name, value)) = argument.split_once('=')
                && names.contains(&name)
            {
                found = Some(value);
            }
        }
        found
    }

    fn path(&self) -> std::ffi::OsString {
        let mut path = self.package.programs().as_os_str().to_owned();
        path.push(":");
        path.push(
            std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()),
        );
        path
    }
}

/// The first of `1`, `2` ... that is not there yet.
fn new_directory(parent: &Path) -> Result<PathBuf, QualifyError> {
    std::fs::create_dir_all(parent).map_err(|error| QualifyError::at(parent, error))?;
    for number in 1..=RUNS_MAX {
        let directory = parent.join(number.to_string());
        match std::fs::create_dir(&directory) {
            Ok(()) => {
                return directory
                    .canonicalize()
                    .map_err(|error| QualifyError::at(&directory, error));
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(QualifyError::at(&directory, error)),
        }
    }
    Err(QualifyError::at(parent, "it has too many runs"))
}

fn end_of(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_SHOWN)))?;
    let mut end = Vec::new();
    file.take(LOG_BYTES_SHOWN).read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).trim().to_owned())
}
