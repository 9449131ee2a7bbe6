//! What lines say. Their fields are a format that others read: `docs/audit.md` lists them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::hash::Hash;

/// The format of the lines that this program writes.
pub(crate) const FORMAT: u32 = 1;

/// What one line says, beside its number, its time and its hash.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// Begins every file.
    File {
        /// Of the lines.
        format: u32,
        /// The hash of the line that comes before, in another file.
        previous: Hash,
        /// The name of that file.
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<String>,
        /// Names of files that are removed now, because more are not to be kept.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        removes: Vec<String>,
    },
    /// A server begins.
    Start {
        /// Of the program.
        version: String,
        /// It answers only while it can write this log.
        required: bool,
        /// It writes down prompts and answers.
        prompts: bool,
    },
    /// Its models are loaded.
    Ready {
        /// All of them.
        models: Vec<ServedAs>,
    },
    /// A request ended.
    Request(Box<RequestEntry>),
    /// Entries that came before this one were not written: there was no room for them to wait in.
    Lost {
        /// How many.
        entries: u64,
    },
    /// The disk did not confirm entries that stand before this one: a power cut may have taken them.
    Unsynced {
        /// How many.
        entries: u64,
    },
    /// What stands between the entry before and this one is part of an entry, which could not be written whole.
    Torn {
        /// Its length, without the line break behind it.
        bytes: u64,
        /// Its SHA-256.
        sha256: Hash,
    },
    /// A server ends.
    Stop {
        /// How.
        reason: &'static str,
    },
}

/// A model as a server serves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServedAs {
    /// `NAME@DIGEST`, the digest of its weights, as in `x-backstop-model`.
    pub model: Option<String>,
    /// What `system_fingerprint` says: version, and a digest of all that changes answers.
    pub fingerprint: String,
}

/// How an answer ended for who waited for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The connection took all of it.
    Complete,
    /// The connection was gone before.
    #[default]
    Aborted,
}

/// One request and what became of it. What is not known is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RequestEntry {
    /// `x-request-id` of the answer.
    pub request_id: String,
    /// The route's path, from a closed list.
    pub route: &'static str,
    /// The name of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Who connected: the gateway, as a rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Whose certificate it has shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// What gateways say of a request, by header.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<&'static str, String>,
    /// `NAME@DIGEST` of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// A stream was asked for.
    pub streamed: bool,
    /// Tokens of its prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u32>,
    /// Those of them that were in the cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_tokens: Option<u32>,
    /// Tokens of its answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_tokens: Option<u32>,
    /// Why each answer ended, in the order in which they did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub finish_reasons: Vec<&'static str>,
    /// The HTTP status; that which it would have been, if it turned out after the head was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The error's `code`, or else its `type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    /// Whether the client got all of it.
    pub outcome: Outcome,
    /// From its arrival until it left the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_s: Option<f64>,
    /// From its arrival to the first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_s: Option<f64>,
    /// From its arrival to its end.
    pub total_s: f64,
    /// What it said and what was answered, if that is written down.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub texts: Option<Texts>,
}

/// What a request said and what was answered, each up to a length.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Texts {
    /// The request's body.
    pub request: String,
    /// The answers.
    pub answers: Vec<AnswerText>,
    /// Not all is here.
    pub texts_cut: bool,
}

/// What a model said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AnswerText {
    /// Before its answer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reasoning: String,
    /// Its answer.
    pub content: String,
    /// The calls of tools: each name with the arguments behind it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
}
