//! What looking on at a gateway leaves behind.

use serde::Serialize;

use crate::judgement::Identity;
use crate::load::{Pace, Record};
use crate::statistics::Summary;
use crate::verdict::Verdict;

/// A gateway that was asked as it is. Answers without Backstop's mark are from somebody unknown: the primary, as a rule.
#[derive(Serialize)]
pub(crate) struct Watch {
    pub(crate) shape: u32,
    pub(crate) program: &'static str,
    /// Passed if no request was lost, and no answer doubled or mixed.
    pub(crate) verdict: Verdict,
    /// Seconds since 1970.
    pub(crate) began_unix_s: u64,
    pub(crate) took_s: f64,
    pub(crate) gateway: String,
    pub(crate) model: String,
    pub(crate) fallback: Option<Identity>,
    pub(crate) pace: Pace,
    pub(crate) summary: Summary,
    pub(crate) held_back: u32,
    pub(crate) records: Vec<Record>,
}
