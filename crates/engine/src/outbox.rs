//! The way out of the engine thread: one message a step, spread over the requests by one task.
//!
//! The channel is unbounded on purpose, for the engine must never wait. What it can hold is
//! bounded all the same: the task never waits for a client either, and a client's own queue holds
//! at most the tokens of one sequence.

use std::collections::HashMap;

use backstop_types::SequenceId;
use tokio::sync::mpsc;

use crate::handle::GenerationEvent;
use crate::lifecycle::Lifecycle;

/// What the spreading task receives.
#[derive(Debug)]
enum Message {
    /// A new sequence's events go here.
    Register(SequenceId, mpsc::UnboundedSender<GenerationEvent>),
    /// Everything that one engine turn produced.
    Events(Vec<(SequenceId, GenerationEvent)>),
}

/// Engine-side end.
#[derive(Debug)]
pub(crate) struct Outbox {
    messages: mpsc::UnboundedSender<Message>,
    pending: Vec<(SequenceId, GenerationEvent)>,
}

impl Outbox {
    /// Starts the spreading task on `runtime`; it ends with the outbox, or when the life has failed.
    pub(crate) fn spawn(runtime: &tokio::runtime::Handle, lifecycle: Lifecycle) -> Self {
        let (messages, receiver) = mpsc::unbounded_channel();
        runtime.spawn(async move {
            tokio::select! {
                // What the engine still said comes first.
                biased;
                () = spread(receiver) => {}
                // The engine's thread may be stuck for good: whoever waits hears of the end all the same.
                () = lifecycle.failed() => {}
            }
        });
        Self {
            messages,
            pending: Vec::new(),
        }
    }

    /// Announces a sequence before its first event.
    pub(crate) fn register(
        &mut self,
        id: SequenceId,
        events: mpsc::UnboundedSender<GenerationEvent>,
    ) {
        self.send(Message::Register(id, events));
    }

    /// Adds an event to the message of this turn.
    pub(crate) fn push(&mut self, id: SequenceId, event: GenerationEvent) {
        self.pending.push((id, event));
    }

    /// Sends the message of this turn, if there is anything to tell.
    pub(crate) fn flush(&mut self) {
        if !self.pending.is_empty() {
            let events = std::mem::take(&mut self.pending);
            self.send(Message::Events(events));
        }
    }

    fn send(&self, message: Message) {
        // The task is gone when its runtime is or the life has failed, and then nobody listens.
        let _ignored = self.messages.send(message);
    }
}

async fn spread(mut messages: mpsc::UnboundedReceiver<Message>) {
    let mut receivers: HashMap<SequenceId, mpsc::UnboundedSender<GenerationEvent>> = HashMap::new();
    while let Some(message) = messages.recv().await {
        match message {
            Message::Register(id, events) => {
                receivers.insert(id, events);
            }
            Message::Events(events) => {
                for (id, event) in events {
                    deliver(&mut receivers, id, event);
                }
            }
        }
    }
}

fn deliver(
    receivers: &mut HashMap<SequenceId, mpsc::UnboundedSender<GenerationEvent>>,
    id: SequenceId,
    event: GenerationEvent,
) {
    let last = matches!(event, GenerationEvent::Finished { .. });
    if let Some(receiver) = receivers.get(&id) {
        // A receiver that is gone has asked for the abort already.
        let _ignored = receiver.send(event);
    }
    if last {
        receivers.remove(&id);
    }
}
