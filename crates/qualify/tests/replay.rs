//! A log, replayed through two servers whose words are scripted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What a server answers to a request's last message: a status, and a body.
type Script = fn(&str) -> (u16, Value);

/// A server of OpenAI's API, as far as a replay goes. It ends with the test's process.
struct Scripted {
    url: String,
    bodies: Arc<Mutex<Vec<Value>>>,
}

impl Scripted {
    fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let kept = bodies.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let kept = kept.clone();
                std::thread::spawn(move || serve(stream.unwrap(), script, &kept));
            }
        });
        Self { url, bodies }
    }

    fn bodies(&self) -> Vec<Value> {
        self.bodies.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, script: Script, kept: &Mutex<Vec<Value>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let last = &body["messages"].as_array().unwrap().last().unwrap()["content"];
    let (status, answer) = script(last.as_str().unwrap());
    kept.lock().unwrap().push(body);
    let answer = answer.to_string();
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        answer.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(answer.as_bytes()).unwrap();
}

fn whole(message: &Value, finish_reason: &str) -> (u16, Value) {
    let choice = json!({"message": message, "finish_reason": finish_reason});
    (
        200,
        json!({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}),
    )
}

fn says(text: &str) -> (u16, Value) {
    whole(&json!({"content": text}), "stop")
}

fn calls(name: &str, arguments: &Value) -> (u16, Value) {
    let function = json!({"name": name, "arguments": arguments.to_string()});
    let call = json!({"id": "1", "type": "function", "function": function});
    whole(
        &json!({"content": null, "tool_calls": [call]}),
        "tool_calls",
    )
}

