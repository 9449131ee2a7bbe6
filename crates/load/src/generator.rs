//! Asks: in a closed loop, where so many clients each wait for their answer, or at given times, whatever becomes of others.
//!
//! In an open loop a request that cannot be sent when it was to be sent keeps that time, so that its wait is seen: otherwise a
//! server that stalls would also stop those from asking who would have noticed (coordinated omission).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backstop_client::{Endpoint, Limits, ask_encoded};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::LoadError;
use crate::record::{Events, Record};
use crate::workload::Workload;

/// How long before its time a request is written down.
const AHEAD: Duration = Duration::from_millis(250);
/// Requests that are written down and wait for their time or for a place, beside those in flight.
const AHEAD_MAX: usize = 4096;
/// Until the first request of an open loop.
const LEAD: Duration = Duration::from_millis(20);
/// Of an answer, for each token that it may have, and beside them.
const ANSWER_TOKEN_BYTES: usize = 4096;
const ANSWER_BYTES: usize = 1 << 16;
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Events of all answers together that are kept: 4 bytes each.
const EVENTS_MAX: u64 = 1 << 26;

/// Whom to ask.
#[derive(Clone)]
pub struct Target {
    /// The server.
    pub endpoint: Endpoint,
    /// `/v1/chat/completions` or another.
    pub path: String,
    /// How long a client waits for the end of an answer.
    pub patience: Duration,
    /// Which events count.
    pub events: Events,
}

/// When requests are sent.
#[derive(Clone, Debug)]
pub enum Pace {
    /// By so many clients, each of which asks when it has its answer.
    Closed {
        /// How many.
        clients: usize,
    },
    /// At these times, one for each conversation.
    Open {
        /// From the beginning on.
        arrivals: Vec<Duration>,
        /// Requests that may be in flight at once; further ones wait, and their wait counts.
        in_flight_max: usize,
    },
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Requests that have ended.
    pub done: usize,
    /// Of these, without an answer.
    pub failed: usize,
    /// Requests in all.
    pub total: usize,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// In the order in which they were to be sent.
    pub records: Vec<Record>,
    /// When it began.
    pub began: Instant,
    /// From the beginning to the end of the last answer.
    pub seconds: f64,
}

/// Asks everything, and waits for all answers. `watch` is told after each.
///
/// # Errors
///
/// If there is nothing to ask, or more than can be recorded.
pub async fn run(
    target: &Target,
    workload: Arc<Workload>,
    pace: &Pace,
    watch: impl Fn(Progress) + Send + Sync + 'static,
) -> Result<Outcome, LoadError> {
    check(&workload, pace)?;
    let (lead, slots) = match pace {
        Pace::Closed { .. } => (Duration::ZERO, None),
        Pace::Open { in_flight_max, .. } => (LEAD, Some(Semaphore::new(*in_flight_max))),
    };
    let run = Arc::new(Run {
        target: target.clone(),
        begun: Instant::now() + lead,
        slots,
        next: AtomicUsize::new(0),
        seen: Mutex::new(Seen {
            records: Vec::with_capacity(workload.requests()),
            progress: Progress {
                total: workload.requests(),
                ..Progress::default()
            },
        }),
        watch: Box::new(watch),
        workload,
    });
    match pace {
        Pace::Closed { clients } => run.closed(*clients).await?,
        Pace::Open {
            arrivals,
            in_flight_max,
        } => run.open(arrivals, *in_flight_max).await?,
    }
    let seconds = run.begun.elapsed().as_secs_f64();
    let mut records = std::mem::take(&mut run.seen().records);
    records.sort_by(|one, other| one.planned_s.total_cmp(&other.planned_s));
    Ok(Outcome {
        records,
        began: run.begun,
        seconds,
    })
}

fn check(workload: &Workload, pace: &Pace) -> Result<(), LoadError> {
    let places = match pace {
        Pace::Closed { clients } => *clients,
        Pace::Open { in_flight_max, .. } => *in_flight_max,
    };
    if workload.sessions.is_empty() || places == 0 || places > Semaphore::MAX_PERMITS / 2 {
        return Err(LoadError::new(
            "there is nothing to ask, or nobody who asks",
        ));
    }
    if let Pace::Open { arrivals, .. } = pace
        && arrivals.len() != workload.sessions.len()
    {
        return Err(LoadError::new("each conversation needs a time of arrival"));
    }
    let turns = workload.sessions.iter().flat_map(|session| &session.turns);
    let tokens: u64 = turns.map(|turn| u64::from(turn.output_tokens)).sum();
    if tokens > EVENTS_MAX {
        return Err(LoadError::new(format!(
            "a run of up to {tokens} tokens is too long to be recorded: at most {EVENTS_MAX} are, so split it"
        )));
    }
    Ok(())
}

