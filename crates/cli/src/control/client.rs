//! The commands that speak to a running server: `backstop status`, `sleep`, `wake`, `drain` and `reload`.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::message::{LINE_BYTES_MAX, Reply, Request};
use crate::args::{ControlArgs, ReloadArgs, SleepArgs, StatusArgs};

/// Bytes of an answer at most: a status has histories.
const ANSWER_BYTES_MAX: u64 = 16 * LINE_BYTES_MAX;

/// `backstop sleep`.
pub(crate) fn sleep(args: &SleepArgs) -> Result<ExitCode, String> {
    let request = Request::Sleep {
        level: args.level,
        timeout_s: args.timeout.as_secs_f64(),
    };
    let done = ask(&args.server, request)?;
    say(&format!("asleep after {:.1} s", seconds(&done)));
    Ok(ExitCode::SUCCESS)
}

/// `backstop wake`.
pub(crate) fn wake(args: &ControlArgs) -> Result<ExitCode, String> {
    let done = ask(args, Request::Wake)?;
    say(&format!("awake after {:.1} s", seconds(&done)));
    Ok(ExitCode::SUCCESS)
}

/// `backstop drain`.
pub(crate) fn drain(args: &ControlArgs) -> Result<ExitCode, String> {
    match converse(&args.control_socket, Request::Drain)? {
        Some(Reply::Error(reason)) => Err(reason),
        // A server that ends may do so before it has said that it will.
        Some(Reply::Done(_)) | None => {
            say("drained: no request runs, and the server ends");
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// `backstop reload`.
pub(crate) fn reload(args: &ReloadArgs) -> Result<ExitCode, String> {
    let request = Request::Reload {
        weights: args.weights,
        timeout_s: args.timeout.as_secs_f64(),
    };
    let done = ask(&args.server, request)?;
    match done["keys"].as_u64() {
        Some(keys) => say(&format!("read {keys} keys")),
        None => say("there is no key file to read"),
    }
    if done["certificates"] == true {
        say("read the certificates");
    }
    if done["seconds"].is_number() {
        say(&format!(
            "read and proved the weights in {:.1} s",
            seconds(&done)
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// `backstop status`. Fails unless the server is ready.
pub(crate) fn status(args: &StatusArgs) -> Result<ExitCode, String> {
    let status = ask(&args.server, Request::Status)?;
    match args.json {
        true => say(&serde_json::to_string_pretty(&status).map_err(|error| error.to_string())?),
        false => say(&told(&status)),
    }
    let ready = status["state"]["name"] == "ready";
    Ok(match ready {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// What a status says, for people.
fn told(status: &Value) -> String {
    let mut lines = Vec::new();
    collect("", status, &mut lines);
    let widest = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = lines
        .iter()
        .map(|(name, value)| format!("{name:widest$}  {value}"));
    lines.collect::<Vec<String>>().join("\n")
}

/// One line for each value of an object. Lists are left to `--json`, but for that of the models.
fn collect(path: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = name.replace('_', " ");
                let path = match path.is_empty() {
                    true => name,
                    false => format!("{path} {name}"),
                };
                collect(&path, value, lines);
            }
        }
        Value::Array(models) if path == "models" => {
            for model in models {
                collect("model", model, lines);
            }
        }
        Value::Null | Value::Array(_) => {}
        Value::String(text) => lines.push((path.to_owned(), text.clone())),
        other => lines.push((path.to_owned(), other.to_string())),
    }
}

fn seconds(done: &Value) -> f64 {
    done["seconds"].as_f64().unwrap_or(0.0)
}

/// Asks a server, and waits as long as it needs.
fn ask(args: &ControlArgs, request: Request) -> Result<Value, String> {
    match converse(&args.control_socket, request)? {
        Some(Reply::Done(value)) => Ok(value),
        Some(Reply::Error(reason)) => Err(reason),
        None => Err("the server ended before it answered".to_owned()),
    }
}

/// Says one thing and hears one. `None` if the other side ended without an answer.
fn converse(path: &Path, request: Request) -> Result<Option<Reply>, String> {
    let mut stream = UnixStream::connect(path).map_err(|error| {
        format!(
            "no server answers on {}: {error}; it must have been started with --control-socket",
            path.display()
        )
    })?;
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut line = serde_json::to_string(&request).map_err(|error| error.to_string())?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    let mut reading = BufReader::new(stream.take(ANSWER_BYTES_MAX));
    if reading.read_line(&mut answer).map_err(failed)? == 0 {
        return Ok(None);
    }
    let reply = serde_json::from_str(&answer);
    reply
        .map(Some)
        .map_err(|error| format!("the server's answer is not understood: {error}"))
}

#[expect(clippy::print_stdout, reason = "it is what the command is for")]
fn say(text: &str) {
    println!("{text}");
}
