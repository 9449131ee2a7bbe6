//! A client that does as little as it can: it counts events and notes when the first token came.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use backstop_benches::http;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// A message of about a hundred bytes.
const MESSAGE: &str = "The quick brown fox jumps over the lazy dog, and the dog, who has seen \
                       this many times, sleeps on.";
/// Largest pause between two scrapes.
const SCRAPE_INTERVAL: Duration = Duration::from_millis(50);

/// What one stream's client saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub(crate) first_token_ms: f64,
    pub(crate) bytes: u64,
}

/// What many streams at once came to.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    pub(crate) seconds: f64,
    pub(crate) each: Vec<Stream>,
}

/// A request for a chat that streams `tokens` tokens.
fn request(address: SocketAddr, number: usize, tokens: usize, stream: bool) -> String {
    let content = format!("{number}: {MESSAGE}");
    let body = json!({
        "model": "any",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": tokens,
        "stream": stream,
    })
    .to_string();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// `clients` streams at once, each `rounds` times.
pub(crate) async fn stream(
    address: SocketAddr,
    clients: usize,
    rounds: usize,
    tokens: usize,
) -> io::Result<Streams> {
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        tasks.spawn(async move {
            let mut seen = Vec::with_capacity(rounds);
            for round in 0..rounds {
                let request = request(address, client * rounds + round, tokens, true);
                seen.push(one_stream(address, &request).await?);
            }
            Ok::<_, io::Error>(seen)
        });
    }
    let mut each = Vec::new();
    while let Some(seen) = tasks.join_next().await {
        each.extend(seen.map_err(io::Error::other)??);
    }
    Ok(Streams {
        seconds: begin.elapsed().as_secs_f64(),
        each,
    })
}

async fn one_stream(address: SocketAddr, request: &str) -> io::Result<Stream> {
    let sent = Instant::now();
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    socket.write_all(request.as_bytes()).await?;
    let mut buffer = vec![0; 16 << 10];
    let (mut first, mut bytes, mut tail) = (None, 0, Vec::new());
    loop {
        let count = socket.read(&mut buffer).await?;
        let now = Instant::now();
        let piece = &buffer[..count];
        bytes += count as u64;
        tail.extend_from_slice(piece);
        if first.is_none() && contains_token(&tail) {
            first = Some(now);
        }
        let ended = tail.ends_with(b"data: [DONE]\n\n\r\n0\r\n\r\n");
        if ended || count == 0 {
            let first = first.filter(|_| ended);
            let first = first.ok_or_else(|| io::Error::other("a stream was cut off"))?;
            return Ok(Stream {
                first_token_ms: first.duration_since(sent).as_secs_f64() * 1e3,
                bytes,
            });
        }
        if first.is_some() {
            // The end mark is all that is still looked for.
            tail.drain(..tail.len().saturating_sub(64));
        }
    }
}

/// The first event names the role and has no text; the second one has the first token.
fn contains_token(text: &[u8]) -> bool {
    text.windows(6).filter(|window| window == b"data: ").count() > 1
}

/// Short answers, one after the other on each of `clients` connections; returns requests per
/// second.
pub(crate) async fn short_answers(
    address: SocketAddr,
    clients: usize,
    requests: usize,
    tokens: usize,
) -> io::Result<f64> {
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        tasks.spawn(async move {
            let mut socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            let mut answer = Vec::new();
            for number in 0..requests {
                let request = request(address, client * requests + number, tokens, false);
                socket.write_all(request.as_bytes()).await?;
                read_answer(&mut socket, &mut answer).await?;
            }
            Ok::<_, io::Error>(())
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.map_err(io::Error::other)??;
    }
    Ok((clients * requests) as f64 / begin.elapsed().as_secs_f64())
}

/// Reads one answer with a length and leaves the connection open.
async fn read_answer(socket: &mut TcpStream, answer: &mut Vec<u8>) -> io::Result<()> {
    answer.clear();
    loop {
        if socket.read_buf(answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        });
        if !head.starts_with("HTTP/1.1 200") {
            return Err(io::Error::other(head.to_owned()));
        }
        if length.is_some_and(|length: usize| body.len() >= length) {
            return Ok(());
        }
    }
}

/// Asks for the metrics every 50 ms until `stop` says so, on a thread of its own; returns how long
/// each answer took, in milliseconds.
pub(crate) fn scrape(address: SocketAddr, stop: impl Fn() -> bool) -> io::Result<Vec<f64>> {
    let mut times = Vec::new();
    while !stop() {
        let answer = http::get(address, "/metrics")?;
        let took = answer.sent.elapsed();
        if answer.status != 200 {
            return Err(io::Error::other(answer.body()));
        }
        times.push(took.as_secs_f64() * 1e3);
        std::thread::sleep(SCRAPE_INTERVAL.saturating_sub(took));
    }
    Ok(times)
}
