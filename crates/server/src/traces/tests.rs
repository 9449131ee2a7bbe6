use std::sync::mpsc::{Sender, channel};

use axum::http::{HeaderValue, Method};
use serde_json::Value;

use super::*;
use crate::account::Facts;
use crate::exchange::Exchange;
use crate::routes::BodyUse;

const PATIENCE: Duration = Duration::from_secs(20);

/// Hands batches to a test, and fails when it is told to.
struct Recorder {
    batches: Sender<Value>,
    failure: Option<&'static str>,
    /// Nothing is exported before something comes.
    gate: Option<Receiver<()>>,
}

impl SpanExporter for Recorder {
    fn begin(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn export(&mut self, batch: &str) -> Result<(), String> {
        if let Some(gate) = self.gate.take() {
            gate.recv_timeout(PATIENCE).unwrap();
        }
        assert!(!batch.contains('\n'));
        self.batches
            .send(serde_json::from_str(batch).unwrap())
            .unwrap();
        self.failure
            .map_or(Ok(()), |failure| Err(failure.to_owned()))
    }
}

fn started(ratio: f64, change: impl FnOnce(&mut Recorder)) -> (Traces, Receiver<Value>) {
    let (batches, received) = channel();
    let mut recorder = Recorder {
        batches,
        failure: None,
        gate: None,
    };
    change(&mut recorder);
    let traces = Traces::start(Box::new(recorder), "the-service".to_owned(), ratio).unwrap();
    (traces, received)
}

fn past(trace: Option<TraceContext>) -> Past {
    Past {
        exchange: Exchange {
            method: Method::POST,
            route: "/v1/embeddings",
            body_use: BodyUse::Read,
            id: HeaderValue::from_static("id-1"),
            trace,
            peer: None,
            caller: None,
            model: Some(HeaderValue::from_static("north@0123")),
            status: 503,
            started: Instant::now(),
        },
        facts: Facts::default(),
        elapsed: Duration::from_millis(1500),
        is_whole: true,
    }
}

fn counts(traces: &Traces) -> (u64, u64) {
    let counts = traces.counts();
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    (read(&counts.exported), read(&counts.dropped))
}

#[test]
fn a_span_is_the_child_of_what_made_the_request() {
    let (traces, received) = started(0.0, |_| {});
    let parent = TraceContext {
        trace_id: 0xabc,
        span_id: 0xdef,
        sampled: true,
    };
    traces.record(past(Some(parent)));
    traces.finish(PATIENCE);
    let batch = received.try_recv().unwrap();
    let of_resource = &batch["resourceSpans"][0];
    assert!(of_resource["resource"].to_string().contains("the-service"));
    let span = &of_resource["scopeSpans"][0]["spans"][0];
    assert_eq!(span["traceId"], format!("{:032x}", 0xabc));
    assert_eq!(span["parentSpanId"], format!("{:016x}", 0xdef));
    assert_eq!(
        (&span["name"], &span["kind"]),
        (&"embeddings north".into(), &2.into())
    );
    assert_eq!(span["status"]["code"], 2);
    let time = |key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
    let took = time("endTimeUnixNano") - time("startTimeUnixNano");
    assert_eq!(took, 1_500_000_000);
    assert_eq!(counts(&traces), (1, 0));
}

#[test]
fn who_makes_a_request_decides_and_otherwise_chance() {
    let unrecorded = TraceContext {
        trace_id: 1,
        span_id: 1,
        sampled: false,
    };
    for (ratio, recorded) in [(0.0, 0), (1.0, 100)] {
        let (traces, _received) = started(ratio, |_| {});
        (0..100).for_each(|_| traces.record(past(None)));
        traces.record(past(Some(unrecorded)));
        traces.finish(PATIENCE);
        assert_eq!(counts(&traces), (recorded, 0));
    }
}

#[test]
fn what_cannot_be_exported_is_counted_and_delays_nobody() {
    let (open, gate) = sync_channel(1);
    let (traces, _received) = started(1.0, |recorder| {
        recorder.failure = Some("the collector is gone");
        recorder.gate = Some(gate);
    });
    let all = QUEUE_MAX + BATCH_MAX + 100;
    (0..all).for_each(|_| traces.record(past(None)));
    let (_, dropped) = counts(&traces);
    assert!(dropped >= 100, "{dropped}");
    open.send(()).unwrap();
    traces.finish(PATIENCE);
    assert_eq!(counts(&traces), (0, all as u64));
}
