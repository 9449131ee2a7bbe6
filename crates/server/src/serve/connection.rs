//! One client's connection: requests one after the other, until either side has enough.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::framing::{FIELDS_MAX, HeadFault};
use super::handshake::{self, Begun};
use super::peer::Peer;
use super::registry::{Stay, Turn, Visit};
use super::stall::StallLimit;
use super::strict::{Refused, StrictStream};
use super::transport::Transport;
use crate::tls::Tls;

/// Bytes that a connection buffers for reading a head and for writing.
const CONNECTION_BUFFER_BYTES: usize = 64 << 10;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionLimits {
    /// Over a request's head.
    pub(super) head: Duration,
    /// From an answer to the next request.
    pub(super) idle: Duration,
    /// To go on reading.
    pub(super) write_stall: Duration,
}

/// A connection before it is read from.
pub(super) struct Connection {
    pub(super) routes: Router,
    pub(super) limits: ConnectionLimits,
    pub(super) close: watch::Receiver<bool>,
    pub(super) stay: Stay,
    pub(super) peer: Peer,
    pub(super) tls: Option<Arc<Tls>>,
    /// Given back when the socket is closed.
    pub(super) permit: OwnedSemaphorePermit,
}

impl Connection {
    pub(super) async fn run(self, stream: Transport) {
        stream.send_at_once();
        let visit = self.stay.visit().clone();
        tokio::select! {
            () = self.serve(stream) => {}
            () = visit.evicted() => tracing::debug!("a connection made room for another"),
        }
    }

    async fn serve(self, stream: Transport) {
        let Self {
            routes,
            limits,
            mut close,
            stay,
            mut peer,
            tls,
            permit: _permit,
        } = self;
        let begun = tokio::select! {
            begun = handshake::begin(stream, tls.as_deref(), limits.head) => begun,
            () = closing(&mut close) => None,
        };
        let refused = Arc::new(Refused::default());
        let strictly = |stream| {
            let stream = StallLimit::new(stream, limits.write_stall);
            StrictStream::new(stream, limits.head, Arc::clone(&refused))
        };
        let stream = match begun {
            None => return,
            Some(Begun::Secure {
                stream,
                client_name,
            }) => {
                peer.certificate = client_name.map(Arc::from);
                strictly(stream)
            }
            Some(Begun::Plain(stream)) => strictly(stream).refusing(HeadFault::NotEncrypted),
        };
        let requests = Requests {
            routes: TowerToHyperService::new(routes),
            visit: stay.visit().clone(),
            peer,
            refused,
            count: AtomicU64::new(0),
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // Whole heads come, or nothing: this bounds the time between them.
            .header_read_timeout(limits.idle)
            .max_headers(FIELDS_MAX)
            .max_buf_size(CONNECTION_BUFFER_BYTES)
            .serve_connection(
                TokioIo::new(stream),
                service_fn(|request| requests.answer(request)),
            );
        let mut connection = pin!(connection);
        let early = tokio::select! {
            result = &mut connection => Some(result),
            () = closing(&mut close) => None,
        };
        let result = match early {
            Some(result) => result,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            // Clients that hang up or send no HTTP are everyday events.
            tracing::debug!(%error, "connection ended");
        }
    }
}

async fn closing(close: &mut watch::Receiver<bool>) {
    // An error means that the accept loop is gone, which closes connections as well.
    let _ignored = close.wait_for(|closing| *closing).await;
}

/// What happens to the requests of one connection.
struct Requests {
    routes: TowerToHyperService<Router>,
    visit: Visit,
    peer: Peer,
    refused: Arc<Refused>,
    count: AtomicU64,
}

impl Requests {
    /// Hands a request to its route, with what its connection knows of it.
    fn answer(
        &self,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<InTurn>, Infallible>> + use<> {
        let turn = self.visit.begin();
        let index = self.count.fetch_add(1, Ordering::Relaxed);
        if let Some(fault) = self.refused.at(index) {
            request.extensions_mut().insert(fault);
        }
        request.extensions_mut().insert(self.visit.clone());
        request.extensions_mut().insert(self.peer.clone());
        let answer = self.routes.call(request);
        async move {
            let response = answer.await?;
            Ok(response.map(|body| InTurn { body, _turn: turn }))
        }
    }
}

/// The body of an answer, with which its request ends.
struct InTurn {
    body: Body,
    _turn: Turn,
}

impl HttpBody for InTurn {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
