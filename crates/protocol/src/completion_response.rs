//! Answers of `POST /v1/completions`. A chunk of a stream has the same form as the whole.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::response::{FinishReason, ResponseStamp, StopReason, Usage, wire_logprob};

/// A whole answer, or one chunk of a stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextCompletion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_fingerprint: Option<&'a str>,
    choices: Vec<CompletionChoice>,
    /// `Some(None)` is `null`: it is going to be reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

/// One choice, or a chunk's part of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CompletionChoice {
    /// Its place among the choices of all prompts.
    pub index: u32,
    /// The text; in a chunk, what is new.
    pub text: String,
    /// Log-probabilities, if they were asked for.
    pub logprobs: Option<CompletionLogprobs>,
    /// Why it ended; `None` in all chunks but the last.
    pub finish_reason: Option<FinishReason>,
    /// What stopped it, if the request named it.
    pub stop_reason: Option<StopReason>,
}

/// Log-probabilities in the form of the legacy endpoint: parallel lists over the tokens. A prompt's
/// first token, which follows nothing, has `null` for them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<TopTokens>>,
    text_offset: Vec<usize>,
}

/// The most likely tokens at one position, as a JSON object in this order.
#[derive(Clone, Debug, PartialEq)]
struct TopTokens(Vec<(String, f32)>);

impl Serialize for TopTokens {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(Some(self.0.len()))?;
        for (token, logprob) in &self.0 {
            map.serialize_entry(token, logprob)?;
        }
        map.end()
    }
}

impl CompletionLogprobs {
    /// Adds a token: its text, its log-probability, the most likely tokens at its position (most
    /// likely first), and where in the choice's text it begins, in characters.
    pub fn push(
        &mut self,
        token: String,
        logprob: f32,
        alternatives: impl IntoIterator<Item = (String, f32)>,
        text_offset: usize,
    ) {
        let mut top: Vec<(String, f32)> = Vec::new();
        // The sampled token always stands in the object, as clients look it up there; and texts
        // can collide where several tokens are parts of characters, so the likeliest one stays.
        for (text, logprob) in alternatives.into_iter().chain([(token.clone(), logprob)]) {
            if !top.iter().any(|(known, _)| *known == text) {
                top.push((text, wire_logprob(logprob)));
            }
        }
        self.tokens.push(token);
        self.token_logprobs.push(Some(wire_logprob(logprob)));
        self.top_logprobs.push(Some(TopTokens(top)));
        self.text_offset.push(text_offset);
    }

    /// Adds the first token of a prompt.
    pub fn push_first(&mut self, token: String, text_offset: usize) {
        self.tokens.push(token);
        self.token_logprobs.push(None);
        self.top_logprobs.push(None);
        self.text_offset.push(text_offset);
    }
}

/// Builds the answer of one request, whole or in chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompletionChunks {
    stamp: ResponseStamp,
    announces_usage: bool,
}

impl CompletionChunks {
    /// A builder that stamps everything with `stamp`.
    pub fn new(stamp: ResponseStamp) -> Self {
        Self {
            stamp,
            announces_usage: false,
        }
    }

    /// The same builder, whose chunks have a `null` usage if a last chunk is going to report it.
    #[must_use]
    pub fn announcing_usage(mut self, announces_usage: bool) -> Self {
        self.announces_usage = announces_usage;
        self
    }

    /// One chunk of a stream.
    pub fn chunk(&self, choice: CompletionChoice) -> TextCompletion<'_> {
        self.stamped(vec![choice], self.announces_usage.then_some(None))
    }

    /// The chunk that reports the usage, after all choices have ended.
    pub fn usage(&self, usage: Usage) -> TextCompletion<'_> {
        self.stamped(Vec::new(), Some(Some(usage)))
    }

    /// The whole answer.
    pub fn complete(&self, choices: Vec<CompletionChoice>, usage: Usage) -> TextCompletion<'_> {
        self.stamped(choices, Some(Some(usage)))
    }

    fn stamped(
        &self,
        choices: Vec<CompletionChoice>,
        usage: Option<Option<Usage>>,
    ) -> TextCompletion<'_> {
        TextCompletion {
            id: &self.stamp.id,
            object: "text_completion",
            created: self.stamp.created_s,
            model: &self.stamp.model,
            system_fingerprint: self.stamp.system_fingerprint.as_deref(),
            choices,
            usage,
        }
    }
}

impl TextCompletion<'_> {
    /// The same chunk with the usage so far, for clients that want it in every chunk.
    pub fn with_usage(self, usage: Usage) -> Self {
        Self {
            usage: Some(Some(usage)),
            ..self
        }
    }
}