struct Run {
    target: Target,
    workload: Arc<Workload>,
    begun: Instant,
    slots: Option<Semaphore>,
    /// The conversation that the next free client begins.
    next: AtomicUsize,
    seen: Mutex<Seen>,
    watch: Box<dyn Fn(Progress) + Send + Sync>,
}

struct Seen {
    records: Vec<Record>,
    progress: Progress,
}

/// When a conversation is to begin.
struct Due {
    at: Instant,
    /// Whether it was held up already, since too many were waiting.
    was_held: bool,
}

impl Run {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn closed(self: &Arc<Self>, clients: usize) -> Result<(), LoadError> {
        let mut running = JoinSet::new();
        for _ in 0..clients.min(self.workload.sessions.len()) {
            let run = self.clone();
            running.spawn(async move {
                loop {
                    let number = run.next.fetch_add(1, Ordering::Relaxed);
                    if number >= run.workload.sessions.len() {
                        break;
                    }
                    run.session(number, None).await;
                }
            });
        }
        finish(running).await
    }

    async fn open(
        self: &Arc<Self>,
        arrivals: &[Duration],
        in_flight_max: usize,
    ) -> Result<(), LoadError> {
        let places = Arc::new(Semaphore::new(in_flight_max + AHEAD_MAX));
        let mut running = JoinSet::new();
        for (number, after) in arrivals.iter().enumerate() {
            let at = self.begun + *after;
            let early = at.checked_sub(AHEAD).unwrap_or(self.begun);
            tokio::time::sleep_until(early.into()).await;
            let free = places.clone().try_acquire_owned();
            let was_held = free.is_err();
            let place = match free {
                Ok(place) => place,
                Err(_) => places
                    .clone()
                    .acquire_owned()
                    .await
                    .map_err(|_| LoadError::new("internal error: the places are gone"))?,
            };
            let run = self.clone();
            running.spawn(async move {
                run.session(number, Some(Due { at, was_held })).await;
                drop(place);
            });
            while let Some(ended) = running.try_join_next() {
                ended.map_err(|error| broken(&error))?;
            }
        }
        finish(running).await
    }

    async fn session(&self, number: usize, mut due: Option<Due>) {
        let session = &self.workload.sessions[number];
        let mut answers = Vec::new();
        for (turn, asked) in session.turns.iter().enumerate() {
            let body = self.workload.wire.body(session, turn, &answers);
            let mut record = Record {
                session: number as u32,
                turn: turn as u32,
                asked_prompt_tokens: (turn == 0).then(|| asked.input_tokens()).flatten(),
                asked_output_tokens: asked.output_tokens,
                ..Record::default()
            };
            if let Some(due) = &due {
                tokio::time::sleep_until(due.at.into()).await;
                record.queued = due.was_held;
            }
            let slot = match &self.slots {
                None => None,
                Some(slots) => match slots.try_acquire() {
                    Ok(slot) => Some(slot),
                    Err(_) => {
                        record.queued = true;
                        slots.acquire().await.ok()
                    }
                },
            };
            let sent = Instant::now();
            let planned = due.as_ref().map_or(sent, |due| due.at);
            let limits = Limits {
                patience: self.target.patience,
                bytes_max: (ANSWER_BYTES + ANSWER_TOKEN_BYTES * asked.output_tokens as usize)
                    .min(ANSWER_BYTES_MAX),
            };
            let answer = ask_encoded(&self.target.endpoint, &self.target.path, body, limits).await;
            drop(slot);
            record.planned_s = self.since_begun(planned);
            record.sent_s = self.since_begun(sent);
            record.take(&answer, self.target.events);
            let is_answered = record.is_answered();
            self.note(record);
            if !is_answered {
                break;
            }
            answers.push(answer.text);
            due = (!self.workload.think.is_zero()).then(|| Due {
                at: Instant::now() + self.workload.think,
                was_held: false,
            });
        }
    }

    fn since_begun(&self, time: Instant) -> f64 {
        time.saturating_duration_since(self.begun).as_secs_f64()
    }

    fn note(&self, record: Record) {
        let mut seen = self.seen();
        seen.progress.done += 1;
        seen.progress.failed += usize::from(!record.is_answered());
        seen.records.push(record);
        let progress = seen.progress;
        drop(seen);
        (self.watch)(progress);
    }
}

async fn finish(mut running: JoinSet<()>) -> Result<(), LoadError> {
    while let Some(ended) = running.join_next().await {
        ended.map_err(|error| broken(&error))?;
    }
    Ok(())
}

fn broken(error: &tokio::task::JoinError) -> LoadError {
    LoadError::new(format!("internal error in a client: {error}"))
}
