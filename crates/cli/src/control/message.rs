//! What is said over the control socket.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Bytes of a line at most, in either direction.
pub(super) const LINE_BYTES_MAX: u64 = 64 << 10;

/// What a server is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Request {
    /// Say how it is.
    Status,
    /// Sleep at level 1 or 2, once running requests have ended within so many seconds.
    Sleep { level: u8, timeout_s: f64 },
    /// Wake, and prove the model.
    Wake,
    /// End once running requests have.
    Drain,
    /// Read keys and certificates again, and with `weights` the model's weights.
    Reload { weights: bool, timeout_s: f64 },
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    /// What was done, or asked for.
    Done(Value),
    /// Why it was not done.
    Error(String),
}
