//! Who a request is from, and what it takes from its sender's limits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use backstop_protocol::ApiError;

use super::file::KeySettings;
use super::tenant::{KeyLimit, LimitState, RequestSlot, Tenant};

/// Names of the headers that tell a client its limits, as OpenAI names them.
pub(crate) const LIMIT_HEADER_NAMES: [[HeaderName; 3]; 2] = [
    [
        HeaderName::from_static("x-ratelimit-limit-requests"),
        HeaderName::from_static("x-ratelimit-remaining-requests"),
        HeaderName::from_static("x-ratelimit-reset-requests"),
    ],
    [
        HeaderName::from_static("x-ratelimit-limit-tokens"),
        HeaderName::from_static("x-ratelimit-remaining-tokens"),
        HeaderName::from_static("x-ratelimit-reset-tokens"),
    ],
];

/// The holder of the key that came with a request, or everybody where there are no keys.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    settings: Arc<KeySettings>,
    tenant: Arc<Tenant>,
}

impl Caller {
    pub(super) fn new(tenant: Arc<Tenant>, settings: KeySettings) -> Self {
        Self {
            settings: Arc::new(settings),
            tenant,
        }
    }

    /// Everybody, without limits.
    pub(crate) fn anybody() -> Self {
        Self::new(Tenant::new(), KeySettings::default())
    }

    /// Whoever may reach into the process itself, and so sees everything.
    pub(crate) fn operator() -> Self {
        let settings = KeySettings {
            may_see_all_keys: true,
            ..KeySettings::default()
        };
        Self::new(Tenant::new(), settings)
    }

    pub(crate) fn settings(&self) -> &KeySettings {
        &self.settings
    }

    pub(crate) fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.settings.name.as_deref()
    }

    /// Whether what another did may be shown to this one; `None` is somebody whom no key let in.
    pub(crate) fn may_see(&self, other: Option<&Self>) -> bool {
        self.settings.may_see_all_keys
            || other.is_some_and(|other| other.tenant.id == self.tenant.id)
    }

    /// Counts a request against the caller's limits.
    pub(crate) fn begin(&self) -> Result<Ticket, ApiError> {
        let begun = self.tenant.begin(&self.settings, Instant::now());
        let slot = begun.map_err(|(limit, wait)| refusal(limit, wait))?;
        Ok(Ticket(Arc::new(Issued {
            caller: self.clone(),
            slot,
        })))
    }

    /// Gives back a request that was refused for want of room, or by a fault of the server's.
    pub(crate) fn refund_unless_at_fault(&self, status: u16) {
        if matches!(status, 429 | 500..) {
            self.tenant.refund_request();
        }
    }

    /// Tells the caller's limits, as far as there are any.
    pub(crate) fn tell_limits(&self, headers: &mut HeaderMap) {
        let states = self.tenant.limits(&self.settings, Instant::now());
        for (names, state) in LIMIT_HEADER_NAMES.into_iter().zip(states) {
            let Some(LimitState {
                limit,
                remaining,
                reset,
            }) = state
            else {
                continue;
            };
            let [limit_name, remaining_name, reset_name] = names;
            headers.insert(limit_name, HeaderValue::from(limit));
            headers.insert(remaining_name, HeaderValue::from(remaining));
            if let Ok(reset) = HeaderValue::from_str(&go_duration(reset)) {
                headers.insert(reset_name, reset);
            }
        }
    }
}

/// A request that was counted against its caller's limits, until the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Ticket(Arc<Issued>);

#[derive(Debug)]
struct Issued {
    caller: Caller,
    slot: RequestSlot,
}

impl Ticket {
    pub(crate) fn caller(&self) -> &Caller {
        &self.0.caller
    }

    /// Whether the caller has any tokens left, before work is done to count those of a request.
    pub(crate) fn check_tokens(&self) -> Result<(), ApiError> {
        self.charge_prompt(1).map(drop)
    }

    /// Takes tokens from the caller's limit that were counted and are not computed. They may leave
    /// a debt, for the work is done.
    pub(crate) fn charge_counted(&self, tokens: u32) {
        self.caller().tenant().charge_counted(tokens);
    }

