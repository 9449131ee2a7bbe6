//! What a drill leaves behind.

mod chart;
mod html;
mod metrics;
mod watch;

pub(crate) use self::metrics::write as write_metrics;
pub(crate) use self::watch::Watch;

use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::DrillError;
use crate::advice::Advice;
use crate::gateway::{Parties, Settings};
use crate::judgement::Identity;
use crate::load::Pace;
use crate::verdict::{Outcome, Verdict};

/// The shape of the JSON; a change that readers would notice makes it another number.
pub(crate) const SHAPE: u32 = 1;

pub(crate) const PROGRAM: &str = concat!("backstop-drill ", env!("CARGO_PKG_VERSION"));

/// All of a drill.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) shape: u32,
    pub(crate) program: &'static str,
    pub(crate) verdict: Verdict,
    /// Seconds since 1970.
    pub(crate) began_unix_s: u64,
    pub(crate) took_s: f64,
    pub(crate) subject: Subject,
    /// Without it, answers are Backstop's if they have its header.
    pub(crate) fallback: Option<Identity>,
    pub(crate) pace: Pace,
    pub(crate) first_token_limit_s: f64,
    pub(crate) advice: Vec<Advice>,
    pub(crate) failures: Vec<Outcome>,
}

/// What was drilled.
#[derive(Serialize)]
pub(crate) struct Subject {
    /// Its address, or its configuration's name.
    pub(crate) gateway: String,
    pub(crate) model: String,
    /// If the drill has started it.
    pub(crate) parties: Option<Parties>,
    pub(crate) settings: Option<Settings>,
}

impl Report {
    pub(crate) fn ended_unix_s(&self) -> f64 {
        self.began_unix_s as f64 + self.took_s
    }

    pub(crate) fn count(&self, verdict: Verdict) -> usize {
        self.failures
            .iter()
            .filter(|outcome| outcome.verdict == verdict)
            .count()
    }
}

/// For people.
fn date(unix_s: u64) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(unix_s))
}

/// Seconds since 1970.
pub(crate) fn unix_now_s() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |time| time.as_secs())
}

/// Writes JSON to a file, or to standard output for `-`.
pub(crate) fn write_json(report: &impl Serialize, path: &Path) -> Result<(), DrillError> {
    let mut json =
        serde_json::to_vec(report).map_err(|error| DrillError::new(error.to_string()))?;
    json.push(b'\n');
    if path == Path::new("-") {
        let written = std::io::stdout().write_all(&json);
        return written.map_err(|error| DrillError::new(format!("standard output: {error}")));
    }
    replace(path, &json)
}

/// Writes a drill as a page.
pub(crate) fn write_html(report: &Report, path: &Path) -> Result<(), DrillError> {
    replace(path, html::drill(report).as_bytes())
}

/// Writes what came of looking on as a page.
pub(crate) fn write_watch_html(watch: &Watch, path: &Path) -> Result<(), DrillError> {
    replace(path, html::watch(watch).as_bytes())
}

/// Writes a file beside its place, and puts it there when it is complete.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), DrillError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // Collectors pass over names that end differently.
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let replaced = std::fs::write(&part, content).and_then(|()| std::fs::rename(&part, path));
    replaced.map_err(|error| {
        // What is there of it is of no use.
        let _ = std::fs::remove_file(&part);
        DrillError::at(path, error)
    })
}
