//! How the next token is chosen and when a sequence ends.

use crate::{SharedConstraint, TokenId};

/// How the executor turns logits into a token. Every value has been validated before it gets here.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 means greedy.
    pub temperature: f32,
    /// Keep the `top_k` most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of most likely tokens whose probability reaches `top_p`; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than `min_p` times the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt or output; 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit once for each time it stands in the output.
    pub frequency_penalty: f32,
    /// Subtracted once from the logit of every token that stands in the output.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// The random number for position `p` is a function of (`seed`, `p`) alone, so that a
    /// sequence which is preempted and recomputed draws the same tokens again.
    pub seed: u64,
    /// Report the chosen token's log-probability and those of this many most likely tokens.
    pub logprobs: Option<u32>,
    /// Report the log-probability of every prompt token but the first, with those of this many
    /// most likely tokens at its position.
    pub prompt_logprobs: Option<u32>,
    /// Only tokens that this constraint, mostly a grammar, allows are sampled. A sequence with a
    /// grammar honours its stop tokens, and `min_tokens` is 0.
    pub constraint: Option<SharedConstraint>,
}

impl Default for SamplingParams {
    /// Greedy decoding without penalties.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
            logprobs: None,
            prompt_logprobs: None,
            constraint: None,
        }
    }
}

/// When a sequence ends. Stop strings are the text layer's business: it aborts the sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopConditions {
    /// Tokens to generate at most; at least 1.
    pub max_tokens: u32,
    /// Tokens to generate before a stop token is honoured; until then the executor masks
    /// `stop_token_ids` out.
    pub min_tokens: u32,
    /// Any of these ends the sequence. The end-of-sequence tokens are among them unless the
    /// request asked to ignore them.
    pub stop_token_ids: Vec<TokenId>,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FinishReason {
    /// It generated one of its stop tokens.
    Stop(TokenId),
    /// It reached `max_tokens` or the model's maximum length.
    Length,
    /// Its owner asked for the end.
    Aborted,
    /// It waited in the queue past its deadline.
    DeadlineExceeded,
    /// The grammar that it was to follow could not be followed any further.
    ConstraintFailed,
    /// The executor failed on it, or on its steps more often than is tolerated.
    Failed,
}

/// Token counts of a finished sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Prompt tokens whose keys and values came from the prefix cache when it was first admitted.
    pub cached_tokens: u32,
    /// Tokens generated, the stop token included.
    pub generated_tokens: u32,
}