    /// Takes a prompt's tokens from the caller's limit. They come back unless they are kept.
    pub(crate) fn charge_prompt(&self, tokens: u32) -> Result<TokenCharge, ApiError> {
        let Caller { settings, tenant } = self.caller();
        tenant
            .charge_prompt(settings, tokens, Instant::now())
            .map_err(|wait| refusal(KeyLimit::Tokens, wait))?;
        Ok(TokenCharge {
            ticket: self.clone(),
            tokens,
        })
    }
}

/// Tokens of a prompt whose request has not been accepted yet.
#[derive(Debug)]
pub(crate) struct TokenCharge {
    ticket: Ticket,
    tokens: u32,
}

impl TokenCharge {
    /// The engine took the request.
    pub(crate) fn keep(mut self) {
        let tokens = std::mem::take(&mut self.tokens);
        let tenant = self.ticket.caller().tenant();
        tenant
            .prompt_tokens
            .fetch_add(u64::from(tokens), Ordering::Relaxed);
        self.ticket.0.slot.started();
    }
}

impl Drop for TokenCharge {
    fn drop(&mut self) {
        self.ticket.caller().tenant().refund_prompt(self.tokens);
    }
}

fn refusal(limit: KeyLimit, wait: Duration) -> ApiError {
    // The error table has the last word on the bounds.
    let retry_after_s = u32::try_from(wait.as_secs()).map_or(u32::MAX, |s| s.saturating_add(1));
    match limit {
        KeyLimit::Requests => ApiError::key_requests_used(retry_after_s),
        KeyLimit::Tokens => ApiError::key_tokens_used(retry_after_s),
        KeyLimit::Concurrency => ApiError::key_concurrency_used(retry_after_s),
    }
}

/// A time as OpenAI's headers write it: `6m0s`, `1.2s`, `20ms`.
fn go_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let (minutes, rest) = (milliseconds / 60_000, milliseconds % 60_000);
    match (minutes, rest) {
        (0, 1..1000) => format!("{rest}ms"),
        (0, _) => format!("{}s", rest as f64 / 1000.0),
        (_, _) => format!("{minutes}m{}s", rest as f64 / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_openai_writes_them() {
        let written = |ms| go_duration(Duration::from_millis(ms));
        assert_eq!(written(0), "0s");
        assert_eq!(written(20), "20ms");
        assert_eq!(written(1200), "1.2s");
        assert_eq!(written(360_000), "6m0s");
        assert_eq!(written(61_500), "1m1.5s");
    }

    #[test]
    fn counted_tokens_may_leave_a_debt_which_keeps_out_what_follows() {
        let settings = KeySettings {
            tokens_per_minute: Some(60),
            ..KeySettings::default()
        };
        let ticket = Caller::new(Tenant::new(), settings).begin().unwrap();
        ticket.check_tokens().unwrap();
        ticket.charge_counted(1000);
        let error = ticket.check_tokens().unwrap_err();
        assert_eq!(
            (error.status, error.code),
            (429, Some("rate_limit_exceeded"))
        );
        let tenant = ticket.caller().tenant();
        assert_eq!(tenant.prompt_tokens.load(Ordering::Relaxed), 0);
        let unlimited = Caller::anybody().begin().unwrap();
        unlimited.charge_counted(u32::MAX);
        unlimited.check_tokens().unwrap();
    }

    #[test]
    fn a_prompt_that_was_not_computed_costs_nothing() {
        let settings = KeySettings {
            tokens_per_minute: Some(100),
            ..KeySettings::default()
        };
        let ticket = Caller::new(Tenant::new(), settings).begin().unwrap();
        drop(ticket.charge_prompt(100).unwrap());
        ticket.charge_prompt(100).unwrap().keep();
        let error = ticket.charge_prompt(50).unwrap_err();
        assert_eq!((error.status, error.retry_after_s), (429, Some(30)));
        let tenant = ticket.caller().tenant();
        assert_eq!(tenant.prompt_tokens.load(Ordering::Relaxed), 100);
    }
}
