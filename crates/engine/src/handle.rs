//! How a server submits generations and receives their tokens.

use std::sync::Arc;
use std::sync::mpsc::TrySendError;
use std::time::Duration;

use backstop_sched::Rejection;
use backstop_types::{
    FinishReason, SampledToken, SamplingParams, SequenceId, SleepLevel, StopConditions, TokenId,
    TokenLogprobs, Usage,
};
use tokio::sync::{mpsc, oneshot};

use crate::inbox::{Command, Inbox, Progress, Reply};
use crate::lifecycle::{Lifecycle, LifecycleState};
use crate::stats::{EngineStats, Liveness, StatsCell};

/// One sequence to generate.
#[derive(Clone, Debug)]
pub struct GenerationRequest {
    /// Prompt tokens; at least one.
    pub prompt: Arc<[TokenId]>,
    /// How to sample.
    pub sampling: Arc<SamplingParams>,
    /// When to stop.
    pub stop: Arc<StopConditions>,
    /// Smaller is served first.
    pub priority: i32,
    /// Whose it is: of each tenant one sequence runs before others have several.
    pub tenant: u64,
    /// Prefix-cache blocks are shared only between requests with the same salt.
    pub cache_salt: u64,
    /// Longest wait in the queue before the request ends with `DeadlineExceeded`.
    pub queue_timeout: Option<Duration>,
}

/// What happens to a generation, in order. `Finished` is the last event.
#[derive(Clone, Debug, PartialEq)]
pub enum GenerationEvent {
    /// The sequence left the queue: its first step is planned.
    Admitted {
        /// Prompt tokens found in the prefix cache.
        cached_tokens: u32,
    },
    /// Log-probabilities of more of the prompt, if they were asked for. Together these events have
    /// every prompt token but the first, in order, before the first token is generated.
    PromptLogprobs(Vec<TokenLogprobs>),
    /// The next token; a stop token is reported as well.
    Token(SampledToken),
    /// The end.
    Finished {
        /// Why.
        reason: FinishReason,
        /// Token counts.
        usage: Usage,
    },
}

/// Why a request was not accepted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// The server is loading, asleep, suspect or gone.
    #[error("the engine is {0}")]
    NotReady(LifecycleState),
    /// More requests arrived in one engine turn than the inbox holds.
    #[error("the engine's inbox is full")]
    InboxFull,
    /// The scheduler refused it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
}

/// Entrance to the engine; cheap to clone.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    inbox: Inbox,
    lifecycle: Lifecycle,
    stats: Arc<StatsCell>,
}

impl EngineHandle {
    pub(crate) fn new(inbox: Inbox, lifecycle: Lifecycle, stats: Arc<StatsCell>) -> Self {
        Self {
            inbox,
            lifecycle,
            stats,
        }
    }

    /// Submits a generation and waits until the scheduler has accepted it into its queue, at most
    /// one step. Before the server is ready only [`submit_warm_up`](Self::submit_warm_up) may
    /// use the engine.
    ///
    /// Who lets requests in keeps new ones away from a server that drains or falls asleep, and waits for those that were let in
    /// before, some of which come here only then. An engine that sleeps already accepts none.
    pub async fn submit(&self, request: GenerationRequest) -> Result<Generation, SubmitError> {
        match self.lifecycle.state() {
            LifecycleState::Ready | LifecycleState::Draining | LifecycleState::Sleeping { .. } => {
                self.submit_warm_up(request).await
            }
            state => Err(SubmitError::NotReady(state)),
        }
    }

    /// Like [`submit`](Self::submit), before the server is ready.
    pub async fn submit_warm_up(
        &self,
        request: GenerationRequest,
    ) -> Result<Generation, SubmitError> {
        let (event_sender, events) = mpsc::unbounded_channel();
        let (reply, accepted) = oneshot::channel();
        let id = self.inbox.next_sequence_id();
        // The guard exists before the request is sent: if this future is dropped while it waits,
        // the sequence is aborted all the same.
        let mut generation = Generation {
            id,
            events,
            inbox: self.inbox.clone(),
            finished: false,
        };
        self.inbox
            .try_send(Command::Submit {
                id,
                request,
                events: event_sender,
                reply,
            })
            .map_err(|error| match error {
                TrySendError::Full(_) => SubmitError::InboxFull,
                TrySendError::Disconnected(_) => SubmitError::NotReady(self.lifecycle.state()),
            })?;
        match accepted.await {
            Ok(Ok(())) => Ok(generation),
            Ok(Err(rejection)) => {
                // There is nothing to abort.
                generation.finished = true;
                Err(SubmitError::Rejected(rejection))
            }
            Err(_) => Err(SubmitError::NotReady(self.lifecycle.state())),
        }
    }

    /// Gives the memory of device and KV cache back until [`wake`](Self::wake), as soon as nothing runs or waits. Requests
    /// that come while it sleeps are not accepted. After an error the engine is awake as before; giving up the wait leaves
    /// it so.
    pub async fn sleep(&self, level: SleepLevel) -> Result<(), String> {
        self.ask(|reply| Command::Sleep { level, reply }).await
    }

    /// Takes the memory again, with an empty KV cache. `progress` is told how many bytes of how many are loaded. After an
    /// error the engine sleeps on.
    pub async fn wake(
        &self,
        progress: impl Fn(u64, u64) + Send + Sync + 'static,
    ) -> Result<(), String> {
        let progress = Progress(Box::new(progress));
        self.ask(|reply| Command::WakeUp { progress, reply }).await
    }

    async fn ask(&self, command: impl FnOnce(Reply) -> Command) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let sent = self.inbox.try_send(command(reply));
        sent.map_err(|_| SubmitError::InboxFull.to_string())?;
        answer
            .await
            .map_err(|_| format!("the engine is {}", self.lifecycle.state()))?
    }

    /// The life-cycle that this engine reports to.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// A copy of the engine's counters and gauges as of its last turn.
    pub fn stats(&self) -> EngineStats {
        self.stats.read()
    }

    /// Whether the engine makes progress; answered without the engine thread.
    pub fn liveness(&self) -> Liveness {
        self.stats.liveness()
    }
}

/// A generation in progress. Dropping it aborts the sequence within a step.
#[derive(Debug)]
pub struct Generation {
    id: SequenceId,
    events: mpsc::UnboundedReceiver<GenerationEvent>,
    inbox: Inbox,
    finished: bool,
}

impl Generation {
    /// The sequence's id, for logs.
    pub fn id(&self) -> SequenceId {
        self.id
    }

    /// The next event. `None` before `Finished` means that the engine died.
    pub async fn next(&mut self) -> Option<GenerationEvent> {
        let event = self.events.recv().await;
        self.finished |= matches!(event, None | Some(GenerationEvent::Finished { .. }));
        event
    }

    /// The next event if it has already happened.
    pub fn try_next(&mut self) -> Option<GenerationEvent> {
        let event = self.events.try_recv().ok();
        self.finished |= matches!(event, Some(GenerationEvent::Finished { .. }));
        event
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if !self.finished {
            self.inbox.abort(self.id);
        }
    }
}
