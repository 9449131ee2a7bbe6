//! One connection to the stand-in.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::script::{Script, Step};
use super::wire::{self, Asked};
use super::{Shared, State};
use crate::faults::Act;

/// A body that is longer is refused.
const BODY_BYTES_MAX: usize = 4 << 20;
/// How long a client may take for its first byte, and for TLS.
const HELLO_WAIT: Duration = Duration::from_secs(60);
/// What a client that wants TLS begins with.
const TLS_HANDSHAKE: u8 = 0x16;

type Body = UnsyncBoxBody<Bytes, io::Error>;

pub(super) async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut first = [0];
    let hello = tokio::time::timeout(HELLO_WAIT, stream.peek(&mut first));
    if !matches!(hello.await, Ok(Ok(1))) {
        return;
    }
    let state = *shared.state.borrow();
    if state.does(Act::Reset) {
        // With this, closing sends a reset; it fails for a connection that is gone already.
        let _ = stream.set_zero_linger();
    } else if first[0] == TLS_HANDSHAKE {
        let accepted = tokio::time::timeout(HELLO_WAIT, shared.tls.accept(stream)).await;
        if let Ok(Ok(stream)) = accepted {
            serve_http(stream, state, shared).await;
        }
    } else {
        serve_http(stream, state, shared).await;
    }
}

/// Serves requests until the client leaves, or until what is to be done to them changes.
async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    state: State,
    shared: Arc<Shared>,
) {
    let mut states = shared.state.subscribe();
    let changed = async move {
        // An error says that the stand-in stops.
        let _ = states
            .wait_for(|known| known.changes != state.changes)
            .await;
    };
    let service = service_fn(|request| answer(request, state, &shared));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // How a client leaves is its own business.
        _ = connection.as_mut() => {}
        () = changed => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    state: State,
    shared: &Shared,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    if path.ends_with("/models") {
        return Ok(whole(StatusCode::OK, wire::models()));
    }
    if !path.ends_with("/chat/completions") {
        return Ok(whole(StatusCode::NOT_FOUND, wire::not_here()));
    }
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX)
        .collect()
        .await;
    let asked = body.ok().and_then(|body| Asked::read(&body.to_bytes()));
    let Some(asked) = asked else {
        return Ok(whole(StatusCode::BAD_REQUEST, wire::not_understood()));
    };
    let before = shared.count(&asked.nonce);
    Ok(play(Script::write(state.fault, &asked, before)).await)
}

fn whole(status: StatusCode, json: Vec<u8>) -> Response<Body> {
    let body = Full::new(Bytes::from(json)).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

async fn play(script: Script) -> Response<Body> {
    tokio::time::sleep(script.wait).await;
    let body = StreamBody::new(frames(script.steps)).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = script.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, script.content_type);
    if let Some(seconds) = script.retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    response
}

fn frames(steps: Vec<Step>) -> impl Stream<Item = io::Result<Frame<Bytes>>> {
    stream::iter(steps).filter_map(|step| async move {
        match step {
            Step::Say(bytes) => Some(Ok(Frame::data(bytes))),
            Step::Wait(time) => {
                tokio::time::sleep(time).await;
                None
            }
            Step::Break => Some(Err(io::Error::other("the stand-in breaks off"))),
        }
    })
}
