//! Reads a request's body within its limits: size, time, and memory over all requests.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use backstop_protocol::ApiError;
use futures::StreamExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::server::Server;

/// Bodies are counted against their budget in units of this many bytes.
pub(crate) const BUDGET_UNIT_BYTES: usize = 1024;
/// Memory set aside on the word of a `Content-Length` header, before anything has come.
const CAPACITY_ON_TRUST_BYTES: usize = 64 << 10;
/// How long the rest of a body that nobody wants is read and thrown away. A client that is still
/// sending when its connection closes may never see the answer, and one that keeps its connection
/// loses its next request.
const DISCARD_TIME: Duration = Duration::from_secs(3);

/// A body, and its share of the budget until it is dropped.
pub(crate) struct BudgetedBody {
    pub(crate) bytes: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

/// Reads the whole body.
pub(crate) async fn read(server: &Server, request: Request) -> Result<BudgetedBody, ApiError> {
    let (head, body) = request.into_parts();
    let bytes_max = server.config().max_body_bytes;
    let announced = announced_bytes(&head.headers);
    let mut stream = body.into_data_stream();
    let result = if announced > bytes_max {
        Err(ApiError::body_too_large(bytes_max))
    } else {
        let collected = collect(&mut stream, announced, bytes_max, server);
        match timeout(server.config().body_read_timeout, collected).await {
            Ok(result) => result,
            Err(_) => Err(ApiError::body_timeout()),
        }
    };
    if matches!(&result, Err(error) if matches!(error.status, 413 | 429)) {
        // Twice, so that who is a little over the limit learns it.
        discard_rest(&head.headers, stream, bytes_max.saturating_mul(2)).await;
    }
    result
}

/// The same request, its body read and thrown away, for what is answered without it. A longer body
/// than `bytes_max` is left unread.
pub(crate) async fn discard(request: Request, bytes_max: usize) -> Request {
    let (head, body) = request.into_parts();
    discard_rest(&head.headers, body.into_data_stream(), bytes_max).await;
    Request::from_parts(head, Body::empty())
}

async fn collect(
    stream: &mut BodyDataStream,
    announced: usize,
    bytes_max: usize,
    server: &Server,
) -> Result<BudgetedBody, ApiError> {
    let mut bytes = Vec::with_capacity(announced.min(CAPACITY_ON_TRUST_BYTES));
    let mut permit = claim(server, 1)?;
    while let Some(chunk) = stream.next().await {
        // The client went away in the middle, or its transfer encoding is broken.
        let chunk = chunk.map_err(|_| ApiError::not_an_object())?;
        if bytes.len() + chunk.len() > bytes_max {
            return Err(ApiError::body_too_large(bytes_max));
        }
        bytes.extend_from_slice(&chunk);
        // Only what has come counts, so that slow clients cannot use up the budget by promises.
        let units = bytes.len() / BUDGET_UNIT_BYTES + 1;
        let more = units.saturating_sub(permit.num_permits());
        if more > 0 {
            permit.merge(claim(server, more)?);
        }
    }
    Ok(BudgetedBody {
        bytes,
        _permit: permit,
    })
}

fn claim(server: &Server, units: usize) -> Result<OwnedSemaphorePermit, ApiError> {
    let units = u32::try_from(units).unwrap_or(u32::MAX);
    Arc::clone(server.body_budget())
        .try_acquire_many_owned(units)
        .map_err(|_| server.queue_full())
}

fn announced_bytes(headers: &HeaderMap) -> usize {
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    length.and_then(|text| text.parse().ok()).unwrap_or(0)
}

async fn discard_rest(headers: &HeaderMap, mut stream: BodyDataStream, bytes_max: usize) {
    // Who expects a `100 Continue` has sent nothing yet.
    if headers.contains_key(EXPECT) {
        return;
    }
    let rest = async {
        let mut bytes = 0;
        while let Some(Ok(chunk)) = stream.next().await {
            bytes += chunk.len();
            if bytes > bytes_max {
                return;
            }
        }
    };
    // Whoever sends even more has to live with a reset connection.
    let _ignored = timeout(DISCARD_TIME, rest).await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use backstop_engine::Lifecycle;

    use super::*;
    use crate::ServerConfig;

    fn server(max_body_bytes: usize, max_buffered_body_bytes: usize) -> Server {
        let config = ServerConfig {
            max_body_bytes,
            max_buffered_body_bytes,
            body_read_timeout: Duration::from_millis(50),
            ..ServerConfig::default()
        };
        Server::new(config, Lifecycle::new())
    }

    fn request(body: Body) -> Request {
        Request::new(body)
    }

    async fn status(server: &Server, body: Body) -> u16 {
        match read(server, request(body)).await {
            Ok(_) => 200,
            Err(error) => error.status,
        }
    }

    #[tokio::test]
    async fn size_and_time_are_bounded() {
        let server = server(10, 1 << 20);
        assert_eq!(status(&server, Body::from("0123456789")).await, 200);
        assert_eq!(status(&server, Body::from("0123456789a")).await, 413);
        let silent =
            Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        assert_eq!(status(&server, silent).await, 408);
    }

    #[tokio::test]
    async fn what_is_thrown_away_is_bounded_as_well() {
        let taken = Arc::new(AtomicUsize::new(0));
        let endless = futures::stream::repeat_with({
            let taken = Arc::clone(&taken);
            move || {
                taken.fetch_add(1000, Ordering::Relaxed);
                Ok::<_, std::io::Error>(vec![b' '; 1000])
            }
        });
        discard(request(Body::from_stream(endless)), 5000).await;
        assert_eq!(taken.load(Ordering::Relaxed), 6000);
    }

    #[tokio::test]
    async fn the_budget_is_shared_and_given_back() {
        let server = server(8 << 10, 8 << 10);
        let first = read(&server, request(Body::from(vec![b' '; 6 << 10])))
            .await
            .unwrap();
        assert_eq!(first.bytes.len(), 6 << 10);
        assert_eq!(status(&server, Body::from(vec![b' '; 6 << 10])).await, 429);
        drop(first);
        assert_eq!(status(&server, Body::from(vec![b' '; 6 << 10])).await, 200);
    }
}
