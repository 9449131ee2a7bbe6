//! The server's end of the control socket.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use backstop_engine::LifecycleState;
use backstop_server::{Server, SocketFile};
use backstop_types::SleepLevel;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Notify, Semaphore};

use super::message::{LINE_BYTES_MAX, Reply, Request};
use crate::standby::Standby;

/// Callers at once. Others wait until one of them is done.
const CALLERS_MAX: usize = 8;
/// Time in which a caller must have said what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time that a caller can give running requests.
const LONGEST_TIMEOUT_S: f64 = 86_400.0;

/// Who may open the socket: this process's user.
const MODE: u32 = 0o600;

/// A socket that nobody answers at yet.
#[derive(Debug)]
pub(crate) struct ControlSocket(SocketFile);

impl ControlSocket {
    /// Makes the socket. Must be called before there are other threads.
    pub(crate) fn bind(path: &Path) -> Result<Self, String> {
        let file = SocketFile::listen(path, MODE);
        file.map(Self).map_err(|error| {
            format!(
                "cannot listen on {}: {error}; choose another with --control-socket",
                path.display()
            )
        })
    }
}

/// What is controlled over the socket; cheap to clone.
#[derive(Clone)]
pub(crate) struct Controlled {
    pub(crate) server: Server,
    /// There once the model is.
    pub(crate) standby: Arc<OnceLock<Arc<Standby>>>,
    /// Rung to end the service.
    pub(crate) end: Arc<Notify>,
    pub(crate) started: Instant,
}

impl Controlled {
    /// Answers at the socket. Does not return.
    pub(crate) async fn answer_at(self, socket: ControlSocket) {
        let socket = match socket.0.register() {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(%error, "nobody answers at the control socket");
                return std::future::pending().await;
            }
        };
        let places = Arc::new(Semaphore::new(CALLERS_MAX));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            match socket.accept().await {
                Ok(stream) => {
                    let controlled = self.clone();
                    tokio::spawn(async move {
                        let _place = place;
                        controlled.converse(stream).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot let a caller in at the control socket");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn converse(&self, stream: UnixStream) {
        let (reading, mut writing) = stream.into_split();
        let mut line = String::new();
        let mut reading = BufReader::new(reading.take(LINE_BYTES_MAX));
        let read = tokio::time::timeout(REQUEST_TIMEOUT, reading.read_line(&mut line)).await;
        if !matches!(read, Ok(Ok(_))) || line.is_empty() {
            // Somebody looked whether anybody is there.
            return;
        }
        let reply = match serde_json::from_str::<Request>(&line) {
            Ok(request) => match self.obey(request).await {
                Ok(done) => Reply::Done(done),
                Err(reason) => Reply::Error(reason),
            },
            Err(error) => Reply::Error(format!(
                "this server does not understand the command ({error}): is it of another version?"
            )),
        };
        let mut text = serde_json::to_string(&reply).unwrap_or_default();
        text.push('\n');
        // A caller that has gone does not read it.
        let _ignored = tokio::time::timeout(REQUEST_TIMEOUT, writing.write_all(text.as_bytes()));
        let _ignored = _ignored.await;
    }

    async fn obey(&self, request: Request) -> Result<Value, String> {
        if request != Request::Status {
            tracing::info!(?request, "asked over the control socket");
        }
        match request {
            Request::Status => Ok(self.status()),
            Request::Sleep { level, timeout_s } => {
                let level = match level {
                    1 => SleepLevel::KeepWeights,
                    2 => SleepLevel::DropWeights,
                    other => return Err(format!("there is no level {other}")),
                };
                let took = self.standby()?.sleep(level, limit(timeout_s)?).await?;
                Ok(json!({"seconds": took.as_secs_f64()}))
            }
            Request::Wake => {
                let took = self.standby()?.wake().await?;
                Ok(json!({"seconds": took.as_secs_f64()}))
            }
            Request::Drain => {
                self.end.notify_one();
                let draining = |state: &LifecycleState| *state == LifecycleState::Draining;
                self.server.lifecycle().wait_for(draining).await;
                self.server.idle().await;
                Ok(json!({}))
            }
            Request::Reload { weights, timeout_s } => {
                let (keys, certificates) = self.reload_files().await?;
                let seconds = match weights {
                    true => {
                        let limit = limit(timeout_s)?;
                        let took = self.standby()?.reload_weights(limit).await?;
                        Some(took.as_secs_f64())
                    }
                    false => None,
                };
                Ok(json!({"keys": keys, "certificates": certificates, "seconds": seconds}))
            }
        }
    }

    fn standby(&self) -> Result<&Arc<Standby>, String> {
        self.standby.get().ok_or_else(|| {
            let state = self.server.lifecycle().state();
            match state {
                LifecycleState::Ready => "there is no model that generates".to_owned(),
                state => format!("the server is {state}"),
            }
        })
    }

    /// Says how many keys there are now, and whether certificates were read.
    async fn reload_files(&self) -> Result<(Option<usize>, bool), String> {
        let server = self.server.clone();
        let reloaded = tokio::task::spawn_blocking(move || {
            let keys = server.reload_keys().transpose();
            let certificates = server.reload_certificates().transpose();
            (
                keys.map_err(|error| error.to_string()),
                certificates.map_err(|error| error.to_string()),
            )
        });
        let (keys, certificates) = reloaded.await.map_err(|error| error.to_string())?;
        Ok((keys?, certificates?.is_some()))
    }

    fn status(&self) -> Value {
        let mut status = self.server.status();
        status["process"] = json!({
            "id": std::process::id(),
            "uptime_seconds": self.started.elapsed().as_secs_f64(),
        });
        status
    }
}

fn limit(timeout_s: f64) -> Result<Duration, String> {
    match (0.0..=LONGEST_TIMEOUT_S).contains(&timeout_s) {
        true => Ok(Duration::from_secs_f64(timeout_s)),
        false => Err(format!(
            "a timeout must lie between 0 and {LONGEST_TIMEOUT_S} seconds"
        )),
    }
}
