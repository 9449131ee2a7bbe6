//! A server of OpenAI's API that does what a test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backstop_client::Endpoint;
use backstop_load::{Events, Target};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

/// What a request gets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    /// So many tokens, an event each, and a count of them if that is wanted.
    Stream { tokens: usize, usage: bool },
    /// The same after a while, in which nobody else is answered.
    After(Duration),
    /// An answer without a stream.
    Whole,
    /// No answer.
    Status(u16),
    /// A stream whose connection ends after so many tokens.
    BreakOff(usize),
    /// A stream that ends properly, but without a reason.
    Unfinished,
    /// An error within a stream.
    ErrorEvent,
    /// Nothing, ever.
    Silence,
}

/// What it has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) requests: AtomicUsize,
    pub(crate) connections: AtomicUsize,
    pub(crate) bodies: Mutex<Vec<serde_json::Value>>,
    /// Held by whoever is answered, so that answers come one after the other.
    lane: Mutex<()>,
}

/// Serves until the test ends. Requests are numbered from 0 on.
pub(crate) async fn serve(
    reply: impl Fn(usize) -> Reply + Send + Sync + 'static,
) -> (SocketAddr, Arc<Seen>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, reply) = (Arc::new(Seen::default()), Arc::new(reply));
    let shared = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            shared.connections.fetch_add(1, Ordering::Relaxed);
            // Events go out at once.
            stream.set_nodelay(true).unwrap();
            let (seen, reply) = (shared.clone(), reply.clone());
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                while let Some(body) = request(&mut stream).await {
                    let number = seen.requests.fetch_add(1, Ordering::Relaxed);
                    seen.bodies.lock().await.push(body);
                    let _lane = seen.lane.lock().await;
                    if answer(stream.get_mut(), reply(number)).await.is_none() {
                        break;
                    }
                }
            });
        }
    });
    (address, seen)
}

/// Whom to ask, with connections that are kept.
pub(crate) fn target(address: SocketAddr) -> Target {
    Target {
        endpoint: Endpoint::new(&format!("http://{address}"), None, None)
            .unwrap()
            .keeping(64),
        path: "/v1/completions".into(),
        patience: Duration::from_secs(60),
        events: Events::WithChoice,
    }
}

/// Reads a request; its body, if it is JSON.
async fn request(stream: &mut BufReader<TcpStream>) -> Option<serde_json::Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(serde_json::from_slice(&body).unwrap_or_default())
}

/// `None` if the connection is to end.
async fn answer(stream: &mut TcpStream, reply: Reply) -> Option<()> {
    match reply {
        Reply::Stream { tokens, usage } => {
            begin(stream).await?;
            for number in 0..tokens {
                event(stream, &token(number, number + 1 == tokens)).await?;
            }
            if usage {
                let counted = format!(
                    "{{\"choices\":[],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":{tokens}}}}}"
                );
                event(stream, &counted).await?;
            }
            event(stream, "[DONE]").await?;
            end(stream).await
        }
        Reply::After(time) => {
            tokio::time::sleep(time).await;
            let stream_of_two = Reply::Stream {
                tokens: 2,
                usage: true,
            };
            Box::pin(answer(stream, stream_of_two)).await
        }
        Reply::Whole => {
            let body = "{\"choices\":[{\"text\":\"a b c\",\"finish_reason\":\"stop\"}],\
                        \"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3}}";
            whole(stream, 200, body).await
        }
        Reply::Status(status) => {
            whole(stream, status, "{\"error\":{\"message\":\"no room\"}}").await
        }
        Reply::BreakOff(tokens) => {
            begin(stream).await?;
            for number in 0..tokens {
                event(stream, &token(number, false)).await?;
            }
            None
        }
        Reply::Unfinished => {
            begin(stream).await?;
            event(stream, &token(0, false)).await?;
            end(stream).await
        }
        Reply::ErrorEvent => {
            begin(stream).await?;
            event(stream, &token(0, false)).await?;
            event(stream, "{\"error\":{\"message\":\"it broke\"}}").await?;
            end(stream).await
        }
        Reply::Silence => std::future::pending().await,
    }
}

fn token(number: usize, is_last: bool) -> String {
    let reason = if is_last { "\"length\"" } else { "null" };
    format!("{{\"choices\":[{{\"text\":\" {number}\",\"finish_reason\":{reason}}}]}}")
}

async fn begin(stream: &mut TcpStream) -> Option<()> {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.ok()
}

async fn event(stream: &mut TcpStream, data: &str) -> Option<()> {
    let text = format!("data: {data}\n\n");
    let chunk = format!("{:x}\r\n{text}\r\n", text.len());
    stream.write_all(chunk.as_bytes()).await.ok()
}

async fn end(stream: &mut TcpStream) -> Option<()> {
    stream.write_all(b"0\r\n\r\n").await.ok()
}

async fn whole(stream: &mut TcpStream, status: u16, body: &str) -> Option<()> {
    let text = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await.ok()
}
