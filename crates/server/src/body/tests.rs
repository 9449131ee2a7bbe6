use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::HeaderValue;
use axum::http::header::CONTENT_ENCODING;
use backstop_engine::Lifecycle;
use flate2::Compression;
use flate2::write::GzEncoder;

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

const ASKER: Asker = Asker {
    tenant: 0,
    shared: false,
};

async fn status(server: &Server, body: Body) -> u16 {
    match read(server, ASKER, request(body)).await {
        Ok(_) => 200,
        Err(error) => error.status,
    }
}

#[tokio::test]
async fn size_and_time_are_bounded() {
    let server = server(10, 1 << 20);
    assert_eq!(status(&server, Body::from("0123456789")).await, 200);
    assert_eq!(status(&server, Body::from("0123456789a")).await, 413);
    let silent = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
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
async fn values_take_their_share_of_the_budget() {
    let server = server(1 << 20, 1 << 20);
    // A share of a third: few bytes, but many values.
    let text = format!("[{}]", vec!["[]"; 700].join(","));
    let body = || Body::from(text.clone());
    let first = read(&server, ASKER, request(body())).await.unwrap();
    assert!(first.text().len() < 4 << 10);
    let second = read(&server, ASKER, request(body())).await.unwrap();
    assert_eq!(status(&server, body()).await, 429);
    // What stands in strings is text.
    let quoted = Body::from(format!("\"{}\"", "[],".repeat(700)));
    assert_eq!(status(&server, quoted).await, 200);
    drop((first, second));
    assert_eq!(status(&server, body()).await, 200);
    // What never fits is not worth another try.
    let text = vec!["0"; 5000].join(",");
    assert_eq!(status(&server, Body::from(text)).await, 413);
}

#[tokio::test]
async fn a_body_with_too_many_values_is_refused_before_it_is_parsed() {
    let server = server(32 << 20, 4 << 30);
    let few = vec!["0"; MAX_JSON_VALUES].join(",");
    assert_eq!(status(&server, Body::from(few)).await, 200);
    let many = vec!["0"; 2 * MAX_JSON_VALUES + 1].join(",");
    assert_eq!(status(&server, Body::from(many)).await, 413);
}

#[tokio::test]
async fn packed_bodies_take_their_share_unpacked() {
    let server = server(1 << 20, 1 << 20);
    let packed = |bytes: usize| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&vec![b' '; bytes]).unwrap();
        let mut request = request(Body::from(encoder.finish().unwrap()));
        let gzip = HeaderValue::from_static("gzip");
        request.headers_mut().insert(CONTENT_ENCODING, gzip);
        request
    };
    let first = read(&server, ASKER, packed(600 << 10)).await.unwrap();
    assert_eq!(first.text().len(), 600 << 10);
    let second = read(&server, ASKER, packed(600 << 10)).await;
    assert_eq!(second.err().unwrap().status, 429);
    drop(first);
    assert!(read(&server, ASKER, packed(600 << 10)).await.is_ok());
    let bomb = read(&server, ASKER, packed(2 << 20)).await;
    assert_eq!(bomb.err().unwrap().status, 413);
}

#[tokio::test]
async fn the_budget_is_shared_and_given_back() {
    let server = server(8 << 10, 8 << 10);
    let first = read(&server, ASKER, request(Body::from(vec![b' '; 6 << 10])))
        .await
        .unwrap();
    assert_eq!(first.text().len(), 6 << 10);
    assert_eq!(status(&server, Body::from(vec![b' '; 6 << 10])).await, 429);
    drop(first);
    assert_eq!(status(&server, Body::from(vec![b' '; 6 << 10])).await, 200);
}
