//! Traces: one span for each request that may use a model, handed on in batches as OpenTelemetry's protocol has them.
//!
//! The server connects to nobody. Batches go to a [`SpanExporter`], which `backstop serve` makes a process of its own.
//! Requests wait for nothing: what finds the queue full is dropped and counted.

mod batch;
mod span;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use self::batch::Batch;
use crate::entropy::random_u64;
use crate::exchange::Past;
use crate::trace_context::TraceContext;

/// Exchanges that wait to be exported.
const QUEUE_MAX: usize = 2048;
/// Spans in a batch.
const BATCH_MAX: usize = 512;
/// How long a batch waits for more.
const BATCH_TIME: Duration = Duration::from_secs(1);

/// Carries spans to a collector.
pub trait SpanExporter: Send {
    /// Waits until it can carry anything.
    ///
    /// # Errors
    ///
    /// Why it never can.
    fn begin(&mut self) -> Result<(), String>;

    /// Carries a batch, which is one line: an `ExportTraceServiceRequest` of OTLP as JSON.
    ///
    /// # Errors
    ///
    /// Why the batch is lost.
    fn export(&mut self, batch: &str) -> Result<(), String>;
}

/// What is recorded of requests.
#[derive(Debug)]
pub struct Traces {
    queue: SyncSender<Message>,
    counts: Arc<Counts>,
    sample_ratio: f64,
}

/// What became of spans.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) exported: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

enum Message {
    Over {
        past: Box<Past>,
        at: SystemTime,
    },
    /// Nothing follows; what is sent back says that all before has been exported.
    End(SyncSender<()>),
}

impl Traces {
    /// Begins to export spans of a service of this name, on a thread of its own. Of the requests that do not say
    /// themselves whether they are recorded, so many are, from none (0) to all (1).
    ///
    /// # Errors
    ///
    /// If there can be no thread.
    pub fn start(
        exporter: Box<dyn SpanExporter>,
        service_name: String,
        sample_ratio: f64,
    ) -> io::Result<Self> {
        let (queue, messages) = sync_channel(QUEUE_MAX);
        let counts = Arc::<Counts>::default();
        let thread = Exporting {
            messages,
            exporter,
            service_name,
            counts: Arc::clone(&counts),
            failing: false,
        };
        std::thread::Builder::new()
            .name("traces".to_owned())
            .spawn(move || thread.run())?;
        Ok(Self {
            queue,
            counts,
            sample_ratio,
        })
    }

    /// Waits, within limits, until everything so far has been exported. Blocks.
    pub fn finish(&self, limit: Duration) {
        let (done, is_done) = sync_channel(1);
        let deadline = Instant::now() + limit;
        while let Err(TrySendError::Full(_)) = self.queue.try_send(Message::End(done.clone())) {
            if Instant::now() > deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // Late, or gone: what is left is lost.
        let _ignored = is_done.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }

    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Takes note of an exchange that is over, if it is to be recorded.
    pub(crate) fn record(&self, past: Past) {
        if !self.is_wanted(past.exchange.trace) {
            return;
        }
        let message = Message::Over {
            past: Box::new(past),
            at: SystemTime::now(),
        };
        if self.queue.try_send(message).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Who made a request decides for it; otherwise chance does.
    fn is_wanted(&self, parent: Option<TraceContext>) -> bool {
        match parent {
            Some(parent) => parent.sampled,
            None => (random_u64() as f64) < self.sample_ratio * u64::MAX as f64,
        }
    }
}

/// The thread that makes batches.
struct Exporting {
    messages: Receiver<Message>,
    exporter: Box<dyn SpanExporter>,
    service_name: String,
    counts: Arc<Counts>,
    /// The last batch was lost, which has been said.
    failing: bool,
}

impl Exporting {
    fn run(mut self) {
        if let Err(reason) = self.exporter.begin() {
            tracing::error!("no traces are exported: {reason}");
            self.failing = true;
        }
        while let Ok(first) = self.messages.recv() {
            let (batch, end) = self.gather(first);
            if batch.len() > 0 {
                self.export(&batch);
            }
            if let Some(end) = end {
                // Nobody waits any more.
                let _ignored = end.try_send(());
            }
        }
    }

    /// What comes within a moment.
    fn gather(&self, first: Message) -> (Batch, Option<SyncSender<()>>) {
        let mut batch = Batch::new(&self.service_name);
        let deadline = Instant::now() + BATCH_TIME;
        let mut next = Ok(first);
        loop {
            match next {
                Ok(Message::Over { past, at }) => batch.add(&past, at),
                Ok(Message::End(done)) => return (batch, Some(done)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return (batch, None);
                }
            }
            if batch.len() == BATCH_MAX {
                return (batch, None);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            next = self.messages.recv_timeout(left);
        }
    }

    fn export(&mut self, batch: &Batch) {
        let spans = batch.len() as u64;
        let outcome = self.exporter.export(&batch.to_line());
        let count = match &outcome {
            Ok(()) => &self.counts.exported,
            Err(_) => &self.counts.dropped,
        };
        count.fetch_add(spans, Ordering::Relaxed);
        match outcome {
            Ok(()) if self.failing => tracing::info!("traces are exported again"),
            Err(ref reason) if !self.failing => tracing::warn!("traces are lost: {reason}"),
            _ => {}
        }
        self.failing = outcome.is_err();
    }
}

#[cfg(test)]
mod tests;
