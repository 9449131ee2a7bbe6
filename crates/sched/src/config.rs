//! The limits within which the scheduler works.

use backstop_types::{AttentionSpan, KvSpec};

use crate::{PromptLookup, Speculation};

/// Capacities of a scheduler. Every queue and table is bounded by one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Shape of the KV cache.
    pub kv: KvSpec,
    /// Sequences that may run at once; also the number of slots.
    pub max_num_seqs: u32,
    /// Tokens that a step may compute. At least `max_num_seqs`, so that every running sequence
    /// can advance in every step.
    pub max_num_batched_tokens: u32,
    /// Rows of logits that a step may compute. At least `max_num_seqs`, so that every running
    /// sequence can have one in every step; more are used to rate prompts.
    pub max_logit_rows: u32,
    /// Sequences that may wait to be admitted. Preempted ones come on top.
    pub max_waiting: u32,
    /// Prompt and generated tokens of a sequence together.
    pub max_model_len: u32,
    /// Plans that may be in flight at once; at least 1.
    pub max_in_flight_plans: u32,
    /// Whether sequences share the blocks of equal prefixes.
    pub enable_prefix_caching: bool,
    /// Failed steps that a sequence survives.
    pub max_step_failures: u32,
    /// How to guess tokens ahead, if at all. A sequence with guesses in flight stands in no other
    /// plan until they are checked.
    pub speculation: Option<Speculation>,
}

/// Why a configuration cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value that must be at least as large as the minimum is not.
    #[error("{name} is {value} and must be at least {min}")]
    TooSmall {
        /// Name of the field.
        name: &'static str,
        /// Its value.
        value: u32,
        /// The least that works.
        min: u32,
    },
    /// The KV cache has no attention group.
    #[error("the KV cache has no attention group")]
    NoGroups,
    /// A step cannot hold one token of each running sequence.
    #[error(
        "max_num_batched_tokens is {max_num_batched_tokens} and must be at least max_num_seqs, \
         which is {max_num_seqs}"
    )]
    BudgetBelowSequences {
        /// Tokens of a step.
        max_num_batched_tokens: u32,
        /// Sequences of a step.
        max_num_seqs: u32,
    },
}

impl SchedulerConfig {
    /// Refuses configurations under which the scheduler could not keep its promises.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let at_least = |name, value, min| {
            if value < min {
                Err(ConfigError::TooSmall { name, value, min })
            } else {
                Ok(())
            }
        };
        at_least("block_size", self.kv.block_size, 1)?;
        at_least("max_num_seqs", self.max_num_seqs, 1)?;
        at_least("max_logit_rows", self.max_logit_rows, self.max_num_seqs)?;
        at_least("max_waiting", self.max_waiting, 1)?;
        // One token of prompt and one generated.
        at_least("max_model_len", self.max_model_len, 2)?;
        at_least("max_in_flight_plans", self.max_in_flight_plans, 1)?;
        if let Some(speculation) = &self.speculation {
            at_least("max_draft_tokens", speculation.max_draft_tokens(), 1)?;
        }
        if let Some(Speculation::PromptLookup(lookup)) = &self.speculation {
            let PromptLookup {
                min_ngram,
                max_ngram,
                ..
            } = *lookup;
            at_least("min_ngram", min_ngram, 1)?;
            at_least("max_ngram", max_ngram, min_ngram)?;
        }
        if self.kv.groups.is_empty() {
            return Err(ConfigError::NoGroups);
        }
        for group in &self.kv.groups {
            at_least("num_blocks", group.num_blocks, 1)?;
            if let AttentionSpan::Sliding { visible_keys } = group.span {
                at_least("visible_keys", visible_keys, 1)?;
            }
        }
        if self.max_num_batched_tokens < self.max_num_seqs {
            return Err(ConfigError::BudgetBelowSequences {
                max_num_batched_tokens: self.max_num_batched_tokens,
                max_num_seqs: self.max_num_seqs,
            });
        }
        Ok(())
    }
}
