//! What becomes of one request, gathered on its way for those who tell of it at its end.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backstop_protocol::{ApiError, Usage};

use crate::timer::Phases;

/// A request's account, which all that work on it share. It holds no text of the request's or the answer's.
#[derive(Debug, Default)]
pub(crate) struct Account(Mutex<Facts>);

/// What is known of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Token counts over all choices. Those of the prompt are known once it is accepted, the others at the end.
    pub(crate) usage: Option<Usage>,
    /// How its first choice ended, and how long the parts of that took.
    pub(crate) ended: Option<Ended>,
    /// The error that the answer was, or with which it broke off.
    pub(crate) failure: Option<Failure>,
}

/// The end of a choice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    /// A finish reason of the API's, or `abort` or `error`.
    pub(crate) reason: &'static str,
    pub(crate) phases: Phases,
    /// Whether there was a first token.
    pub(crate) began: bool,
}

/// An error as it is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    pub(crate) code: Option<&'static str>,
}

impl Ended {
    /// From the request's arrival to the first token.
    pub(crate) fn first_token(self) -> Option<Duration> {
        let Phases { queued, prompt, .. } = self.phases;
        self.began.then(|| queued + prompt)
    }
}

impl From<&ApiError> for Failure {
    fn from(error: &ApiError) -> Self {
        Self {
            status: error.status,
            code: error.code,
        }
    }
}

impl Account {
    /// The prompt's length is known.
    pub(crate) fn accepted(&self, prompt_tokens: u32) {
        self.facts().usage = Some(Usage::new(prompt_tokens, 0, 0, 0));
    }

    /// All tokens are counted.
    pub(crate) fn used(&self, usage: Usage) {
        self.facts().usage = Some(usage);
    }

    /// A choice ended. Only the first counts.
    pub(crate) fn ended(&self, ended: Ended) {
        self.facts().ended.get_or_insert(ended);
    }

    /// The answer is an error, or breaks off with one.
    pub(crate) fn failed(&self, error: &ApiError) {
        self.facts().failure = Some(error.into());
    }

    /// What is known so far.
    pub(crate) fn told(&self) -> Facts {
        self.facts().clone()
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
