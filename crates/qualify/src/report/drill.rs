//! What a blackout drill came to, from its JSON.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::QualifyError;

const DRILL_BYTES_MAX: u64 = 256 << 20;
/// The shape that `backstop drill --json` has.
const SHAPE: u32 = 1;

/// As much of it as a report shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Drill {
    shape: u32,
    pub(crate) program: String,
    pub(crate) verdict: String,
    pub(crate) began_unix_s: u64,
    pub(crate) subject: DrillSubject,
    pub(crate) failures: Vec<DrillFailure>,
}

/// What was drilled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DrillSubject {
    pub(crate) gateway: String,
    pub(crate) model: String,
}

/// A failure of the primary.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DrillFailure {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) verdict: String,
    pub(crate) reasons: Vec<String>,
    pub(crate) during: DrillPhase,
}

/// While it lasted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DrillPhase {
    pub(crate) requests: u64,
    pub(crate) lost: u64,
    pub(crate) fallback_first_token_s: Option<DrillWait>,
}

/// How long clients waited.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DrillWait {
    pub(crate) max: f64,
}

impl Drill {
    /// How many failures came to this.
    pub(crate) fn count(&self, verdict: &str) -> usize {
        let of_it = self
            .failures
            .iter()
            .filter(|failure| failure.verdict == verdict);
        of_it.count()
    }

    /// The longest wait for the fallback's first token.
    pub(crate) fn longest_wait_s(&self) -> Option<f64> {
        let waits = self
            .failures
            .iter()
            .filter_map(|failure| failure.during.fallback_first_token_s.as_ref());
        waits.map(|wait| wait.max).reduce(f64::max)
    }
}

pub(super) fn read(path: &Path) -> Result<Drill, QualifyError> {
    let bytes = backstop_input::read_file(path, DRILL_BYTES_MAX)
        .map_err(|error| QualifyError::at(path, error))?;
    let drill: Drill = serde_json::from_slice(&bytes).map_err(|error| {
        let reason = format!("it is not what `backstop drill --json` writes: {error}");
        QualifyError::at(path, reason)
    })?;
    match drill.shape == SHAPE {
        true => Ok(drill),
        false => Err(QualifyError::at(
            path,
            "it is of another version of the drill",
        )),
    }
}
