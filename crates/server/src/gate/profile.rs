//! Admission profiles: how much may wait, and for how long, on an ordinary day and in an outage.

use std::time::Duration;

/// Which limits hold. Switched while the server runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdmissionProfile {
    /// There are others to go to: a short queue, so that a gateway goes there at once.
    #[default]
    Normal,
    /// There is nobody else: a long queue, shared equally between the keys; batch requests are
    /// refused.
    Outage,
}

impl AdmissionProfile {
    /// One word for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Outage => "outage",
        }
    }
}

/// What one profile allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Sequences that wait.
    pub max_requests: u32,
    /// Longest wait before a request is answered 503.
    pub timeout: Duration,
    /// Longest answer to a request that does not say how long it may be.
    pub default_max_tokens: Option<u32>,
}

impl QueueLimits {
    /// Limits of an ordinary day.
    pub const NORMAL: Self = Self {
        max_requests: 128,
        timeout: Duration::from_secs(30),
        default_max_tokens: None,
    };

    /// Limits of an outage. The wait stays below the ten minutes for which the usual clients hold
    /// out.
    pub const OUTAGE: Self = Self {
        max_requests: 1024,
        timeout: Duration::from_secs(300),
        default_max_tokens: None,
    };
}
