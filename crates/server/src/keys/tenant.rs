//! What the holder of a key has used: limits, requests at once, and counts for the metrics.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::bucket::TokenBucket;
use super::file::KeySettings;

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// The holder of one or several keys. It outlives changes of the key file.
#[derive(Debug)]
pub(crate) struct Tenant {
    /// Different for every tenant of the process.
    pub(crate) id: u64,
    usage: Mutex<Usage>,
    in_flight: AtomicU32,
    pub(crate) requests: AtomicU64,
    pub(crate) prompt_tokens: AtomicU64,
    /// Counted here at every token, without a lock, and taken from the limit at the next request.
    pub(crate) generated_tokens: AtomicU64,
}

#[derive(Debug, Default)]
struct Usage {
    requests: TokenBucket,
    tokens: TokenBucket,
    generated_charged: u64,
    /// Running mean of how long a request takes, in seconds.
    mean_request_s: Option<f64>,
}

/// Weight of the latest request in their mean duration.
const LATEST_WEIGHT: f64 = 0.1;

/// A limit that a key has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyLimit {
    Requests,
    Tokens,
    Concurrency,
}

/// A limit as `x-ratelimit-*` headers tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitState {
    pub(crate) limit: u32,
    pub(crate) remaining: u32,
    pub(crate) reset: Duration,
}

impl Tenant {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            usage: Mutex::default(),
            in_flight: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            prompt_tokens: AtomicU64::new(0),
            generated_tokens: AtomicU64::new(0),
        })
    }

    /// Requests that have not ended.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a request in, or says which limit it is over and how long that is going to last.
    pub(super) fn begin(
        self: &Arc<Self>,
        settings: &KeySettings,
        now: Instant,
    ) -> Result<RequestSlot, (KeyLimit, Duration)> {
        // First in, then compared: of two that come at once at most one too many is refused.
        let slot = RequestSlot::new(Arc::clone(self), now);
        let mut usage = self.usage();
        if let Some(most) = settings.max_concurrent_requests
            && self.in_flight() > most
        {
            // One of `most` requests ends after this time on average.
            let mean_s = usage.mean_request_s.unwrap_or(1.0) / f64::from(most);
            let wait = Duration::try_from_secs_f64(mean_s).unwrap_or(Duration::MAX);
            return Err((KeyLimit::Concurrency, wait));
        }
        if let Some(limit) = settings.requests_per_minute {
            let taken = usage.requests.take(now, 1, limit, limit);
            taken.map_err(|wait| (KeyLimit::Requests, wait))?;
        }
        drop(usage);
        self.requests.fetch_add(1, Ordering::Relaxed);
        Ok(slot)
    }

    /// Gives back a request that was refused for no fault of its sender.
    pub(super) fn refund_request(&self) {
        self.usage().requests.refund(1);
    }

    /// Takes the tokens of a prompt, or says how long they are not going to be there.
    pub(super) fn charge_prompt(
        &self,
        settings: &KeySettings,
        tokens: u32,
        now: Instant,
    ) -> Result<(), Duration> {
        let mut usage = self.usage_with_generated();
        match settings.tokens_per_minute {
            Some(limit) => usage.tokens.take(now, tokens, limit, limit),
            None => Ok(()),
        }
    }

    /// Takes tokens that were counted already.
    pub(super) fn charge_counted(&self, tokens: u32) {
        self.usage().tokens.charge(u64::from(tokens));
    }

    /// Gives back the tokens of a prompt that was not computed.
    pub(super) fn refund_prompt(&self, tokens: u32) {
        self.usage().tokens.refund(tokens);
    }

    /// The limits on requests and on tokens, as far as there are any.
    pub(super) fn limits(&self, settings: &KeySettings, now: Instant) -> [Option<LimitState>; 2] {
        let mut usage = self.usage_with_generated();
        let state = |bucket: &mut TokenBucket, limit| {
            let (remaining, reset) = bucket.state(now, limit);
            LimitState {
                limit,
                remaining,
                reset,
            }
        };
        let Usage {
            requests, tokens, ..
        } = &mut *usage;
        [
            settings
                .requests_per_minute
                .map(|limit| state(requests, limit)),
            settings.tokens_per_minute.map(|limit| state(tokens, limit)),
        ]
    }

    fn usage_with_generated(&self) -> MutexGuard<'_, Usage> {
        let mut usage = self.usage();
        let generated = self.generated_tokens.load(Ordering::Relaxed);
        let new = generated - usage.generated_charged;
        usage.generated_charged = generated;
        usage.tokens.charge(new);
        usage
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        // Numbers stay valid whatever panicked.
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request among those that its tenant has at once.
#[derive(Debug)]
pub(super) struct RequestSlot {
    tenant: Arc<Tenant>,
    began: Instant,
    /// The engine took it: only then its duration tells something.
    started: AtomicBool,
}

