//! A request and its answer from the outside: known as a whole when the last byte of the answer has gone, or when
//! nobody wants it any more. That is the one place where it is told what became of a request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, Method};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

use crate::access_log;
use crate::account::{Facts, Failure};
use crate::keys::Caller;
use crate::record::Record;
use crate::routes::BodyUse;
use crate::serve::Peer;
use crate::server::Server;
use crate::trace_context::TraceContext;

/// What is known of a request and its answer when the answer's head goes out.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) method: Method,
    /// What metrics call it.
    pub(crate) route: &'static str,
    pub(crate) body_use: BodyUse,
    pub(crate) id: HeaderValue,
    pub(crate) trace: Option<TraceContext>,
    /// Absent where the server has no sockets of its own.
    pub(crate) peer: Option<Peer>,
    /// Absent if the request was let in by no check.
    pub(crate) caller: Option<Caller>,
    /// Which model answers, as `NAME@DIGEST`.
    pub(crate) model: Option<HeaderValue>,
    pub(crate) status: u16,
    pub(crate) started: Instant,
}

/// An exchange that is over.
#[derive(Debug)]
pub(crate) struct Past {
    pub(crate) exchange: Exchange,
    pub(crate) facts: Facts,
    pub(crate) elapsed: Duration,
    /// Whether all of the answer was taken; otherwise its client went away, or had to.
    pub(crate) is_whole: bool,
}

impl Exchange {
    /// The name of the caller's key.
    pub(crate) fn key(&self) -> Option<&str> {
        self.caller.as_ref().and_then(Caller::name)
    }

    /// Whose certificate the client has shown.
    pub(crate) fn client_name(&self) -> Option<&str> {
        self.peer.as_ref()?.certificate.as_deref()
    }

    /// The name of the model that answers.
    pub(crate) fn model_name(&self) -> Option<&str> {
        let model = self.model.as_ref()?.to_str().ok()?;
        model.split('@').next()
    }

    /// Where the request came from.
    pub(crate) fn client_ip(&self) -> Option<String> {
        let address = self.peer.as_ref()?.ip()?;
        Some(address.to_string())
    }

    /// The same answer, which is followed to its end. The work on it goes on behind the head, and tells the record.
    pub(crate) fn follow(self, response: Response, record: Record, server: Server) -> Response {
        response.map(|body| {
            Body::new(Followed {
                body,
                at_end: self.method == Method::HEAD,
                exchange: Some(self),
                record,
                server,
            })
        })
    }
}

impl Past {
    /// The error with which an answer broke off whose head had said that all was well.
    pub(crate) fn late_failure(&self) -> Option<Failure> {
        self.facts.failure.filter(|_| self.exchange.status < 400)
    }

    fn tell(self, server: &Server) {
        access_log::tell(&self);
        let traces = server.config().traces.as_ref();
        if let Some(traces) = traces.filter(|_| self.exchange.body_use == BodyUse::Read) {
            traces.record(self);
        }
    }
}

/// The body of an answer that is followed.
struct Followed {
    body: Body,
    at_end: bool,
    /// Taken when it is told of.
    exchange: Option<Exchange>,
    record: Record,
    server: Server,
}

impl Drop for Followed {
    fn drop(&mut self) {
        let is_whole = self.at_end || self.body.is_end_stream();
        // The work on the answer ends with it, and has something to tell as well.
        drop(std::mem::take(&mut self.body));
        self.record.end(is_whole);
        if let Some(exchange) = self.exchange.take() {
            let past = Past {
                facts: self.record.account().told(),
                elapsed: exchange.started.elapsed(),
                exchange,
                is_whole,
            };
            past.tell(&self.server);
        }
    }
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.at_end |= frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
