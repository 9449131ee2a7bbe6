//! One request, sent again as long as that can help.

use std::time::Duration;

use backstop_client::{Answer, Endpoint, FailureKind, Limits, ask};
use serde_json::{Map, Value, json};

use crate::QualifyError;
use crate::args::SuiteArgs;
use crate::random::request_seed;
use crate::suites::Sampling;

/// Without a word from the server: this, twice this, ...
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// However long the server asks for.
const PAUSE_MAX: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// How requests are made and sent.
pub(crate) struct Asking {
    pub(crate) endpoint: Endpoint,
    pub(crate) samples: u32,
    pub(crate) concurrency: usize,
    model: String,
    sampling: Sampling,
    seed: u64,
    further: Map<String, Value>,
    omitted: Vec<String>,
    is_streamed: bool,
    patience: Duration,
    retries: u32,
}

impl Asking {
    pub(crate) fn new(endpoint: Endpoint, args: &SuiteArgs, sampling: &Sampling) -> Self {
        Self {
            endpoint,
            samples: sampling.samples,
            concurrency: usize::from(args.endpoint.concurrency),
            model: args.endpoint.model.clone().unwrap_or_default(),
            sampling: sampling.clone(),
            seed: args.sampling.seed,
            further: args.sampling.body.clone().unwrap_or_default(),
            omitted: args.sampling.omit.clone(),
            is_streamed: args.endpoint.stream,
            patience: args.endpoint.request_timeout,
            retries: args.endpoint.retries,
        }
    }

    /// What a task asks for, with the model, sampling and the seed where it has none of its own.
    pub(crate) fn body(
        &self,
        suite: &str,
        task: &str,
        sample: u32,
        asked: Value,
    ) -> Result<Value, QualifyError> {
        let Value::Object(mut body) = asked else {
            return Err(QualifyError::new(format!(
                "{suite}: the request of {task} is no object"
            )));
        };
        let mut fill = |name: &str, value: Value| {
            if !value.is_null() {
                body.entry(name).or_insert(value);
            }
        };
        fill("model", json!(self.model));
        fill("temperature", json!(self.sampling.temperature));
        fill("top_p", json!(self.sampling.top_p));
        fill("max_tokens", json!(self.sampling.max_tokens));
        fill("seed", json!(request_seed(self.seed, suite, task, sample)));
        if self.is_streamed {
            fill("stream", json!(true));
            fill("stream_options", json!({"include_usage": true}));
        }
        body.extend(self.further.clone());
        body.retain(|name, _| !self.omitted.iter().any(|omitted| omitted == name));
        Ok(body.into())
    }

    /// Asks, and says how often it had to ask again.
    pub(crate) async fn ask(&self, body: &Value) -> (Answer, u32) {
        let path = if body.get("messages").is_some() {
            "/v1/chat/completions"
        } else {
            "/v1/completions"
        };
        let limits = Limits {
            patience: self.patience,
            bytes_max: ANSWER_BYTES_MAX,
        };
        ask_again(&self.endpoint, path, body, limits, self.retries).await
    }
}

/// Asks as often as that can help, and says how often it had to ask again.
pub(crate) async fn ask_again(
    endpoint: &Endpoint,
    path: &str,
    body: &Value,
    limits: Limits,
    retries: u32,
) -> (Answer, u32) {
    let mut again = 0;
    loop {
        let answer = ask(endpoint, path, body, limits).await;
        if again == retries || !may_pass(&answer) {
            return (answer, again);
        }
        tokio::time::sleep(pause(answer.retry_after, again)).await;
        again += 1;
    }
}

/// Whether the failure may be another time's.
fn may_pass(answer: &Answer) -> bool {
    match answer.failure.as_ref().map(|failure| failure.kind) {
        Some(FailureKind::Connection) => true,
        Some(FailureKind::Status) => matches!(answer.status, Some(429 | 503)),
        _ => false,
    }
}

/// How long to wait before asking again.
pub(crate) fn pause(retry_after: Option<Duration>, again: u32) -> Duration {
    let growing = FIRST_PAUSE.saturating_mul(1 << again.min(16));
    retry_after.unwrap_or(growing).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use backstop_client::Failure;
    use clap::Parser;

    use super::*;

    fn asking(line: &str) -> Asking {
        let line = format!(
            "backstop-qualify --suite s --url http://127.0.0.1:1 --model m --into d {line}"
        );
        let args = crate::CommandLine::try_parse_from(line.split_whitespace())
            .unwrap()
            .suites;
        let endpoint = Endpoint::new("http://127.0.0.1:1", None, None).unwrap();
        let sampling = Sampling::default().with(&args.sampling).unwrap();
        Asking::new(endpoint, &args, &sampling)
    }

    #[test]
    fn a_task_has_the_first_word_and_the_operator_the_last() {
        let asked = json!({"messages": [], "max_tokens": 5});
        let body = asking("--max-tokens 9 --top-p 0.5")
            .body("s", "t", 0, asked.clone())
            .unwrap();
        assert_eq!(body["max_tokens"], 5);
        assert_eq!(body["top_p"], 0.5);
        assert_eq!(body["model"], "m");
        assert!(body["seed"].is_u64());
        let line = "--omit seed,max_tokens --body {\"max_completion_tokens\":7}";
        let body = asking(line).body("s", "t", 0, asked).unwrap();
        assert_eq!(body["max_completion_tokens"], 7);
        assert!(body.get("seed").is_none() && body.get("max_tokens").is_none());
    }

    #[test]
    fn pauses_grow_and_are_what_the_server_asks_for_within_bounds() {
        assert_eq!(pause(None, 0), FIRST_PAUSE);
        assert_eq!(pause(None, 2), FIRST_PAUSE * 4);
        assert_eq!(pause(None, 99), PAUSE_MAX);
        let asked = |seconds| pause(Some(Duration::from_secs(seconds)), 0);
        assert_eq!(asked(3), Duration::from_secs(3));
        assert_eq!(asked(3600), PAUSE_MAX);
    }

    #[test]
    fn only_what_may_pass_is_asked_again() {
        let failed = |kind, status| Answer {
            status,
            failure: Some(Failure {
                kind,
                message: String::new(),
            }),
            ..Answer::default()
        };
        assert!(may_pass(&failed(FailureKind::Connection, None)));
        assert!(may_pass(&failed(FailureKind::Status, Some(503))));
        for failure in [
            failed(FailureKind::Status, Some(500)),
            failed(FailureKind::Status, Some(400)),
            failed(FailureKind::Timeout, None),
            failed(FailureKind::Broken, Some(200)),
        ] {
            assert!(!may_pass(&failure), "{failure:?}");
        }
        assert!(!may_pass(&Answer::default()));
    }
}