impl RequestSlot {
    fn new(tenant: Arc<Tenant>, began: Instant) -> Self {
        tenant.in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            tenant,
            began,
            started: AtomicBool::new(false),
        }
    }

    pub(super) fn started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }
}

impl Drop for RequestSlot {
    fn drop(&mut self) {
        self.tenant.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.started.load(Ordering::Relaxed) {
            let seconds = self.began.elapsed().as_secs_f64();
            let mut usage = self.tenant.usage();
            let mean = usage.mean_request_s.unwrap_or(seconds);
            usage.mean_request_s = Some(mean + LATEST_WEIGHT * (seconds - mean));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(requests: Option<u32>, tokens: Option<u32>, at_once: Option<u32>) -> KeySettings {
        KeySettings {
            requests_per_minute: requests,
            tokens_per_minute: tokens,
            max_concurrent_requests: at_once,
            ..KeySettings::default()
        }
    }

    #[test]
    fn requests_at_once_are_bounded_and_given_back() {
        let (tenant, now) = (Tenant::new(), Instant::now());
        let settings = limited(None, None, Some(2));
        let first = tenant.begin(&settings, now).unwrap();
        let _second = tenant.begin(&settings, now).unwrap();
        let (limit, _) = tenant.begin(&settings, now).unwrap_err();
        assert_eq!(limit, KeyLimit::Concurrency);
        drop(first);
        assert!(tenant.begin(&settings, now).is_ok());
        assert_eq!(tenant.in_flight(), 1);
    }

    #[test]
    fn refused_requests_are_refunded() {
        let (tenant, now) = (Tenant::new(), Instant::now());
        let settings = limited(Some(1), None, None);
        assert!(tenant.begin(&settings, now).is_ok());
        let (limit, wait) = tenant.begin(&settings, now).unwrap_err();
        assert_eq!((limit, wait), (KeyLimit::Requests, Duration::from_secs(60)));
        tenant.refund_request();
        assert!(tenant.begin(&settings, now).is_ok());
        assert_eq!(tenant.in_flight(), 0);
    }

    #[test]
    fn generated_tokens_count_like_those_of_prompts() {
        let (tenant, now) = (Tenant::new(), Instant::now());
        let settings = limited(None, Some(60), None);
        assert_eq!(tenant.charge_prompt(&settings, 20, now), Ok(()));
        tenant.generated_tokens.fetch_add(50, Ordering::Relaxed);
        let wait = tenant.charge_prompt(&settings, 1, now).unwrap_err();
        assert_eq!(wait, Duration::from_secs(11));
        tenant.refund_prompt(20);
        assert_eq!(tenant.charge_prompt(&settings, 10, now), Ok(()));
        let [requests, tokens] = tenant.limits(&settings, now);
        assert_eq!(requests, None);
        let tokens = tokens.unwrap();
        assert_eq!((tokens.limit, tokens.remaining), (60, 0));
        assert_eq!(tokens.reset, Duration::from_secs(60));
    }
}
