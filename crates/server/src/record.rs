//! What the audit log will say of a request.
//!
//! A record goes with its request, in clones, through all that becomes of it. The entry is handed to the log when the
//! last clone is dropped: once for each request, however it ends.

mod texts;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use backstop_audit::{AuditRecorder, Entry, Outcome, RequestEntry, TextShare};
use backstop_protocol::{ApiError, FinishReason, Usage};
use hyper::body::{Frame, SizeHint};

use self::texts::{SHARE_BYTES, add_events, bounded};
use crate::choice::Update;
use crate::identity::Identity;
use crate::routes::Access;
use crate::serve::Visit;
use crate::server::Server;

/// Headers by which gateways say why a request comes, or which of theirs it is.
const TOLD_BY_GATEWAYS: [&str; 8] = [
    "traceparent",
    "user-agent",
    "x-backstop-reason",
    "x-envoy-attempt-count",
    "x-litellm-session-id",
    "x-litellm-tags",
    "x-litellm-trace-id",
    "x-portkey-trace-id",
];
/// Characters of each that are kept.
const HEADER_CHARS_MAX: usize = 256;
/// Routes that are asked every few seconds by who looks after the server. Only refusals leave a trace.
const WATCHING: [&str; 2] = ["/backstop/status", "/metrics"];

/// What is known of a request; nothing where there is no log. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record(Option<Arc<Draft>>);

#[derive(Debug)]
struct Draft {
    log: AuditRecorder,
    arrived: Instant,
    /// An answer has no body that could be taken.
    is_head: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    entry: RequestEntry,
    share: Option<TextShare>,
    /// Nothing is to be written of it.
    is_left_out: bool,
    ended: bool,
}

impl Record {
    /// Of a request that has just come. Probes leave no trace.
    pub(crate) fn begin(server: &Server, request: &Request, identity: &Identity) -> Self {
        let log = server.config().audit_log.as_ref();
        let Some(log) = log.filter(|_| identity.rules.access != Access::Open) else {
            return Self(None);
        };
        let id = identity.id.to_str().unwrap_or_default();
        let visit = request.extensions().get::<Visit>();
        let model = server.provenance_of(identity.rules.path).model();
        let entry = RequestEntry {
            request_id: id.to_owned(),
            route: identity.rules.path,
            address: visit.map(Visit::address),
            headers: told(request.headers()),
            model: model.map(str::to_owned),
            ..RequestEntry::default()
        };
        Self(Some(Arc::new(Draft {
            log: log.clone(),
            arrived: Instant::now(),
            is_head: request.method() == Method::HEAD,
            state: Mutex::new(State {
                entry,
                share: None,
                is_left_out: false,
                ended: false,
            }),
        })))
    }

    fn change(&self, change: impl FnOnce(&mut State, Duration)) {
        if let Some(draft) = &self.0 {
            change(&mut draft.state(), draft.arrived.elapsed());
        }
    }

    /// The form of the answer, and the text of the request.
    pub(crate) fn read(&self, streamed: bool, body: &[u8]) {
        let Some(draft) = &self.0 else { return };
        let share = draft.log.text_share(SHARE_BYTES);
        let mut state = draft.state();
        state.entry.streamed = streamed;
        if draft.log.keeps_texts() {
            state.entry.texts = Some(bounded(share.as_ref().map(|_| body)));
        }
        state.share = share;
    }

    /// Tokens of its prompts.
    pub(crate) fn asked(&self, prompt_tokens: u32) {
        self.change(|state, _| state.entry.prompt_tokens = Some(prompt_tokens));
    }

    /// Its first sequence has left the queue.
    pub(crate) fn admitted(&self) {
        self.change(|state, since| state.entry.queued_s = Some(seconds(since)));
    }

    /// What is new of its answers.
    pub(crate) fn updated(&self, update: &Update) {
        self.change(|state, since| {
            let entry = &mut state.entry;
            if update.counts.generated > 0 && entry.first_token_s.is_none() {
                entry.first_token_s = Some(seconds(since));
            }
            let reason = update.end.as_ref().map(|end| named(end.reason));
            entry.finish_reasons.extend(reason);
            if let (Some(texts), Some(_)) = (&mut entry.texts, &state.share) {
                add_events(texts, update);
            }
        });
    }

    /// What its answers have come to.
    pub(crate) fn used(&self, usage: Usage) {
        self.change(|state, _| {
            let entry = &mut state.entry;
            entry.prompt_tokens = Some(usage.prompt_tokens());
            entry.cached_tokens = Some(usage.cached_tokens());
            entry.completion_tokens = Some(usage.completion_tokens());
        });
    }

    /// It was answered with an error, or failed after its head was sent.
    pub(crate) fn failed(&self, error: &ApiError) {
        self.change(|state, _| {
            state.entry.status = Some(error.status);
            state.entry.error = Some(error.code.unwrap_or(error.kind));
        });
    }

    /// Its head goes out.
    pub(crate) fn answered(&self, route: &'static str, key: Option<&str>, response: &Response) {
        let status = response.status();
        self.change(|state, _| {
            state.is_left_out = WATCHING.contains(&route) && status.is_success();
            state.entry.route = route;
            state.entry.key = key.map(str::to_owned);
            state.entry.status = Some(status.as_u16());
        });
        if let Some(error) = response.extensions().get::<ApiError>() {
            self.failed(error);
        }
    }

    /// The same response, whose end the log hears of.
    pub(crate) fn follow(self, response: Response) -> Response {
        match self.0 {
            None => response,
            Some(draft) => response.map(|body| {
                let at_end = draft.is_head;
                Body::new(Followed {
                    body,
                    at_end,
                    draft,
                })
            }),
        }
    }
}

impl Draft {
    fn state(&self) -> MutexGuard<'_, State> {
        // What is written down stays true, whatever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, outcome: Outcome) {
        let mut state = self.state();
        state.ended = true;
        state.entry.outcome = outcome;
        state.entry.total_s = seconds(self.arrived.elapsed());
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.state().ended {
            self.end(Outcome::Aborted);
        }
        let mut state = self.state();
        if state.is_left_out {
            return;
        }
        let entry = std::mem::take(&mut state.entry);
        let share = state.share.take();
        self.log.record(Entry::Request(Box::new(entry)), share);
    }
}

/// The body of an answer. Who drops it has taken all of it, or is gone.
struct Followed {
    // Before the draft, for what it holds has more to say when it is dropped.
    body: Body,
    at_end: bool,
    draft: Arc<Draft>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        let is_complete = self.at_end || self.body.is_end_stream();
        self.draft.end(match is_complete {
            true => Outcome::Complete,
            false => Outcome::Aborted,
        });
    }
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.at_end |= matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What gateways say, as far as it is harmless in a log.
fn told(headers: &HeaderMap) -> BTreeMap<&'static str, String> {
    let said = TOLD_BY_GATEWAYS.into_iter().filter_map(|name| {
        let value = String::from_utf8_lossy(headers.get(name)?.as_bytes());
        let kept = value.chars().filter(|character| !character.is_control());
        Some((name, kept.take(HEADER_CHARS_MAX).collect()))
    });
    said.collect()
}

/// As OpenAI's API has it.
fn named(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
    }
}

/// To the microsecond.
fn seconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e6
}
