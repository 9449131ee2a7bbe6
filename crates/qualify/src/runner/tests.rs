//! Against a server that is scripted here, request by request.

use std::sync::Mutex;

use backstop_client::Endpoint;
use clap::Parser;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::record::Measure;
use crate::suites::Sampling;

/// Tasks whose answer must be the server's; as many turns as said.
struct Spoken {
    tasks: Vec<String>,
    turns: usize,
}

impl Suite for Spoken {
    fn name(&self) -> &str {
        "spoken"
    }

    fn tasks(&self) -> &[String] {
        &self.tasks
    }

    fn step(&self, task: usize, _: u32, replies: &[Reply]) -> Result<Step, QualifyError> {
        if replies.len() < self.turns {
            let content = format!("{} {}", self.tasks[task], replies.len());
            return Ok(Step::Ask(
                json!({"messages": [{"role": "user", "content": content}]}),
            ));
        }
        let texts: Vec<&str> = replies.iter().map(|reply| reply.text.as_str()).collect();
        Ok(Step::Judged(without_score(
            Outcome::Passed,
            texts.join("|"),
        )))
    }

    fn measures(&self, _: &[Attempt]) -> Vec<Measure> {
        Vec::new()
    }
}

fn suite(tasks: usize, turns: usize) -> Arc<dyn Suite> {
    let tasks = (0..tasks).map(|number| format!("task/{number}")).collect();
    Arc::new(Spoken { tasks, turns })
}

/// What the server says to the n-th request with this body.
type Script = fn(usize, &Value) -> String;

async fn serve(script: Script) -> (String, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = bodies.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let body = read_request(&mut stream).await;
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(body.clone());
                    seen.len() - 1
                };
                let _ = stream.write_all(script(number, &body).as_bytes()).await;
            });
        }
    });
    (url, bodies)
}

async fn read_request(stream: &mut TcpStream) -> Value {
    let (mut read, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&read).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).unwrap();
            let length: usize = length.lines().next().unwrap().parse().unwrap();
            if body.len() >= length {
                return serde_json::from_slice(&read[head.len() + 4..]).unwrap();
            }
        }
        let count = stream.read(&mut piece).await.unwrap();
        assert!(count > 0, "the client went away");
        read.extend_from_slice(&piece[..count]);
    }
}

fn response(status: &str, headers: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{body}",
        body.len()
    )
}

fn says(text: &str) -> String {
    let message = json!({"message": {"content": text}, "finish_reason": "stop"});
    response("200 OK", "", &json!({"choices": [message]}))
}

/// As a server that is batch-invariant: what it says depends on the request alone.
fn repeats(_: usize, body: &Value) -> String {
    says(&format!(
        "{} by {}",
        body["messages"][0]["content"], body["seed"]
    ))
}

fn job(url: &str, options: &str, suite: Arc<dyn Suite>) -> Arc<Job> {
    let line = format!("backstop-qualify --suite s --url {url} --model m --into d {options}");
    let args = crate::CommandLine::try_parse_from(line.split_whitespace())
        .unwrap()
        .suites;
    let sampling = Sampling::default().with(&args.sampling).unwrap();
    let endpoint = Endpoint::new(url, None, None).unwrap();
    Job::new(Asking::new(endpoint, &args, &sampling), suite)
}

async fn attempts(
    job: &Arc<Job>,
    done: &HashSet<(String, u32)>,
) -> Result<Vec<Attempt>, QualifyError> {
    let mut kept = Vec::new();
    let tasks = job.suite.tasks().len();
    run(job, tasks, done, |attempt| {
        kept.push(attempt);
        Ok(())
    })
    .await?;
    kept.sort_by(|one, other| (&one.task, one.sample).cmp(&(&other.task, other.sample)));
    for reply in kept.iter_mut().flat_map(|attempt| &mut attempt.replies) {
        (reply.first_s, reply.total_s) = (None, 0.0);
    }
    Ok(kept)
}

const SAMPLED: &str = "--samples 3 --temperature 1 --concurrency";

