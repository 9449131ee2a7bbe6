//! What a report has, as its JSON has it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::cost::Cost;
use super::drill::Drill;
use super::identity::Identity;
use super::noise::Noise;
use super::speed::Speed;
use super::summary::Summary;
use crate::claims::ClaimResult;
use crate::conformance::Conformance;
use crate::record::Measure;

/// The shape of the JSON; a change that readers would notice makes it another number.
pub(super) const SHAPE: u32 = 1;

/// All of a report.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) shape: u32,
    pub(super) program: &'static str,
    /// When the run began, when the report was made, and until when it holds.
    pub(super) began: String,
    pub(super) built: String,
    pub(super) expires: String,
    pub(super) identity: Identity,
    /// What decided what was asked.
    pub(super) settings: BTreeMap<String, Value>,
    pub(super) summary: Summary,
    pub(super) claims: Vec<ClaimResult>,
    pub(super) measures: Vec<Measure>,
    /// Of suites that were run more than once.
    pub(super) noise: Vec<Noise>,
    pub(super) speed: Option<Speed>,
    pub(super) conformance: Option<Conformance>,
    pub(super) drill: Option<Drill>,
    pub(super) decision: Vec<Criterion>,
    pub(super) cost: Option<Cost>,
    pub(super) limits: Vec<String>,
    /// SHA-256 of each file that the report was made of.
    pub(super) evidence: BTreeMap<String, String>,
}

/// A row of the decision matrix.
#[derive(Serialize)]
pub(super) struct Criterion {
    pub(super) name: &'static str,
    /// None where it is not known.
    pub(super) finding: Option<String>,
    /// Who says so, or what would.
    pub(super) basis: String,
}