fn primary(asked: &str) -> (u16, Value) {
    match asked {
        "weather" => calls("weather", &json!({"city": "Oslo", "days": 1})),
        "order" => says(r#"{"item": "tea", "count": 2}"#),
        "decline" => whole(&json!({"content": null, "refusal": "No."}), "stop"),
        _ => says("Good morning, secret answer."),
    }
}

/// Another day, other keys, other words, and errors that repeat what was asked.
fn fallback(asked: &str) -> (u16, Value) {
    match asked {
        "weather" => calls("weather", &json!({"days": 2, "city": "Oslo"})),
        "order" => says(r#"{"item": "tea", "number": 2}"#),
        "break" => (
            500,
            json!({"error": {"message": format!("cannot answer: {asked} secret")}}),
        ),
        _ => says("Good evening, secret answer."),
    }
}

fn request(last: &str, further: &Value) -> Value {
    let messages = json!([{"role": "user", "content": last}]);
    let mut body = json!({"model": "gpt", "temperature": 0.7, "top_p": 0.9, "api_key": "sk-secret", "messages": messages});
    let fields = body.as_object_mut().unwrap();
    fields.extend(further.as_object().unwrap().clone());
    body
}

fn log() -> String {
    let tools = json!({"tools": [{"type": "function", "function": {"name": "weather"}}]});
    let json_wanted = json!({"response_format": {"type": "json_object"}});
    let lines = [
        request("weather", &tools),
        json!({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": request("order", &json_wanted)}),
        request("break", &json!({})),
        json!("secret line that is no chat"),
        json!({"call_type": "acompletion", "messages": [{"role": "user", "content": "hello"}], "model_parameters": {}}),
        request("decline", &json!({})),
    ];
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    lines + "{broken secret\n"
}

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("backstop-replay-{}-{name}", std::process::id()));
    let _ignored = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn replay(folder: &Path, log: &str, urls: [&str; 2], further: &[&str]) -> Output {
    let log_path = folder.join("log.jsonl");
    std::fs::write(&log_path, log).unwrap();
    Command::new(env!("CARGO_BIN_EXE_backstop-qualify"))
        .arg("replay")
        .arg(log_path)
        .args(["--url-a", urls[0], "--model-a", "large"])
        .args(["--url-b", urls[1], "--model-b", "small"])
        .args(["--names", "primary,fallback", "--into"])
        .arg(folder.join("out"))
        .args(further)
        .output()
        .unwrap()
}

/// What a replay left, which must have been successful.
fn summary(folder: &Path, done: &Output) -> Value {
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let text = std::fs::read_to_string(folder.join("out/replay.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// How often both did the same, of how many.
fn agreed(summary: &Value, name: &str) -> [u64; 2] {
    let rates = summary["agreement"].as_array().unwrap();
    let rate = rates.iter().find(|rate| rate["name"] == name).unwrap();
    ["agreed", "of"].map(|field| rate[field].as_u64().unwrap())
}

#[test]
fn what_differs_and_what_fails_is_told_and_nothing_is_repeated() {
    let folder = scratch("differs");
    let (a, b) = (Scripted::start(primary), Scripted::start(fallback));
    let done = replay(&folder, &log(), [&a.url, &b.url], &["--repeat-a"]);
    let summary = summary(&folder, &done);
    assert_eq!(summary["requests"], 5);
    let bad = &summary["bad_lines"];
    assert_eq!(bad["no_messages"], json!({"count": 1, "lines": [4]}));
    assert_eq!(bad["no_json"], json!({"count": 1, "lines": [7]}));
    for (name, expected) in [
        ("tool_trigger", [1, 1]),
        ("tool_names", [1, 1]),
        // Another number of days.
        ("tool_arguments", [0, 1]),
        ("json_keys", [0, 1]),
        ("finish_reason", [4, 4]),
    ] {
        assert_eq!(agreed(&summary, name), expected, "{name}");
    }
    assert_eq!(summary["sides"][1]["failures"], json!({"status": 1}));
    assert_eq!(
        summary["sides"][0]["endings"],
        json!({"answered": 4, "refused": 1})
    );
    // The first, asked twice, agrees with itself.
    let repeated = summary["repeated"].as_array().unwrap();
    assert!(!repeated.is_empty() && repeated.iter().all(|rate| rate["agreed"] == rate["of"]));
    let told = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(
        told[0].contains("compared with primary, fallback"),
        "{}",
        told[0]
    );
    // Neither what is printed nor files have what was asked or answered.
    let files = [
        "replay.json",
        "replay.html",
        "pairs.jsonl",
        "measures/replay.json",
    ];
    let files = files.map(|name| std::fs::read_to_string(folder.join("out").join(name)).unwrap());
    for text in told.iter().chain(&files) {
        for word in ["secret", "Oslo", "weather", "Good"] {
            assert!(!text.contains(word), "{word}: {text}");
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn both_are_asked_the_same_and_no_more_than_was_logged() {
    let folder = scratch("asked");
    let (a, b) = (Scripted::start(primary), Scripted::start(fallback));
    let further = ["--limit", "2", "--keep-answers", "--max-tokens", "50"];
    let done = replay(&folder, &log(), [&a.url, &b.url], &further);
    assert_eq!(summary(&folder, &done)["requests"], 2);
    let asked = [(a.bodies(), "large"), (b.bodies(), "small")].map(|(mut bodies, model)| {
        for body in &mut bodies {
            assert_eq!(
                body.as_object_mut().unwrap().shift_remove("model"),
                Some(json!(model))
            );
            assert_eq!(
                (&body["temperature"], &body["max_tokens"]),
                (&json!(0), &json!(50))
            );
            assert!(body.get("api_key").is_none() && body.get("top_p").is_none());
        }
        bodies.sort_by_key(ToString::to_string);
        bodies
    });
    assert_eq!(asked[0].len(), 2);
    assert_eq!(asked[0], asked[1]);
    let kept = std::fs::read_to_string(folder.join("out/pairs.jsonl")).unwrap();
    assert!(kept.contains("Oslo") && !kept.contains("sk-secret"));
    // What is there is not replaced.
    let again = replay(&folder, &log(), [&a.url, &b.url], &[]);
    let error = String::from_utf8(again.stderr).unwrap();
    assert!(
        !again.status.success() && error.contains("it has a replay already"),
        "{error}"
    );
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_copy_agrees_in_everything() {
    let folder = scratch("copy");
    let (a, b) = (Scripted::start(primary), Scripted::start(primary));
    let done = replay(&folder, &log(), [&a.url, &b.url], &["--as-logged"]);
    let summary = summary(&folder, &done);
    let rates = summary["agreement"].as_array().unwrap();
    assert!(
        rates.iter().all(|rate| rate["agreed"] == rate["of"]),
        "{rates:?}"
    );
    assert_eq!(agreed(&summary, "json_values"), [1, 1]);
    assert_eq!(summary["text_similarity"]["value"], 1.0);
    let is_as_logged = |body: &Value| body["temperature"] == 0.7 && body["top_p"] == 0.9;
    assert!(a.bodies().iter().any(is_as_logged));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_log_without_chats_is_an_error_that_names_lines() {
    let folder = scratch("none");
    let nobody = "http://127.0.0.1:9";
    let done = replay(
        &folder,
        "secret\n{\"input\": \"secret\"}\n",
        [nobody; 2],
        &[],
    );
    let error = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(
        error.contains("1 no JSON (line 1); 1 without messages (line 2)"),
        "{error}"
    );
    assert!(!error.contains("secret"), "{error}");
    assert!(!folder.join("out").exists(), "there is nothing to keep");
    std::fs::remove_dir_all(folder).unwrap();
}
