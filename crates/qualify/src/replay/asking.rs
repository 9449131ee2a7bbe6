//! Asks both servers what the log has, and keeps marks of what they answer.

use backstop_client::{Answer, Endpoint, FailureKind, Limits};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::agreement::{Agreement, Asked};
use super::args::ReplayArgs;
use super::log::Logged;
use crate::runner::ask_again;
use crate::{QualifyError, record, subject};

const PATH: &str = "/v1/chat/completions";
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Bytes of a mark: enough to tell texts apart.
const MARK_BYTES: usize = 8;

/// Both servers, and how they are asked.
pub(crate) struct Asking {
    endpoints: [Endpoint; 2],
    models: [String; 2],
    limits: Limits,
    retries: u32,
    as_logged: bool,
    max_tokens: Option<u32>,
    repeat_a: bool,
    keep_answers: bool,
    seed: u32,
    /// Goes into every mark and is never written down, so that nobody finds texts by trying.
    salt: [u8; 32],
}

/// A request, and what both made of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    /// In the log, from 1 on.
    pub line: u64,
    /// The same for the same request, within this run.
    pub request_mark: String,
    /// What each answered.
    pub replies: [Reply; 2],
    /// How far they agree, where both are whole.
    pub agreement: Option<Agreement>,
    /// How far the first agrees with itself, where it was asked twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeated: Option<Agreement>,
    /// With --keep-answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
}

/// Contents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// What was sent, but for the model's name.
    pub request: Value,
    /// What came back.
    pub replies: [record::Reply; 2],
}

/// What is kept of an answer in any case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// What became of it.
    pub ending: Ending,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// Why it is not whole.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<FailureKind>,
    /// As the server says.
    pub finish_reason: Option<String>,
    /// The same for the same answer, within this run.
    pub mark: String,
    /// Of text and calls.
    pub characters: u64,
    /// As the server counts them.
    pub tokens: Option<u64>,
    /// Calls of tools.
    pub calls: usize,
    /// Seconds to the first piece.
    pub first_s: Option<f64>,
    /// Seconds to the end.
    pub total_s: f64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// A whole answer.
    Answered,
    /// A whole answer, which declines: a `refusal`, or the content filter.
    Refused,
    /// None, or a part of one.
    Failed,
}

impl Asking {
    pub(crate) fn new(args: &ReplayArgs) -> Result<Self, QualifyError> {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt)
            .map_err(|error| QualifyError::new(format!("no random numbers: {error}")))?;
        let servers = &args.servers;
        let [a, b] = servers.each();
        Ok(Self {
            endpoints: [subject::endpoint(&a)?, subject::endpoint(&b)?],
            models: [servers.model_a.clone(), servers.model_b.clone()],
            limits: Limits {
                patience: servers.request_timeout,
                bytes_max: ANSWER_BYTES_MAX,
            },
            retries: servers.retries,
            as_logged: args.as_logged,
            max_tokens: args.max_tokens,
            repeat_a: args.repeat_a,
            keep_answers: args.keep_answers,
            seed: args.seed,
            salt,
        })
    }

    /// Asks both, one after the other: who is first takes turns, so that neither always finds the other's heat.
    pub(crate) async fn exchange(&self, logged: Logged) -> Exchange {
        let asked = Asked::of(&logged.body);
        let body = self.body(logged.body);
        let first = usize::from(logged.line.is_multiple_of(2));
        let one = self.ask(first, &body).await;
        let other = self.ask(1 - first, &body).await;
        let [a, b] = if first == 0 {
            [one, other]
        } else {
            [other, one]
        };
        let compare = |a: &Answer, b: &Answer| {
            (a.is_whole() && b.is_whole()).then(|| Agreement::of(asked, a, b))
        };
        let repeated = match self.repeat_a {
            true => compare(&a, &self.ask(0, &body).await),
            false => None,
        };
        let request = Value::Object(body);
        Exchange {
            line: logged.line,
            request_mark: self.mark(&request.to_string()),
            agreement: compare(&a, &b),
            repeated,
            replies: [self.reply(&a), self.reply(&b)],
            kept: self.keep_answers.then(|| Kept {
                replies: [(&a).into(), (&b).into()],
                request,
            }),
        }
    }

    /// What is sent, but for the model's name.
    fn body(&self, mut body: Map<String, Value>) -> Map<String, Value> {
        if !self.as_logged {
            body.remove("top_p");
            body.insert("temperature".into(), json!(0));
        }
        body.entry("seed").or_insert_with(|| json!(self.seed));
        if let Some(most) = self.max_tokens {
            let name = match body.contains_key("max_completion_tokens") {
                true => "max_completion_tokens",
                false => "max_tokens",
            };
            let logged = body.get(name).and_then(Value::as_u64);
            let least = logged.map_or(u64::from(most), |logged| logged.min(u64::from(most)));
            body.insert(name.into(), json!(least));
        }
        body.insert("stream".into(), json!(true));
        body.insert("stream_options".into(), json!({"include_usage": true}));
        body
    }

    async fn ask(&self, side: usize, body: &Map<String, Value>) -> Answer {
        let mut body = body.clone();
        body.insert("model".into(), json!(self.models[side]));
        let (endpoint, body) = (&self.endpoints[side], Value::Object(body));
        let (answer, _) = ask_again(endpoint, PATH, &body, self.limits, self.retries).await;
        answer
    }

    fn reply(&self, answer: &Answer) -> Reply {
        let is_filtered = answer.finish_reason.as_deref() == Some("content_filter");
        let ending = match &answer.failure {
            Some(_) => Ending::Failed,
            None if answer.refusal.is_some() || is_filtered => Ending::Refused,
            None => Ending::Answered,
        };
        let calls = answer.tool_calls.iter();
        let calls: Vec<_> = calls.map(|call| (&call.name, &call.arguments)).collect();
        Reply {
            ending,
            status: answer.status,
            failure: answer.failure.as_ref().map(|failure| failure.kind),
            finish_reason: answer.finish_reason.clone(),
            mark: self.mark(&json!([answer.text, calls]).to_string()),
            characters: record::Reply::from(answer).characters(),
            tokens: answer.usage.map(|usage| usage.completion_tokens),
            calls: answer.tool_calls.len(),
            first_s: answer.first().map(|first| first.as_secs_f64()),
            total_s: answer.total.as_secs_f64(),
        }
    }

    fn mark(&self, text: &str) -> String {
        let mut digest = Sha256::new();
        digest.update(self.salt);
        digest.update(text);
        let digest = digest.finalize();
        digest[..MARK_BYTES]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}
