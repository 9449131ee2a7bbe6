//! One failure, from a primary that is well to one that is well again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::DrillError;
use crate::faults::{Act, Fault};
use crate::judgement::Source;
use crate::load::{Kind, Load, Phase, Record, rounded};

/// Answers of the primary in a row after which it is taken to be back.
const BACK_ANSWERS: usize = 4;

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lengths {
    /// Requests are sent before the failure for so long.
    pub(crate) before: Duration,
    /// And during it.
    pub(crate) during: Duration,
    /// After it, until the primary answers again, and no longer than this.
    pub(crate) recovery_max: Duration,
}

/// Names under which the gateway has the primary.
#[derive(Clone, Debug)]
pub(crate) struct Models {
    pub(crate) primary: String,
    /// The same over TLS, if the gateway is known to have that.
    pub(crate) over_tls: Option<String>,
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rehearsal {
    /// When the failure began and ended, from the beginning of the rehearsal on.
    pub(crate) fails_from_s: f64,
    pub(crate) fails_to_s: f64,
    /// From the end of the failure to the first request that the primary answered again.
    pub(crate) recovery_s: Option<f64>,
    pub(crate) held_back: u32,
    pub(crate) records: Vec<Record>,
}

/// Lets the primary fail in one way, and get well again. Each phase ends when all of its requests have ended.
pub(crate) async fn rehearse(
    load: &Arc<Load>,
    fault: &'static Fault,
    models: &Models,
    lengths: Lengths,
) -> Result<Rehearsal, DrillError> {
    let origin = Instant::now();
    let kind = |phase, model| Kind {
        phase,
        model,
        streams_only: fault.streams_only(),
        origin,
    };
    let model_during = match &models.over_tls {
        Some(over_tls) if fault.act == Act::Distrust => over_tls,
        _ => &models.primary,
    };
    let never = |_: &[Record]| false;
    set(load, None).await;
    let before = load
        .run(kind(Phase::Before, &models.primary), lengths.before, never)
        .await?;
    set(load, Some(fault)).await;
    let fails_from_s = rounded(origin.elapsed());
    let during = load
        .run(kind(Phase::During, model_during), lengths.during, never)
        .await?;
    set(load, None).await;
    let fails_to_s = rounded(origin.elapsed());
    let after = load
        .run(
            kind(Phase::After, &models.primary),
            lengths.recovery_max,
            is_back,
        )
        .await?;
    let first_back = after
        .records
        .iter()
        .find(|record| record.source == Source::Primary);
    Ok(Rehearsal {
        fails_from_s,
        fails_to_s,
        recovery_s: first_back
            .map(|record| ((record.at_s - fails_to_s).max(0.0) * 1000.0).round() / 1000.0),
        held_back: before.held_back + during.held_back + after.held_back,
        records: [before.records, during.records, after.records].concat(),
    })
}

async fn set(load: &Load, fault: Option<&'static Fault>) {
    if let Some(stand_in) = &load.stand_in {
        stand_in.set(fault).await;
    }
}

fn is_back(records: &[Record]) -> bool {
    let last = records.iter().rev().take(BACK_ANSWERS);
    last.filter(|record| record.source == Source::Primary)
        .count()
        == BACK_ANSWERS
}
