//! Times, refusals, and that hyper finds the same requests in what is passed on.

use std::convert::Infallible;
use std::sync::Mutex;

use axum::http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::{Strategy, prop, proptest};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

const HEAD: &[u8] = b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n";

fn stream() -> (DuplexStream, StrictStream<DuplexStream>, Arc<Refused>) {
    let (far, near) = tokio::io::duplex(1 << 16);
    let refused = Arc::default();
    let limit = Duration::from_secs(10);
    let stream = StrictStream::new(near, limit, Arc::clone(&refused));
    (far, stream, refused)
}

async fn read(stream: &mut StrictStream<DuplexStream>, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test(start_paused = true)]
async fn who_sends_nothing_is_let_go_without_an_answer() {
    let (_far, mut stream, refused) = stream();
    let mut bytes = Vec::new();
    assert_eq!(stream.read_to_end(&mut bytes).await.unwrap(), 0);
    assert_eq!(refused.at(0), None);
}

#[tokio::test(start_paused = true)]
async fn a_head_has_its_time_from_its_first_byte_and_idleness_has_none() {
    let (mut far, mut stream, refused) = stream();
    far.write_all(HEAD).await.unwrap();
    assert_eq!(read(&mut stream, HEAD.len()).await, HEAD);
    let idle = tokio::time::timeout(Duration::from_secs(3600), stream.read_u8());
    assert!(idle.await.is_err());
    far.write_all(b"GET").await.unwrap();
    assert_eq!(read(&mut stream, STAND_IN.len()).await, STAND_IN);
    assert_eq!(refused.at(0), None);
    assert_eq!(refused.at(1), Some(HeadFault::TooSlow));
}

#[tokio::test]
async fn a_malformed_head_is_replaced_where_it_stood() {
    let (mut far, mut stream, refused) = stream();
    far.write_all(&[HEAD, HEAD, b"GET / HTTP/1.1\nhost: a\n\n"].concat())
        .await
        .unwrap();
    let expected = [HEAD, HEAD, STAND_IN].concat();
    assert_eq!(read(&mut stream, expected.len()).await, expected);
    assert_eq!(refused.at(2), Some(HeadFault::LineEnd));
    assert_eq!((refused.at(1), refused.at(3)), (None, None));
}

#[tokio::test]
async fn a_malformed_body_is_an_error_after_what_was_good() {
    let (mut far, mut stream, refused) = stream();
    let head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    far.write_all(&[&head[..], b"zz\r\n"].concat())
        .await
        .unwrap();
    assert_eq!(read(&mut stream, head.len()).await, head);
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(refused.at(0), None);
}

#[tokio::test(start_paused = true)]
async fn after_a_refusal_the_rest_is_read_within_bounds() {
    let (far, mut stream, _refused) = stream();
    let (mut reader, mut writer) = tokio::io::split(far);
    writer.write_all(b"GET /\n").await.unwrap();
    read(&mut stream, STAND_IN.len()).await;
    // It would fill the pipe if nobody read.
    let sending = async { writer.write_all(&vec![0; 1 << 20]).await };
    let (closed, sent) = tokio::join!(stream.shutdown(), sending);
    closed.unwrap();
    sent.unwrap();
    assert_eq!(reader.read_to_end(&mut Vec::new()).await.unwrap(), 0);
}

/// Pieces of requests, good and bad, that make many kinds of both when put together.
const PIECES: [&str; 27] = [
    "GET /a HTTP/1.1\r\n",
    "POST /b HTTP/1.1\r\n",
    "POST /c HTTP/1.0\r\n",
    "CONNECT d:1 HTTP/1.1\r\n",
    "GET /e HTTP/1.1\r\nhost: f\r\n\r\n",
    "POST /g HTTP/1.1\r\ncontent-length: 3\r\n\r\n",
    "POST /h HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
    "content-length: 0\r\n",
    "Content-Length: 3\r\n",
    "content-length : 3\r\n",
    "transfer-encoding: chunked\r\n",
    "Transfer-Encoding:CHUNKED \r\n",
    "transfer-encoding: gzip\r\n",
    "upgrade: h2c\r\nconnection: upgrade\r\n",
    "connection: keep-alive\r\n",
    "expect: 100-continue\r\n",
    " folded\r\n",
    "\r\n",
    "\n",
    "\r",
    "abc",
    "3\r\nabc\r\n",
    "3;x=y\r\nabc\r\n",
    "003\r\nabc\r\n",
    "0\r\n\r\n",
    "0\r\nx: y\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];

fn conversation() -> impl Strategy<Value = String> {
    let pieces = prop::collection::vec(prop::sample::select(&PIECES[..]), 1..16);
    pieces.prop_map(|pieces| pieces.concat())
}

/// The paths of the requests that hyper finds, and whether each was said to be refused.
async fn found_by_hyper(bytes: &[u8]) -> Vec<(String, bool)> {
    let (mut far, stream, refused) = stream();
    let found = Mutex::new(Vec::new());
    let answer = |request: Request<Incoming>| {
        let mut found = found.lock().unwrap();
        let was_refused = refused.at(found.len() as u64).is_some();
        found.push((request.uri().path().to_owned(), was_refused));
        async {
            let _may_be_malformed = request.into_body().collect().await;
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    };
    let client = async {
        far.write_all(bytes).await.unwrap();
        // The server closes the connection, at the latest because nothing comes any more.
        let _reset = far.read_to_end(&mut Vec::new()).await;
    };
    let server = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
    let both = async { tokio::join!(server, client) };
    // An idle connection stays open.
    let _ignored = tokio::time::timeout(Duration::from_secs(60), both).await;
    found.into_inner().unwrap()
}

proptest! {
    #[test]
    fn hyper_finds_no_request_that_was_not_passed_on_as_one(bytes in conversation()) {
        let mut framing = Framing::default();
        let fault = framing.feed(bytes.as_bytes(), &mut Vec::new()).err();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let found = runtime.block_on(found_by_hyper(bytes.as_bytes()));
        for (path, was_refused) in &found {
            assert_eq!(path == "/refused", *was_refused, "{bytes:?} {found:?}");
        }
        let good = found.iter().filter(|(_, was_refused)| !was_refused).count();
        // It may find fewer, for it has its own reasons to refuse some and to close connections.
        assert!(good as u64 <= framing.heads(), "{bytes:?} {found:?}");
        if let Some((last, others)) = found.split_last() {
            assert!(others.iter().all(|(_, was_refused)| !was_refused));
            let is_in_head = framing.is_in_head();
            assert!(!last.1 || is_in_head || matches!(fault, Some(Fault::Head(_))), "{bytes:?}");
        }
    }
}
