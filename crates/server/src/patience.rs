//! Keeps clients whose patience is short. An answer that takes longer than an interval to begin has
//! its head sent out before it, and then a sign of life in every interval until its body follows:
//! white space before JSON, comments or pings in streams.
//!
//! Time is counted from the end of the request's body, so that waiting for a turn, preparing a
//! prompt, waiting in the queue and computing the prompt are all covered. What begins within the
//! first interval is answered as ever, errors with their status. What fails later can have no
//! status any more: the error is the body, or an event.
//!
//! The [`journey`](crate::journey) hands over what is left to do of a request once its body has come.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::response::Response;
use backstop_protocol::{ApiError, sse_error};
use futures::{StreamExt, stream};
use serde::Deserialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep};

use crate::body::BudgetedBody;
use crate::config::ServerConfig;
use crate::identity::LateFailure;
use crate::sse;

/// White space, of which JSON may have any amount before it begins.
const SPACE: &[u8] = b" ";
/// Looking at a longer body than this takes a thread of its own.
const IN_PLACE_BYTES_MAX: usize = 64 << 10;

/// How an API shows signs of life, and failures after them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Answers are streams unless the request says otherwise.
    pub(crate) streams_by_default: bool,
    /// `Content-Type` of streams.
    pub(crate) stream_type: &'static str,
    /// A sign of life in a stream that has not begun.
    pub(crate) sign: fn() -> String,
    /// A failure, as the first and last that a stream says.
    pub(crate) failure: fn(&ApiError) -> String,
}

impl Manner {
    /// Of OpenAI's streams.
    pub(crate) const OPENAI: Self = Self::events(sse::comment, sse_error);

    /// Of an API whose streams are events, and come if the request has `"stream": true`.
    pub(crate) const fn events(sign: fn() -> String, failure: fn(&ApiError) -> String) -> Self {
        Self {
            streams_by_default: false,
            stream_type: sse::CONTENT_TYPE_VALUE,
            sign,
            failure,
        }
    }
}

/// Whether an answer is a stream, which decides what its head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Whole,
    Streamed,
}

impl Form {
    /// How long clients are left without a sign of life; `None`: for as long as it takes.
    pub(crate) fn interval(self, config: &ServerConfig) -> Option<Duration> {
        match self {
            Self::Streamed => Some(config.keep_alive_interval),
            Self::Whole => config.response_keep_alive,
        }
    }
}

/// How a body wants its answer.
pub(crate) async fn form(
    body: &Arc<BudgetedBody>,
    streams_by_default: bool,
) -> Result<Form, ApiError> {
    if body.text().len() <= IN_PLACE_BYTES_MAX {
        return Ok(form_of(body.text(), streams_by_default));
    }
    let body = Arc::clone(body);
    let look = move || form_of(body.text(), streams_by_default);
    let looked = tokio::task::spawn_blocking(look).await;
    looked.map_err(|_| ApiError::internal())
}

/// What a request asks for. Of a body that is no request, its refusal says nothing of it.
fn form_of(body: &[u8], streams_by_default: bool) -> Form {
    #[derive(Deserialize)]
    struct Asked {
        stream: Option<bool>,
    }
    let asked = serde_json::from_slice::<Asked>(body).map(|asked| asked.stream);
    match asked.unwrap_or(Some(false)).unwrap_or(streams_by_default) {
        true => Form::Streamed,
        false => Form::Whole,
    }
}

/// Answers a request whose body has come, and looks after its client until the answer begins.
pub(crate) async fn keep(
    form: Form,
    interval: Option<Duration>,
    manner: Manner,
    late_failure: LateFailure,
    answering: impl Future<Output = Response> + Send + 'static,
) -> Response {
    let mut answering: Answering = Box::pin(answering);
    let Some(interval) = interval else {
        return answering.await;
    };
    tokio::select! {
        biased;
        response = &mut answering => return response,
        () = sleep(interval) => {}
    }
    let mut ticks = interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let late = LateAnswer {
        stage: Stage::Answering(answering),
        ticks,
        form,
        manner,
        late_failure,
    };
    late.respond()
}

type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

/// An answer whose head has been sent before it was there.
struct LateAnswer {
    stage: Stage,
    ticks: Interval,
    form: Form,
    manner: Manner,
    late_failure: LateFailure,
}

enum Stage {
    /// It is not there yet.
    Answering(Answering),
    /// It is there, and nothing has been sent of it.
    Beginning(BodyDataStream),
    /// Its first part has been sent, and it looks after itself.
    Going(BodyDataStream),
    Over,
}

impl LateAnswer {
    fn respond(self) -> Response {
        let kind = match self.form {
            Form::Streamed => self.manner.stream_type,
            Form::Whole => "application/json",
        };
        let first = self.sign_of_life();
        let rest = stream::unfold(self, async |mut answer| {
            answer.next().await.map(|piece| (piece, answer))
        });
        let pieces = stream::once(async move { Ok(first) }).chain(rest);
        sse::streamed(Body::from_stream(pieces), kind)
    }

    fn sign_of_life(&self) -> Bytes {
        match self.form {
            Form::Streamed => Bytes::from((self.manner.sign)()),
            Form::Whole => Bytes::from_static(SPACE),
        }
    }

    async fn next(&mut self) -> Option<Result<Bytes, axum::Error>> {
        loop {
            match &mut self.stage {
                Stage::Answering(answering) => tokio::select! {
                    biased;
                    response = answering => {
                        if let Some(failure) = self.take_in(response) {
                            return Some(Ok(failure));
                        }
                    }
                    _ = self.ticks.tick() => return Some(Ok(self.sign_of_life())),
                },
                Stage::Beginning(body) => tokio::select! {
                    biased;
                    piece = body.next() => {
                        let stage = std::mem::replace(&mut self.stage, Stage::Over);
                        if let Stage::Beginning(body) = stage {
                            self.stage = Stage::Going(body);
                        }
                        return piece;
                    }
                    _ = self.ticks.tick() => return Some(Ok(self.sign_of_life())),
                },
                Stage::Going(body) => return body.next().await,
                Stage::Over => return None,
            }
        }
    }

    /// Takes in the answer; if it is a failure, returns all that is to be said of it.
    fn take_in(&mut self, mut response: Response) -> Option<Bytes> {
        let Some(error) = response.extensions_mut().remove::<ApiError>() else {
            self.stage = Stage::Beginning(response.into_body().into_data_stream());
            return None;
        };
        self.stage = Stage::Over;
        self.late_failure.note(&error);
        Some(Bytes::from(match self.form {
            Form::Streamed => (self.manner.failure)(&error),
            Form::Whole => self.late_failure.write(&error),
        }))
    }
}

#[cfg(test)]
mod tests;
