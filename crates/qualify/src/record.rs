//! What a qualification leaves on disk, and what the report is made of.
//!
//! A directory has `run.json` (a [`Run`]), `answers/SUITE.jsonl` (an [`Attempt`] a line, as they come), `repeats/N/SUITE.jsonl`
//! (the same, for the second and later runs of the same), and `measures/NAME.json` (lists of [`Measure`]), one file for each
//! suite, benchmark, adapter or comparison. A slash in a suite's name is one in its file's. [`crate::store::Results`] reads it.

use std::collections::BTreeMap;

use backstop_client::{Failure, ToolCall, Usage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What was asked for, and of whom. A directory is only resumed by the same run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// This program, `NAME VERSION`.
    pub program: String,
    /// Whom.
    pub subject: Subject,
    /// Everything that decides what is asked, for each suite: limits, sampling, seed, digests of data.
    pub settings: BTreeMap<String, Value>,
    /// Seconds since 1970.
    pub began_unix_s: u64,
}

/// Whom was asked, as far as it says so itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// Address, without a key.
    pub url: String,
    /// The model's name in requests.
    pub model: String,
    /// Backstop's `NAME@DIGEST`, where it is one.
    pub backstop_model: Option<String>,
    /// `system_fingerprint`.
    pub fingerprint: Option<String>,
    /// `GET /version`, where there is one: binary, device, settings.
    pub version: Option<Value>,
    /// The entry of `GET /v1/models`: context, provenance with digests.
    pub entry: Option<Value>,
}

/// One answer to one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The task's name within its suite.
    pub task: String,
    /// Which of several answers, from 0 on.
    pub sample: u32,
    /// What became of it.
    pub outcome: Outcome,
    /// From 0 to 1; 1 is right.
    pub score: f64,
    /// Why not, for people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Marks to count by, such as `{"trigger": true, "schema": false}`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub marks: BTreeMap<String, Value>,
    /// The body that was sent last; where there are several turns, it has those before.
    pub request: Value,
    /// What came back, one for each turn.
    pub replies: Vec<Reply>,
    /// How often a request had to be sent again: a failed connection, a 429, a 503.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub retries: u32,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Right.
    Passed,
    /// Wrong.
    Failed,
    /// The model declined.
    Refused,
    /// The answer ended at its longest length.
    Truncated,
    /// The server gave no whole answer.
    NoAnswer,
}

/// A whole answer, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Text.
    pub text: String,
    /// Reasoning.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub reasoning: String,
    /// `message.refusal`: the server's word that the model declines.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refusal: Option<String>,
    /// Calls of tools.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tool_calls: Vec<ToolCall>,
    /// Why it ended.
    pub finish_reason: Option<String>,
    /// Tokens.
    pub usage: Option<Usage>,
    /// Why it is not whole.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<Failure>,
    /// Time to the first piece.
    pub first_s: Option<f64>,
    /// Time to the end.
    pub total_s: f64,
}

impl Reply {
    /// What somebody would have to read: text and calls.
    pub fn characters(&self) -> u64 {
        let calls = self.tool_calls.iter();
        let calls: usize = calls
            .map(|call| call.name.chars().count() + call.arguments.chars().count())
            .sum();
        (self.text.chars().count() + calls) as u64
    }
}

impl From<&backstop_client::Answer> for Reply {
    fn from(answer: &backstop_client::Answer) -> Self {
        Self {
            text: answer.text.clone(),
            reasoning: answer.reasoning.clone(),
            refusal: answer.refusal.clone(),
            tool_calls: answer.tool_calls.clone(),
            finish_reason: answer.finish_reason.clone(),
            usage: answer.usage,
            failure: answer.failure.clone(),
            first_s: answer.first().map(|first| first.as_secs_f64()),
            total_s: answer.total.as_secs_f64(),
        }
    }
}

/// One number that came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// `code/humaneval`, `tools`, `bench/serve`, `lm-eval/arc_easy` ...
    pub suite: String,
    /// `pass@1`, `schema_validity`, `ttft_p50_s` ... with its unit last, if it has one.
    pub metric: String,
    /// A fraction for rates, not percent.
    pub value: f64,
    /// How sure that is.
    pub interval: Option<Interval>,
    /// Tasks or requests that it is of.
    pub count: u64,
    /// Answers for each task, where there were several.
    #[serde(default = "one")]
    pub samples: u32,
    /// What makes it comparable with others: temperature, k, shots, harness, context ...
    #[serde(default)]
    pub settings: BTreeMap<String, Value>,
    /// Who measured: this program, or an adapter's package and version.
    pub source: String,
}

/// An interval of confidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// 0.95, as a rule.
    pub confidence: f64,
    /// `wilson`, `bootstrap`, `paired bootstrap` ...
    pub method: String,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
