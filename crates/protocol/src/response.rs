//! What all generating endpoints' answers share: stamp, usage, reasons for the end.

use serde::{Serialize, Serializer};

/// What every chunk and every answer of one request repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseStamp {
    /// The answer's id, for example `chatcmpl-…`.
    pub id: String,
    /// When the request arrived, in seconds since 1970.
    pub created_s: u64,
    /// The model's served name.
    pub model: String,
    /// Which build and weights answered.
    pub system_fingerprint: Option<String>,
}

/// Token counts of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptTokensDetails,
    completion_tokens_details: CompletionTokensDetails,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct PromptTokensDetails {
    cached_tokens: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct CompletionTokensDetails {
    reasoning_tokens: u32,
}

impl Usage {
    /// Usage of one prompt. `cached_tokens` are those of the prompt that the prefix cache held,
    /// `reasoning_tokens` those of the completion that were reasoning.
    pub fn new(
        prompt_tokens: u32,
        cached_tokens: u32,
        completion_tokens: u32,
        reasoning_tokens: u32,
    ) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
            prompt_tokens_details: PromptTokensDetails { cached_tokens },
            completion_tokens_details: CompletionTokensDetails { reasoning_tokens },
        }
    }

    /// The usage of an answer in which nothing was to be generated.
    pub fn of_prompt(self) -> Self {
        let cached_tokens = self.prompt_tokens_details.cached_tokens;
        Self::new(self.prompt_tokens, cached_tokens, 0, 0)
    }

    /// Tokens of the prompts.
    pub fn prompt_tokens(self) -> u32 {
        self.prompt_tokens
    }

    /// Tokens of the prompts that the prefix cache held.
    pub fn cached_tokens(self) -> u32 {
        self.prompt_tokens_details.cached_tokens
    }

    /// Tokens generated.
    pub fn completion_tokens(self) -> u32 {
        self.completion_tokens
    }

    /// Generated tokens that were reasoning.
    pub fn reasoning_tokens(self) -> u32 {
        self.completion_tokens_details.reasoning_tokens
    }

    /// The usage of two parts of one answer: of two prompts, or, with a usage whose prompt is
    /// empty, of two choices for one prompt.
    pub fn plus(self, other: Self) -> Self {
        let cached = |usage: Self| usage.prompt_tokens_details.cached_tokens;
        let reasoning = |usage: Self| usage.completion_tokens_details.reasoning_tokens;
        Self::new(
            self.prompt_tokens.saturating_add(other.prompt_tokens),
            cached(self).saturating_add(cached(other)),
            self.completion_tokens
                .saturating_add(other.completion_tokens),
            reasoning(self).saturating_add(reasoning(other)),
        )
    }
}

/// Why a choice ended. A failure is none of these: it is an error event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it, or a stop string or stop token did.
    Stop,
    /// It reached `max_tokens` or the model's maximum length.
    Length,
    /// The model called tools.
    ToolCalls,
}

impl FinishReason {
    /// What the API calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
        }
    }
}

/// What stopped a choice, if the request named it: a stop string or a stop token id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum StopReason {
    /// The stop string.
    Text(String),
    /// The stop token's id.
    Token(u32),
}

/// JSON has no infinity, and a masked token has a log-probability of minus infinity.
pub(crate) fn serialize_logprob<S: Serializer>(logprob: &f32, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_f32(wire_logprob(*logprob))
}

/// The lowest log-probability that the wire form carries, as OpenAI writes it, stands for all
/// that is lower and for what is not a number.
pub(crate) fn wire_logprob(logprob: f32) -> f32 {
    const LOWEST: f32 = -9999.0;
    if logprob.is_nan() {
        LOWEST
    } else {
        logprob.clamp(LOWEST, 0.0)
    }
}
