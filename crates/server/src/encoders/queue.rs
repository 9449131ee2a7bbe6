//! The queue of one encoder, shared by those who wait and the thread that computes.

use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backstop_types::Encoder;

use super::batch::{Job, Lines, Outcome, Part};
use super::liveness::EncoderLiveness;
use super::worker;

/// The end of the queue at which requests come in. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct EncoderQueue(Arc<Shared>);

/// Looks into the queue.
#[derive(Clone, Debug)]
pub(crate) struct QueueView(Arc<Shared>);

pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    lines: Lines,
    /// Tokens of the batch that is computed, if one is.
    batch_tokens: Option<usize>,
    /// When a batch last began or ended, or a first job came.
    progress: Instant,
    over: bool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("EncoderQueue")
    }
}

impl EncoderQueue {
    /// An empty queue, and a thread that waits for work.
    pub(super) fn new(encoder: Arc<dyn Encoder>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                lines: Lines::default(),
                batch_tokens: None,
                progress: Instant::now(),
                over: false,
            }),
            changed: Condvar::new(),
        });
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("encoder".to_owned())
            .spawn(move || worker::run(&of_thread, encoder.as_ref()))?;
        Ok(Self(shared))
    }

    /// Puts a job into the queue.
    pub(super) fn push(&self, job: Job) {
        let mut state = self.0.state();
        if !state.is_busy() {
            state.progress = Instant::now();
        }
        state.lines.push(job);
        self.0.changed.notify_one();
    }

    pub(super) fn view(&self) -> QueueView {
        QueueView(Arc::clone(&self.0))
    }
}

impl Drop for EncoderQueue {
    fn drop(&mut self) {
        self.0.state().over = true;
        self.0.changed.notify_one();
    }
}

impl QueueView {
    /// What waits and runs, and since when nothing has changed.
    pub(crate) fn liveness(&self) -> EncoderLiveness {
        let state = self.0.state();
        EncoderLiveness {
            running: state.lines.running,
            waiting: state.lines.waiting,
            started: state.lines.started,
            since_progress: match state.is_busy() {
                true => state.progress.elapsed(),
                false => Duration::ZERO,
            },
            batch_tokens: state.batch_tokens.unwrap_or(0),
        }
    }
}

impl Shared {
    /// The next batch, as soon as there is one; nothing once the queue is over.
    pub(super) fn next_batch(&self) -> Option<Vec<Part>> {
        let mut state = self.state();
        loop {
            if state.over {
                return None;
            }
            let batch = state.lines.next_batch();
            if !batch.is_empty() {
                return Some(batch);
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Something that takes a while begins, with so many tokens.
    pub(super) fn begins(&self, tokens: usize) {
        let mut state = self.state();
        state.batch_tokens = Some(tokens);
        state.progress = Instant::now();
    }

    /// It ended.
    pub(super) fn ended(&self, outcomes: Vec<(Part, Outcome)>) {
        let mut state = self.state();
        state.batch_tokens = None;
        state.progress = Instant::now();
        for (part, outcome) in outcomes {
            state.lines.computed(part, outcome);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_busy(&self) -> bool {
        self.batch_tokens.is_some() || self.lines.waiting + self.lines.running > 0
    }
}
