//! A directory of results, read for what a comparison needs of it; no more of it is kept.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use serde_json::Value;

use crate::QualifyError;
use crate::record::{Attempt, Outcome, Reply, Run};
use crate::store;

/// What two may be asked differently in, and yet be compared.
const PECULIAR: [&str; 4] = ["model", "seed", "stream", "stream_options"];

/// A directory of results.
pub(crate) struct Results {
    pub(crate) run: Run,
    /// By the suites' names.
    pub(crate) suites: BTreeMap<String, Tasks>,
}

/// A suite's attempts, by task and sample.
pub(crate) type Tasks = BTreeMap<String, BTreeMap<u32, Essence>>;

/// What matters of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Essence {
    pub(crate) outcome: Outcome,
    pub(crate) score: f64,
    pub(crate) reason: Option<String>,
    /// What was asked, but for the model's name: the same for both, or they are no pair.
    pub(crate) question: u64,
    /// The last reply's text and calls: the same if they are the same.
    pub(crate) answer: u64,
    /// Over all turns.
    pub(crate) characters: u64,
    pub(crate) tokens: Option<u64>,
    /// Of the first turn.
    pub(crate) first_s: Option<f64>,
    /// Over all turns.
    pub(crate) total_s: f64,
}

impl Results {
    /// Reads a directory.
    pub(crate) fn read(directory: &Path) -> Result<Self, QualifyError> {
        let results = store::Results::open(directory)?;
        let mut suites = BTreeMap::new();
        for suite in results.suites()? {
            let mut tasks = Tasks::new();
            for attempt in results.attempts(&suite)? {
                let essence = Essence::of(&attempt);
                let samples = tasks.entry(attempt.task).or_default();
                samples.insert(attempt.sample, essence);
            }
            suites.insert(suite, tasks);
        }
        Ok(Self {
            run: results.run,
            suites,
        })
    }
}

impl Essence {
    pub(crate) fn of(attempt: &Attempt) -> Self {
        let replies = &attempt.replies;
        let tokens = replies.iter();
        let tokens = tokens.map(|reply| Some(reply.usage?.completion_tokens));
        let tokens: Option<Vec<u64>> = tokens.collect();
        Self {
            outcome: attempt.outcome,
            score: attempt.score,
            reason: attempt.reason.clone(),
            question: question_digest(&attempt.request),
            answer: replies.last().map_or(0, answer_digest),
            characters: replies.iter().map(Reply::characters).sum(),
            tokens: tokens.map(|tokens| tokens.iter().sum()),
            first_s: replies.first().and_then(|reply| reply.first_s),
            total_s: replies.iter().map(|reply| reply.total_s).sum(),
        }
    }
}

/// Of what both were asked at first: what comes after a model's own words depends on them.
fn question_digest(request: &Value) -> u64 {
    let mut question = request.clone();
    if let Some(body) = question.as_object_mut() {
        body.retain(|name, _| !PECULIAR.contains(&name.as_str()));
        if let Some(Value::Array(messages)) = body.get_mut("messages") {
            let own = messages
                .iter()
                .position(|message| message["role"] == "assistant");
            messages.truncate(own.unwrap_or(messages.len()));
        }
    }
    digest(&question.to_string())
}

fn answer_digest(reply: &Reply) -> u64 {
    // Ids of calls are drawn anew each time.
    let calls = reply.tool_calls.iter();
    let calls: Vec<_> = calls.map(|call| (&call.name, &call.arguments)).collect();
    digest(&(&reply.text, calls))
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