#[tokio::test]
async fn the_same_is_asked_whatever_the_concurrency() {
    let (url, _) = serve(repeats).await;
    let none = HashSet::new();
    let alone = attempts(&job(&url, &format!("{SAMPLED} 1"), suite(10, 2)), &none)
        .await
        .unwrap();
    let beside = attempts(&job(&url, &format!("{SAMPLED} 16"), suite(10, 2)), &none)
        .await
        .unwrap();
    assert_eq!(alone.len(), 30);
    assert_eq!(alone, beside);
    let texts: HashSet<&str> = alone
        .iter()
        .map(|attempt| attempt.replies[1].text.as_str())
        .collect();
    assert_eq!(texts.len(), 30, "each sample has a seed of its own");
}

#[tokio::test]
async fn what_is_done_is_not_asked_again() {
    let (url, bodies) = serve(repeats).await;
    let job = job(&url, &format!("{SAMPLED} 4"), suite(4, 1));
    let all = attempts(&job, &HashSet::new()).await.unwrap();
    bodies.lock().unwrap().clear();
    let done = all[..7]
        .iter()
        .map(|attempt| (attempt.task.clone(), attempt.sample))
        .collect();
    assert_eq!(attempts(&job, &done).await.unwrap(), all[7..]);
    assert_eq!(bodies.lock().unwrap().len(), 5);
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again_when_it_says() {
    let (url, _) = serve(|number, body| match number {
        0 => response("429 Too Many Requests", "retry-after: 0\r\n", &json!({})),
        1 => response("503 Service Unavailable", "retry-after: 0\r\n", &json!({})),
        _ => repeats(number, body),
    })
    .await;
    let found = attempts(&job(&url, "", suite(1, 1)), &HashSet::new())
        .await
        .unwrap();
    assert_eq!((found[0].outcome, found[0].retries), (Outcome::Passed, 2));
    assert_eq!(found[0].replies.len(), 1);
}

#[tokio::test]
async fn patience_with_a_busy_server_ends() {
    let (url, bodies) =
        serve(|_, _| response("503 Service Unavailable", "retry-after: 0\r\n", &json!({}))).await;
    let found = attempts(&job(&url, "--retries 2", suite(1, 1)), &HashSet::new())
        .await
        .unwrap();
    assert_eq!((found[0].outcome, found[0].retries), (Outcome::NoAnswer, 2));
    assert_eq!(bodies.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_server_that_refuses_or_breaks_off_gave_no_answer() {
    let (url, bodies) = serve(|_, body| match body["messages"][0]["content"].as_str() {
        Some("task/0 0") => response(
            "400 Bad Request",
            "",
            &json!({"error": {"message": "too long"}}),
        ),
        Some("task/1 0") => says("whole").replace("content-length: ", "content-length: 9"),
        _ => says("yes"),
    })
    .await;
    let found = attempts(&job(&url, "", suite(3, 1)), &HashSet::new())
        .await
        .unwrap();
    let outcomes: Vec<Outcome> = found.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(
        outcomes,
        [Outcome::NoAnswer, Outcome::NoAnswer, Outcome::Passed]
    );
    assert_eq!(found[0].reason.as_deref(), Some("400: too long"));
    assert_eq!(bodies.lock().unwrap().len(), 3, "neither is asked again");
}

#[tokio::test]
async fn a_server_that_is_gone_ends_the_run_and_every_attempt_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let job = job(&url, "--retries 0 --concurrency 2", suite(50, 1));
    let mut kept = Vec::new();
    let ended = run(&job, 50, &HashSet::new(), |attempt| {
        kept.push(attempt.outcome);
        Ok(())
    })
    .await;
    assert!(
        ended
            .unwrap_err()
            .to_string()
            .contains("the server is gone")
    );
    assert_eq!(kept, [Outcome::NoAnswer; LOST_MAX + 2]);
}

#[tokio::test]
async fn a_conversation_without_an_end_has_failed() {
    let (url, _) = serve(repeats).await;
    let found = attempts(&job(&url, "", suite(1, usize::MAX)), &HashSet::new())
        .await
        .unwrap();
    assert_eq!(
        (found[0].outcome, found[0].replies.len()),
        (Outcome::Failed, TURNS_MAX)
    );
}
