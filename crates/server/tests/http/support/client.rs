//! A small HTTP client that can be cut off at any moment.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes one connection for each request.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    headers: Vec<(String, String)>,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The data of the events of a stream.
    pub(crate) fn events(&self) -> Vec<&str> {
        self.text
            .split("\n\n")
            .filter_map(|event| event.strip_prefix("data: "))
            .collect()
    }

    /// The chunks of a stream, without `[DONE]`.
    pub(crate) fn chunks(&self) -> Vec<Value> {
        let data = self.events().into_iter().filter(|data| *data != "[DONE]");
        data.map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }

    /// The code of an error, whose shape is checked on the way.
    pub(crate) fn error_code(&self) -> String {
        let body = self.json();
        let error = &body["error"];
        assert!(
            error["message"].is_string() && error["type"].is_string(),
            "{}",
            self.text
        );
        if self.status >= 500 {
            assert_ne!(error["type"], "invalid_request_error");
        }
        if self.status == 503 || self.status == 429 {
            let advice: u32 = self.header("retry-after").parse().unwrap();
            assert!((1..=60).contains(&advice));
        }
        error["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// A response whose body has not been read. Dropping it closes the connection.
pub(crate) struct Open {
    pub(crate) response: Response<Incoming>,
    connection: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Open {
    /// The next piece of the body; `None` at its end or if the connection broke.
    pub(crate) async fn piece(&mut self) -> Option<String> {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.response.frame())
                .await
                .unwrap()?;
            if let Ok(data) = frame.ok()?.into_data() {
                return Some(String::from_utf8_lossy(&data).into_owned());
            }
        }
    }

    /// Everything up to the end.
    pub(crate) async fn rest(mut self) -> Answer {
        let status = self.response.status().as_u16();
        let headers = self.response.headers().clone();
        let mut text = String::new();
        while let Some(piece) = self.piece().await {
            text += &piece;
        }
        Answer {
            status,
            headers,
            text,
        }
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            headers: Vec::new(),
        }
    }

    /// The same client with a header on every request.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, &body.to_string()).await
    }

    pub(crate) async fn chat(&self, body: &Value) -> Answer {
        self.post("/v1/chat/completions", body).await
    }

    pub(crate) async fn complete(&self, body: &Value) -> Answer {
        self.post("/v1/completions", body).await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.open(method, path, body).await.rest().await
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn open(&self, method: Method, path: &str, body: impl AsRef<[u8]>) -> Open {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(async move {
            let _ignored = connection.await;
        });
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "test");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let body = Full::new(Bytes::copy_from_slice(body.as_ref()));
        let sending = sender.send_request(request.body(body).unwrap());
        let response = tokio::time::timeout(PATIENCE, sending)
            .await
            .unwrap()
            .unwrap();
        Open {
            response,
            connection,
        }
    }
}
