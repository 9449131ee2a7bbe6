//! All choices of one request while they are generated: hands on their updates as they come.

use std::pin::Pin;

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use backstop_protocol::{ApiError, Usage};
use futures::stream::{self, BoxStream, SelectAll, StreamExt};
use serde::Serialize;
use tokio::time::{Sleep, sleep_until};

use crate::choice::{Choice, Counts, Update};
use crate::in_flight::RequestGuard;
use crate::job::{Job, Prompt};
use crate::journey::Admitted;
use crate::reply;
use crate::server::Server;

/// Names what the answer's schemas say and no grammar can enforce.
const NOT_ENFORCED: HeaderName = HeaderName::from_static("x-backstop-not-enforced");

/// The choices of a request in progress. Dropping it aborts them.
pub(crate) struct Answer {
    updates: SelectAll<BoxStream<'static, Result<Update, ApiError>>>,
    /// One timer for all updates: to begin one for each would take a lock of the runtime's twice
    /// for every token.
    deadline: Pin<Box<Sleep>>,
    tally: Tally,
    /// What the request's schemas say and no grammar enforces.
    not_enforced: Option<String>,
    guard: RequestGuard,
}

impl Answer {
    pub(crate) fn new(admitted: Admitted) -> Self {
        let Admitted {
            in_flight,
            job,
            choices,
            not_enforced,
        } = admitted;
        let tally = Tally::new(&job, &choices);
        let updates = choices.into_iter().map(|choice| {
            let next = async |mut choice: Choice| choice.next().await.map(|item| (item, choice));
            stream::unfold(choice, next).boxed()
        });
        Self {
            updates: stream::select_all(updates),
            deadline: Box::pin(sleep_until(in_flight.deadline())),
            tally,
            not_enforced,
            guard: in_flight.guard,
        }
    }

    /// The next update of any choice; `None` after the last one of all.
    pub(crate) async fn next(&mut self) -> Option<Result<Update, ApiError>> {
        let next = tokio::select! {
            biased;
            next = self.updates.next() => next,
            () = &mut self.deadline => Some(Err(self.guard.server.deadline_exceeded())),
        };
        match &next {
            Some(Ok(update)) => {
                self.tally.choices[update.index] = update.counts;
                self.guard.record.updated(update);
            }
            Some(Err(error)) => self.guard.record.failed(error),
            None => {}
        }
        next
    }

    /// The server that gives it.
    pub(crate) fn server(&self) -> &Server {
        &self.guard.server
    }

    /// Says in a response what the answer is not held to.
    pub(crate) fn annotation(&self) -> impl FnOnce(Response) -> Response + use<> {
        let note = self.not_enforced.as_deref().map(HeaderValue::from_str);
        move |mut response| {
            if let Some(Ok(note)) = note {
                response.headers_mut().insert(NOT_ENFORCED, note);
            }
            response
        }
    }

    /// The response that gives all of it.
    pub(crate) fn reply(&self, whole: &impl Serialize) -> Response {
        self.annotation()(reply::json(StatusCode::OK, whole))
    }

    /// Token counts over all choices so far.
    pub(crate) fn usage(&self) -> Usage {
        self.tally.usage()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.guard.record.used(self.usage());
    }
}

/// Adds up token counts.
#[derive(Debug)]
struct Tally {
    /// Tokens of each prompt.
    prompts: Vec<u32>,
    /// Counts of each choice, by index.
    choices: Vec<Counts>,
}

impl Tally {
    /// Of choices of which the first has left the queue.
    fn new(job: &Job, choices: &[Choice]) -> Self {
        let mut counts = vec![Counts::default(); job.sequences()];
        if let (Some(counts), Some(first)) = (counts.first_mut(), choices.first()) {
            *counts = first.counts();
        }
        Self {
            prompts: job.prompts.iter().map(Prompt::length).collect(),
            choices: counts,
        }
    }

    /// A prompt counts once, however many choices answer it.
    fn usage(&self) -> Usage {
        let choices_per_prompt = (self.choices.len() / self.prompts.len().max(1)).max(1);
        let parts = self.choices.iter().enumerate().map(|(index, counts)| {
            let first = index % choices_per_prompt == 0;
            let prompt = if first {
                self.prompts[index / choices_per_prompt]
            } else {
                0
            };
            let cached = if first { counts.cached } else { 0 };
            Usage::new(prompt, cached, counts.generated, counts.reasoning)
        });
        parts.reduce(Usage::plus).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_counts_once_and_choices_each() {
        let counts = |cached, generated, reasoning| Counts {
            cached,
            generated,
            reasoning,
        };
        let tally = Tally {
            prompts: vec![10, 20],
            choices: vec![
                counts(4, 1, 0),
                counts(9, 2, 1),
                counts(5, 3, 0),
                counts(9, 4, 2),
            ],
        };
        assert_eq!(tally.usage(), Usage::new(30, 9, 10, 3));
    }
}
