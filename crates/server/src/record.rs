//! What will be told of a request, when it is over.
//!
//! A record goes with its request, in clones, through all that becomes of it. The audit log's entry is handed to it when
//! the last clone is dropped: once for each request, however it ends. What others tell is in the record's account, and
//! the [exchange](crate::exchange) says when.

mod texts;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::Response;
use backstop_audit::{AuditRecorder, Entry, Outcome, RequestEntry, TextShare};
use backstop_protocol::{ApiError, Usage};

use self::texts::{SHARE_BYTES, add_events, bounded};
use crate::account::Account;
use crate::choice::Update;
use crate::identity::Identity;
use crate::routes::Access;
use crate::serve::Peer;
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

/// What is known of a request. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    account: Arc<Account>,
    /// Absent where there is no audit log.
    draft: Option<Arc<Draft>>,
}

#[derive(Debug)]
struct Draft {
    log: AuditRecorder,
    arrived: Instant,
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
            return Self::default();
        };
        let id = identity.id.to_str().unwrap_or_default();
        let peer = request.extensions().get::<Peer>();
        let model = server.provenance_of(identity.rules.path).model();
        let entry = RequestEntry {
            request_id: id.to_owned(),
            route: identity.rules.path,
            address: peer.and_then(Peer::ip),
            certificate: peer
                .and_then(|peer| peer.certificate.as_deref())
                .map(str::to_owned),
            headers: told(request.headers()),
            model: model.map(str::to_owned),
            ..RequestEntry::default()
        };
        let draft = Draft {
            log: log.clone(),
            arrived: Instant::now(),
            state: Mutex::new(State {
                entry,
                share: None,
                is_left_out: false,
                ended: false,
            }),
        };
        Self {
            account: Arc::default(),
            draft: Some(Arc::new(draft)),
        }
    }

    /// What others than the audit log tell.
    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    fn change(&self, change: impl FnOnce(&mut State, Duration)) {
        if let Some(draft) = &self.draft {
            change(&mut draft.state(), draft.arrived.elapsed());
        }
    }

    /// The form of the answer, and the text of the request.
    pub(crate) fn read(&self, streamed: bool, body: &[u8]) {
        let Some(draft) = &self.draft else { return };
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
        self.account.accepted(prompt_tokens);
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
            let reason = update.end.as_ref().map(|end| end.reason.name());
            entry.finish_reasons.extend(reason);
            if let (Some(texts), Some(_)) = (&mut entry.texts, &state.share) {
                add_events(texts, update);
            }
        });
    }

    /// What its answers have come to.
    pub(crate) fn used(&self, usage: Usage) {
        self.account.used(usage);
        self.change(|state, _| {
            let entry = &mut state.entry;
            entry.prompt_tokens = Some(usage.prompt_tokens());
            entry.cached_tokens = Some(usage.cached_tokens());
            entry.completion_tokens = Some(usage.completion_tokens());
        });
    }

    /// It was answered with an error, or failed after its head was sent.
    pub(crate) fn failed(&self, error: &ApiError) {
        self.account.failed(error);
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

    /// It is over; all of the answer has been taken, or its client is gone.
    pub(crate) fn end(&self, is_whole: bool) {
        if let Some(draft) = &self.draft {
            draft.end(match is_whole {
                true => Outcome::Complete,
                false => Outcome::Aborted,
            });
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

/// What gateways say, as far as it is harmless in a log.
fn told(headers: &HeaderMap) -> BTreeMap<&'static str, String> {
    let said = TOLD_BY_GATEWAYS.into_iter().filter_map(|name| {
        let value = String::from_utf8_lossy(headers.get(name)?.as_bytes());
        let kept = value.chars().filter(|character| !character.is_control());
        Some((name, kept.take(HEADER_CHARS_MAX).collect()))
    });
    said.collect()
}

/// To the microsecond.
fn seconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e6
}
