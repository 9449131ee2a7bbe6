//! Reads a request's body within its limits: size, time, and memory over all requests, both of
//! its text, unpacked, and of what the text will be when it is parsed.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use backstop_input::{VALUE_BYTES, ValueScan};
use backstop_protocol::ApiError;
use backstop_protocol::limits::MAX_JSON_VALUES;
use futures::StreamExt;
use tokio::time::timeout;

use crate::budget::{BUDGET_UNIT_BYTES, BodyClaim, NoRoom};
use crate::config::ServerConfig;
use crate::server::Server;
use crate::turns::Asker;
use crate::unpacking::{self, Unpacker};

/// What a value of a body counts: as it is parsed, and as part of the request that is made of it.
const BUDGET_VALUE_BYTES: usize = 2 * VALUE_BYTES;
/// Memory set aside on the word of a `Content-Length` header, before anything has come.
const CAPACITY_ON_TRUST_BYTES: usize = 64 << 10;
/// How long the rest of a body that nobody wants is read and thrown away. A client that is still
/// sending when its connection closes may never see the answer, and one that keeps its connection
/// loses its next request.
const DISCARD_TIME: Duration = Duration::from_secs(3);

/// Units of the budget that all bodies share. The longest body fits into it, if it has few values,
/// and where there are keys into half of it, which is what one key alone may use.
pub(crate) fn budget_units(config: &ServerConfig) -> usize {
    let (buffered, longest) = (config.max_buffered_body_bytes, config.max_body_bytes);
    match config.api_keys {
        Some(_) => 2 * units_of(longest.max(buffered / 2)),
        None => units_of(longest.max(buffered)),
    }
}

fn units_of(bytes: usize) -> usize {
    bytes / BUDGET_UNIT_BYTES + 1
}

/// A body, and its share of the budget until it is dropped.
pub(crate) struct BudgetedBody {
    bytes: Vec<u8>,
    _claim: BodyClaim,
}

/// What some editors and languages put before a text to say that it is UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl BudgetedBody {
    /// Its text.
    pub(crate) fn text(&self) -> &[u8] {
        let bytes = self.bytes.as_slice();
        bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
    }
}

/// Reads the whole body for `asker`.
pub(crate) async fn read(
    server: &Server,
    asker: Asker,
    request: Request,
) -> Result<BudgetedBody, ApiError> {
    let (head, body) = request.into_parts();
    let bytes_max = server.config().max_body_bytes;
    let announced = announced_bytes(&head.headers);
    let mut stream = body.into_data_stream();
    let result = match unpacking::coding(&head.headers) {
        Err(error) => Err(error),
        Ok(_) if announced > bytes_max => Err(ApiError::body_too_large(bytes_max)),
        Ok(coding) => {
            let capacity = announced.min(CAPACITY_ON_TRUST_BYTES);
            let collected = collect(&mut stream, Unpacker::new(coding, capacity), asker, server);
            match timeout(server.config().body_read_timeout, collected).await {
                Ok(result) => result,
                Err(_) => Err(ApiError::body_timeout()),
            }
        }
    };
    if matches!(&result, Err(error) if error.status != 408) {
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
    mut unpacker: Unpacker,
    asker: Asker,
    server: &Server,
) -> Result<BudgetedBody, ApiError> {
    let no_room = |NoRoom| server.queue_full();
    let claim = server.body_budget().open(asker).map_err(no_room)?;
    let mut account = Account {
        server,
        claim: &claim,
        units_max: budget_units(server.config()) / if asker.shared { 2 } else { 1 },
        scan: ValueScan::default(),
        seen: 0,
    };
    loop {
        let next = tokio::select! {
            biased;
            () = claim.gave_way() => return Err(ApiError::body_timeout()),
            next = stream.next() => next,
        };
        let Some(chunk) = next else { break };
        // The client went away in the middle, or its transfer encoding is broken.
        let chunk = chunk.map_err(|_| ApiError::not_an_object())?;
        let mut packed = &chunk[..];
        while !packed.is_empty() {
            packed = &packed[unpacker.take(packed)?..];
            account.charge(unpacker.unpacked())?;
            if unpacker.is_work() {
                // A small chunk can be a long text, and others want the thread.
                tokio::task::yield_now().await;
            }
        }
    }
    let bytes = unpacker.finish()?;
    account.charge(&bytes)?;
    claim.close();
    Ok(BudgetedBody {
        bytes,
        _claim: claim,
    })
}

/// What a body costs while it comes in.
struct Account<'a> {
    server: &'a Server,
    claim: &'a BodyClaim,
    units_max: usize,
    scan: ValueScan,
    /// Bytes that have been charged.
    seen: usize,
}

impl Account<'_> {
    /// Charges what is new of `bytes`, which are all that has come so far. Only that counts, so
    /// that slow clients cannot use up the budget by promises.
    fn charge(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        let bytes_max = self.server.config().max_body_bytes;
        if bytes.len() > bytes_max {
            return Err(ApiError::body_too_large(bytes_max));
        }
        self.scan.add(&bytes[self.seen..]);
        self.seen = bytes.len();
        let values = self.scan.values();
        // At least half of them are there, and the parser is more exact.
        if values > 2 * MAX_JSON_VALUES {
            return Err(ApiError::too_many_values(MAX_JSON_VALUES));
        }
        let units = units_of(bytes.len() + values * BUDGET_VALUE_BYTES);
        if units > self.units_max {
            return Err(ApiError::body_takes_too_much_memory());
        }
        let grown = self.claim.grow_to(units);
        grown.map_err(|NoRoom| self.server.queue_full())
    }
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
mod tests;
