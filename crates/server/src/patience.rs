//! Keeps clients whose patience is short. An answer that takes longer than an interval to begin has
//! its head sent out before it, and then a sign of life in every interval until its body follows:
//! white space before JSON, comments or pings in streams.
//!
//! Time is counted from the end of the request's body, so that waiting for a turn, preparing a
//! prompt, waiting in the queue and computing the prompt are all covered. What begins within the
//! first interval is answered as ever, errors with their status. What fails later can have no
//! status any more: the error is the body, or an event.
//!
//! Everything here stands before the routes, which need not know of it: a route has its clients
//! kept by a [`Manner`] in the table of routes.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;
use backstop_protocol::ApiError;
use futures::{StreamExt, stream};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep};

use crate::body::BudgetedBody;
use crate::sse;

/// White space, of which JSON may have any amount before it begins.
const SPACE: &str = " ";
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

/// How long clients are left without a sign of life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Intervals {
    pub(crate) streamed: Duration,
    /// `None`: for as long as it takes.
    pub(crate) whole: Option<Duration>,
}

/// Whether an answer is a stream, which decides what its head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Whole,
    Streamed,
}

/// Tells whoever looks after the client that a request's body has come; travels in the request's
/// extensions.
#[derive(Clone, Debug)]
pub(crate) struct BodyWatch {
    streams_by_default: bool,
    form: watch::Sender<Option<Form>>,
}

impl BodyWatch {
    /// Looks at a body that has come, and hands it back.
    pub(crate) async fn look(&self, body: BudgetedBody) -> Result<BudgetedBody, ApiError> {
        let default = self.streams_by_default;
        let (form, body) = if body.text().len() <= IN_PLACE_BYTES_MAX {
            (form_of(body.text(), default), body)
        } else {
            let look = move || (form_of(body.text(), default), body);
            let looked = tokio::task::spawn_blocking(look).await;
            looked.map_err(|_| ApiError::internal())?
        };
        self.form.send_replace(Some(form));
        Ok(body)
    }
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

/// What becomes of a failure that is too late for a status.
pub(crate) struct LateFailure {
    /// Writes it where the answer is not streamed.
    pub(crate) write: WriteFailure,
    /// Takes note of it.
    pub(crate) note: Box<dyn FnMut(&ApiError) + Send>,
}

pub(crate) type WriteFailure = Box<dyn Fn(&ApiError) -> String + Send>;

/// Answers a request by `respond`, and looks after its client until the answer begins.
pub(crate) async fn keep<F>(
    intervals: Intervals,
    manner: Manner,
    late_failure: LateFailure,
    mut request: Request,
    respond: impl FnOnce(Request) -> F,
) -> Response
where
    F: Future<Output = Response> + Send + 'static,
{
    let (form, mut told) = watch::channel(None);
    request.extensions_mut().insert(BodyWatch {
        streams_by_default: manner.streams_by_default,
        form,
    });
    let mut answering: Answering = Box::pin(respond(request));
    let form = tokio::select! {
        biased;
        response = &mut answering => return response,
        form = body_came(&mut told) => form,
    };
    let interval = match form {
        Form::Streamed => intervals.streamed,
        Form::Whole => match intervals.whole {
            Some(interval) => interval,
            None => return answering.await,
        },
    };
    tokio::select! {
        biased;
        response = &mut answering => return response,
        () = sleep(interval) => {}
    }
    let LateFailure { write, note } = late_failure;
    let (kind, sign, write) = match form {
        Form::Streamed => (
            manner.stream_type,
            manner.sign,
            Box::new(manner.failure) as _,
        ),
        Form::Whole => ("application/json", space as fn() -> String, write),
    };
    let mut ticks = interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let late = LateAnswer {
        stage: Stage::Answering(answering),
        ticks,
        sign,
        write,
        note,
    };
    late.respond(kind)
}

fn space() -> String {
    SPACE.to_owned()
}

/// Waits until a body has come. One that never comes is answered without it.
async fn body_came(told: &mut watch::Receiver<Option<Form>>) -> Form {
    let form = told.wait_for(Option::is_some).await.map(|form| *form);
    match form {
        Ok(Some(form)) => form,
        _ => std::future::pending().await,
    }
}

type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

/// An answer whose head has been sent before it was there.
struct LateAnswer {
    stage: Stage,
    ticks: Interval,
    sign: fn() -> String,
    write: WriteFailure,
    note: Box<dyn FnMut(&ApiError) + Send>,
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
    fn respond(self, kind: &'static str) -> Response {
        let first = self.sign_of_life();
        let rest = stream::unfold(self, async |mut answer| {
            answer.next().await.map(|piece| (piece, answer))
        });
        let pieces = stream::once(async move { Ok(first) }).chain(rest);
        let mut response = Response::new(Body::from_stream(pieces));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        let (name, value) = sse::NO_BUFFERING;
        headers.insert(name, value);
        response
    }

    fn sign_of_life(&self) -> Bytes {
        Bytes::from((self.sign)())
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
        (self.note)(&error);
        Some(Bytes::from((self.write)(&error)))
    }
}

#[cfg(test)]
mod tests;
