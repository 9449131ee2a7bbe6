//! Whether a server behaves as gateways need it to: errors that they can tell apart, streams that end, usage, cancellation,
//! and a hint when to come back.

mod asking;
mod checks;
mod load;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use backstop_client::{Endpoint, read_key};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::PROGRAM;
use crate::QualifyError;
use crate::output::write_json;
use crate::record::Measure;
use crate::statistics::wilson;
use crate::store::Results;

use self::asking::Asker;

const FILE: &str = "conformance.json";
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Which server, and where the results go.
#[derive(Clone, Debug, Args)]
pub struct ConformanceArgs {
    /// Address of a server of OpenAI's API.
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// Model to ask for.
    #[arg(long, value_name = "NAME")]
    pub model: String,
    /// File with the key that the server wants.
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities to trust, instead of the system's.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Directory of results, as a suite has left it: a report of it has these too.
    #[arg(long, value_name = "DIR", required_unless_present = "json")]
    pub into: Option<PathBuf>,
    /// Write the list there too; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Overload the server with so many requests at once, to see how it refuses. Not for a server that others use.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(2..=2048))]
    pub overload: Option<u16>,
    /// How long to wait for each answer.
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = humantime::parse_duration)]
    pub request_timeout: Duration,
}

/// All checks of one server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Conformance {
    /// This program, `NAME VERSION`.
    pub program: String,
    /// Whom.
    pub url: String,
    /// The model's name in requests.
    pub model: String,
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

/// One promise, and whether it was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// What a gateway relies on.
    pub expected: String,
    /// What came of it.
    pub outcome: CheckOutcome,
    /// What was seen, or why it could not be tried.
    pub seen: String,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    /// As expected.
    Passed,
    /// Otherwise.
    Failed,
    /// It could not be tried.
    NotTried,
}

impl Conformance {
    /// How many came to this.
    pub fn count(&self, outcome: CheckOutcome) -> usize {
        let of_it = self.checks.iter().filter(|check| check.outcome == outcome);
        of_it.count()
    }

    fn measure(&self) -> Option<Measure> {
        let passed = self.count(CheckOutcome::Passed) as u64;
        let tried = passed + self.count(CheckOutcome::Failed) as u64;
        (tried > 0).then(|| Measure {
            suite: "conformance".into(),
            metric: "passed".into(),
            value: passed as f64 / tried as f64,
            interval: wilson(passed, tried),
            count: tried,
            samples: 1,
            settings: std::iter::once(("checks".to_owned(), Value::from(self.checks.len())))
                .collect(),
            source: self.program.clone(),
        })
    }
}

/// What a directory of results has of it, if it was run there.
pub(crate) fn read(root: &Path) -> Result<Option<Conformance>, QualifyError> {
    let path = root.join(FILE);
    let bytes = match backstop_input::read_file(&path, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(QualifyError::at(&path, error)),
    };
    let read = serde_json::from_slice(&bytes);
    read.map(Some)
        .map_err(|error| QualifyError::at(&path, error))
}

/// Makes all checks, and exits with 3 if one failed.
///
/// # Errors
///
/// If the server is not there, or the results cannot be written.
pub fn run(args: &ConformanceArgs) -> Result<ExitCode, QualifyError> {
    if let Some(root) = &args.into {
        let results = Results::open(root)?;
        let subject = &results.run.subject;
        if (subject.url.as_str(), subject.model.as_str())
            != (args.url.as_str(), args.model.as_str())
        {
            let whom = format!("{} at {}", subject.model, subject.url);
            let reason = format!("its results are of {whom}: a report would mix them");
            return Err(QualifyError::at(root, reason));
        }
    }
    let endpoint = endpoint(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| QualifyError::new(format!("cannot start the runtime: {error}")))?;
    let conformance = runtime.block_on(check_all(args, endpoint))?;
    runtime.shutdown_background();
    if let Some(root) = &args.into {
        write_json(&root.join(FILE), &conformance)?;
        let measures: Vec<Measure> = conformance.measure().into_iter().collect();
        write_json(&root.join("measures").join(FILE), &measures)?;
    }
    if let Some(path) = &args.json {
        write_json(path, &conformance)?;
    }
    print(&conformance)?;
    Ok(match conformance.count(CheckOutcome::Failed) {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(3),
    })
}

async fn check_all(
    args: &ConformanceArgs,
    endpoint: Endpoint,
) -> Result<Conformance, QualifyError> {
    let asker = Asker::new(endpoint, args.model.clone(), args.request_timeout);
    let entry = asker
        .entry()
        .await
        .map_err(|error| QualifyError::new(format!("{} does not answer: {error}", args.url)))?;
    let mut checks = checks::all(&asker, entry.as_ref()).await;
    checks.push(match &args.api_key_file {
        Some(_) => {
            let stranger = Endpoint::new(&args.url, Some("not-a-key"), args.ca_file.as_deref())?;
            let stranger = Asker::new(stranger, args.model.clone(), args.request_timeout);
            checks::wrong_key(&stranger).await
        }
        None => checks::no_key(),
    });
    checks.push(load::cancellation(&asker).await);
    checks.push(match args.overload {
        Some(clients) => load::overload(&asker, clients).await,
        None => load::no_overload(),
    });
    Ok(Conformance {
        program: PROGRAM.into(),
        url: args.url.clone(),
        model: args.model.clone(),
        checks,
    })
}

fn endpoint(args: &ConformanceArgs) -> Result<Endpoint, QualifyError> {
    let key = args.api_key_file.as_deref().map(read_key).transpose()?;
    Ok(Endpoint::new(
        &args.url,
        key.as_deref(),
        args.ca_file.as_deref(),
    )?)
}

fn print(conformance: &Conformance) -> Result<(), QualifyError> {
    let mut out = std::io::stderr().lock();
    let written = conformance.checks.iter().try_for_each(|check| {
        let outcome = match check.outcome {
            CheckOutcome::Passed => "passed",
            CheckOutcome::Failed => "FAILED",
            CheckOutcome::NotTried => "not tried",
        };
        writeln!(out, "{outcome:9}  {:24}  {}", check.name, check.seen)
    });
    written.map_err(|error| QualifyError::new(format!("standard error: {error}")))
}
