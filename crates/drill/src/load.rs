//! Paced requests to a gateway.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::DrillError;
use crate::fallback::Fallback;
use crate::judgement::{Flaw, Source, behind_primarys, judge};
use crate::nonces::Nonces;
use crate::stand_in::StandIn;
use crate::transcript::{Question, ask};
use backstop_client::Endpoint;

/// How much is asked, and how patiently.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pace {
    pub(crate) requests_per_second: f64,
    pub(crate) concurrency: usize,
    pub(crate) max_tokens: u32,
    /// How long a client waits for the end of its answer.
    #[serde(serialize_with = "seconds")]
    pub(crate) patience: Duration,
}

/// Whom requests go to, and what their answers are compared with.
pub(crate) struct Load {
    pub(crate) gateway: Endpoint,
    pub(crate) fallback: Option<Fallback>,
    pub(crate) stand_in: Option<StandIn>,
    pub(crate) nonces: Nonces,
    pub(crate) pace: Pace,
}

/// When a request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// The primary is well.
    Before,
    /// It fails.
    During,
    /// It is well again.
    After,
}

/// One request, and what became of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    /// When it was sent, from the beginning of the rehearsal on.
    pub(crate) at_s: f64,
    pub(crate) phase: Phase,
    pub(crate) stream: bool,
    pub(crate) source: Source,
    /// Why it has no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) flaws: Vec<Flaw>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_token_s: Option<f64>,
    pub(crate) total_s: f64,
    /// How often the stand-in was asked for it.
    pub(crate) attempts: u32,
}

/// What is asked in a phase.
#[derive(Clone, Copy)]
pub(crate) struct Kind<'a> {
    pub(crate) phase: Phase,
    pub(crate) model: &'a str,
    pub(crate) streams_only: bool,
    /// When the rehearsal began.
    pub(crate) origin: Instant,
}

/// What came of a phase.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) records: Vec<Record>,
    /// Requests that were not sent, for as many as may be were under way.
    pub(crate) held_back: u32,
}

impl Load {
    /// Sends requests for `length`, or until enough is known, and waits for all answers.
    pub(crate) async fn run(
        self: &Arc<Self>,
        kind: Kind<'_>,
        length: Duration,
        is_enough: impl Fn(&[Record]) -> bool,
    ) -> Result<Asked, DrillError> {
        let mut ticks =
            tokio::time::interval(Duration::from_secs_f64(1.0 / self.pace.requests_per_second));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = tokio::time::sleep(length);
        tokio::pin!(end);
        let (mut asked, mut running, mut number) = (Asked::default(), JoinSet::new(), 0_u32);
        loop {
            tokio::select! {
                () = &mut end => break,
                _ = ticks.tick() => {
                    if running.len() >= self.pace.concurrency {
                        asked.held_back += 1;
                        continue;
                    }
                    let is_stream = kind.streams_only || number.is_multiple_of(2);
                    let question = self.question(kind.model, is_stream)?;
                    number += 1;
                    running.spawn(self.clone().one(question, kind.phase, kind.origin));
                }
                Some(record) = running.join_next() => {
                    asked.records.push(finished(record)?);
                    if is_enough(&asked.records) {
                        break;
                    }
                }
            }
        }
        while let Some(record) = running.join_next().await {
            asked.records.push(finished(record)?);
        }
        asked
            .records
            .sort_by(|one, other| one.at_s.total_cmp(&other.at_s));
        Ok(asked)
    }

    /// Sends one request that is not streamed, and waits for its answer.
    pub(crate) async fn run_one(self: &Arc<Self>, kind: Kind<'_>) -> Result<Record, DrillError> {
        let question = self.question(kind.model, false)?;
        Ok(self.clone().one(question, kind.phase, kind.origin).await)
    }

    fn question(&self, model: &str, is_stream: bool) -> Result<Question, DrillError> {
        Ok(Question {
            model: model.to_owned(),
            nonce: self.nonces.issue()?,
            is_stream,
            max_tokens: self.pace.max_tokens,
        })
    }

    async fn one(self: Arc<Self>, question: Question, phase: Phase, origin: Instant) -> Record {
        let at_s = rounded(origin.elapsed());
        let transcript = ask(&self.gateway, &question, self.pace.patience).await;
        let identity = self.fallback.as_ref().map(|fallback| &fallback.identity);
        let mut judgement = judge(&transcript, &question.nonce, &self.nonces, identity);
        if judgement.source == Source::Continued
            && self.begins_anew(&transcript.text, &question).await
        {
            judgement.flaws.push(Flaw::Restarted);
        }
        let stand_in = self.stand_in.as_ref();
        Record {
            at_s,
            phase,
            stream: question.is_stream,
            source: judgement.source,
            lost: judgement.lost,
            flaws: judgement.flaws,
            first_token_s: transcript.first_token.map(rounded),
            total_s: rounded(transcript.total),
            attempts: stand_in.map_or(0, |stand_in| stand_in.attempts(&question.nonce)),
        }
    }

    /// Whether the fallback did not continue what the primary had begun, but answered from the beginning behind it.
    async fn begins_anew(&self, text: &str, question: &Question) -> bool {
        let Some(fallback) = &self.fallback else {
            return false;
        };
        let behind = behind_primarys(text, &question.nonce);
        fallback
            .would_begin_with(behind, question, self.pace.patience)
            .await
    }
}

fn finished(record: Result<Record, tokio::task::JoinError>) -> Result<Record, DrillError> {
    record.map_err(|error| DrillError::new(format!("internal error in a request: {error}")))
}

/// Seconds, to the millisecond.
pub(crate) fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(rounded(*time))
}
