//! The way into the engine thread: a bounded queue of commands, and a list of aborts that can
//! never be refused.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backstop_sched::Rejection;
use backstop_types::{SequenceId, SleepLevel};
use tokio::sync::{mpsc, oneshot};

use crate::handle::{GenerationEvent, GenerationRequest};

/// What the engine thread can be asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Queue a generation.
    Submit {
        id: SequenceId,
        request: GenerationRequest,
        events: mpsc::UnboundedSender<GenerationEvent>,
        reply: oneshot::Sender<Result<(), Rejection>>,
    },
    /// Look at the list of aborts.
    Wake,
    /// Let the executor give its memory back.
    Sleep { level: SleepLevel, reply: Reply },
    /// Let the executor take its memory again.
    WakeUp { progress: Progress, reply: Reply },
    /// Abort everything and end the thread.
    Stop,
}

/// Is told what came of it.
pub(crate) type Reply = oneshot::Sender<Result<(), String>>;

/// Is told how many bytes of how many have been loaded.
pub(crate) struct Progress(pub(crate) Box<dyn Fn(u64, u64) + Send + Sync>);

impl fmt::Debug for Progress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Progress")
    }
}

/// Sending side; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    commands: SyncSender<Command>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    next_sequence: AtomicU64,
    /// Bounded by the number of live sequences: each is aborted at most once.
    aborts: Mutex<Vec<SequenceId>>,
}

impl Shared {
    fn aborts(&self) -> MutexGuard<'_, Vec<SequenceId>> {
        // The list stays valid whatever panicked while holding it.
        self.aborts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Receiving side, owned by the engine thread.
#[derive(Debug)]
pub(crate) struct InboxReceiver {
    commands: Receiver<Command>,
    shared: Arc<Shared>,
}

/// A bounded inbox.
pub(crate) fn inbox(capacity: usize) -> (Inbox, InboxReceiver) {
    let (sender, receiver) = sync_channel(capacity);
    let shared = Arc::new(Shared::default());
    (
        Inbox {
            commands: sender,
            shared: Arc::clone(&shared),
        },
        InboxReceiver {
            commands: receiver,
            shared,
        },
    )
}

impl Inbox {
    /// A sequence id that was never used before.
    pub(crate) fn next_sequence_id(&self) -> SequenceId {
        SequenceId(self.shared.next_sequence.fetch_add(1, Ordering::Relaxed))
    }

    /// Queues a command, or hands it back when the queue is full or the engine gone.
    pub(crate) fn try_send(&self, command: Command) -> Result<(), TrySendError<Command>> {
        self.commands.try_send(command)
    }

    /// Asks for the end of a sequence. Never blocks and never fails.
    pub(crate) fn abort(&self, id: SequenceId) {
        self.shared.aborts().push(id);
        // A full queue means that the engine is about to wake up anyway.
        let _ignored = self.commands.try_send(Command::Wake);
    }

    /// Asks the thread to end, waiting for room in the queue.
    pub(crate) fn stop(&self) {
        // An error means that the thread has ended already.
        let _ignored = self.commands.send(Command::Stop);
    }
}

impl InboxReceiver {
    /// Waits for a command; `None` after `timeout`. A disconnected inbox reads as `Stop`.
    pub(crate) fn wait(&self, timeout: Duration) -> Option<Command> {
        match self.commands.recv_timeout(timeout) {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Command::Stop),
        }
    }

    /// A command that has already arrived.
    pub(crate) fn try_next(&self) -> Option<Command> {
        self.commands.try_recv().ok()
    }

    /// The sequences to abort since the last call.
    pub(crate) fn take_aborts(&self) -> Vec<SequenceId> {
        std::mem::take(&mut *self.shared.aborts())
    }
}
