//! LiteLLM's proxy as a process of the drill's.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::DrillError;
use backstop_client::Endpoint;

/// Importing LiteLLM alone takes long on a small machine.
const START_MAX: Duration = Duration::from_secs(240);
const STOP_MAX: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Of its log, when it does not start.
const LOG_LINES: usize = 20;
const LOG_BYTES_MAX: u64 = 64 << 20;

/// A running proxy; it ends, and its files go, when this is dropped.
pub(crate) struct Gateway {
    process: Child,
    directory: Directory,
    pub(crate) url: String,
}

impl Gateway {
    /// Starts a proxy with a configuration, which goes into a file that nobody else can read.
    pub(crate) fn start(
        program: &Path,
        config: &Value,
        master_key: &str,
    ) -> Result<Self, DrillError> {
        let directory = Directory::make()?;
        let file = directory.write("config.yaml", config.to_string().as_bytes())?;
        let log = directory.create("log")?;
        let errors = log
            .try_clone()
            .map_err(|error| DrillError::at(&directory.0, error))?;
        let port = free_port()?;
        let mut command = Command::new(program);
        command
            .arg("--config")
            .arg(&file)
            .args([
                "--host",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--telemetry",
                "False",
            ])
            .env("LITELLM_MASTER_KEY", master_key)
            // A price list is not worth a connection to the internet.
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            // The stand-in is not behind the operator's proxy.
            .env("NO_PROXY", without_proxy("NO_PROXY"))
            .env("no_proxy", without_proxy("no_proxy"))
            .env_remove("DATABASE_URL")
            .current_dir(&directory.0)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Its workers are ended with it.
            .process_group(0);
        let process = command.spawn().map_err(|error| {
            let program = program.display();
            DrillError::new(format!(
                "cannot start {program}: {error}; --gateway-program names LiteLLM's"
            ))
        })?;
        Ok(Self {
            process,
            directory,
            url: format!("http://127.0.0.1:{port}"),
        })
    }

    /// Waits until it answers.
    pub(crate) async fn wait_until_ready(&mut self, endpoint: &Endpoint) -> Result<(), DrillError> {
        let begun = Instant::now();
        while begun.elapsed() < START_MAX {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(DrillError::new(format!(
                    "the gateway ended with {status}:\n{}",
                    self.log()
                )));
            }
            let asking = endpoint.send(Method::GET, "/health/liveliness", Vec::new());
            let answer = tokio::time::timeout(LOOK_AGAIN * 10, asking).await;
            if matches!(answer, Ok(Ok(exchange)) if exchange.response.status() == StatusCode::OK) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let seconds = START_MAX.as_secs();
        Err(DrillError::new(format!(
            "the gateway was not ready after {seconds} s:\n{}",
            self.log()
        )))
    }

    /// The end of its log.
    fn log(&self) -> String {
        let text = backstop_input::read_file(&self.directory.0.join("log"), LOG_BYTES_MAX);
        let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.process.id())
            .ok()
            .and_then(Pid::from_raw)
        {
            // It may be gone.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        let begun = Instant::now();
        while begun.elapsed() < STOP_MAX && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(LOOK_AGAIN);
        }
        // Workers that outlive their parent too.
        self.signal(Signal::KILL);
        let _ = self.process.wait();
    }
}

/// A directory of the drill's own, which is removed with all that is in it.
struct Directory(PathBuf);

impl Directory {
    fn make() -> Result<Self, DrillError> {
        let random = getrandom::u64()
            .map_err(|error| DrillError::new(format!("no random numbers: {error}")))?;
        let path = std::env::temp_dir().join(format!("backstop-drill-{random:016x}"));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| DrillError::at(&path, error))?;
        Ok(Self(path))
    }

    fn create(&self, name: &str) -> Result<File, DrillError> {
        let path = self.0.join(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        file.map_err(|error| DrillError::at(&path, error))
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf, DrillError> {
        let path = self.0.join(name);
        let written = self.create(name)?.write_all(content);
        written.map_err(|error| DrillError::at(&path, error))?;
        Ok(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!("{} is left behind: {error}", self.0.display());
        }
    }
}

fn without_proxy(variable: &str) -> String {
    match std::env::var(variable) {
        Ok(hosts) if !hosts.is_empty() => format!("{hosts},127.0.0.1"),
        _ => "127.0.0.1".to_owned(),
    }
}

fn free_port() -> Result<u16, DrillError> {
    let bound = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    let address = bound.map_err(|error| DrillError::new(format!("no free port: {error}")))?;
    Ok(address.port())
}
