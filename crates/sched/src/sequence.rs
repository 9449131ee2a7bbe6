//! One sequence and how far it is.

use std::ops::Range;
use std::sync::Arc;

use backstop_kv::SequenceBlocks;
use backstop_kv::fault::{Fault, planted};
use backstop_types::{
    FinishReason, PlanId, SamplingParams, SequenceId, SequenceSlot, SequenceStart, StopConditions,
    TokenId, Usage,
};

use crate::{Arrival, Speculation};

/// Place in the order in which sequences are served: by priority, then by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) priority: i32,
    pub(crate) arrival: u64,
}

/// Index of a sequence in the scheduler's table. Handed on once the sequence is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SequenceIndex(pub(crate) u32);

/// Where a sequence is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// In the queue, without slot and blocks.
    Waiting,
    /// Holds a slot and gets a share of every step.
    Running,
    /// Its end has been reported. It keeps slot and blocks while a plan in flight uses them.
    Ended,
}

/// One sequence.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    pub(crate) id: SequenceId,
    pub(crate) rank: Rank,
    pub(crate) tenant: u64,
    pub(crate) sampling: Arc<SamplingParams>,
    pub(crate) stop: Arc<StopConditions>,
    pub(crate) deadline_ms: Option<u64>,
    pub(crate) stage: Stage,
    pub(crate) slot: Option<SequenceSlot>,
    /// Prompt, and the tokens generated so far.
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) prompt_len: u32,
    /// Number of tokens with which it ends, if nothing ends it before.
    pub(crate) end_len: u32,
    /// Leading positions whose keys and values are in its blocks.
    pub(crate) computed: u32,
    /// `computed`, and what the plans in flight add to it if all guesses are right.
    pub(crate) planned: u32,
    /// Tokens that plans in flight are going to sample.
    pub(crate) samples_in_flight: u32,
    /// The executor's guesses at the tokens behind the last known one.
    pub(crate) proposal: Vec<TokenId>,
    /// Guesses at the tokens that come next, for the plan being made.
    pub(crate) draft: Vec<TokenId>,
    /// Guesses that a plan in flight is going to check.
    pub(crate) drafts_in_flight: u32,
    /// Plans in flight in which it stands.
    pub(crate) plans_in_flight: u32,
    /// The executor knows nothing of it, or nothing that is right.
    pub(crate) must_start: bool,
    /// Failures that it has lived through.
    pub(crate) failures: u32,
    /// The latest failure that was counted, known by the plan that failed first.
    pub(crate) last_failure: Option<PlanId>,
    /// The positions before this one have rated the prompt token that follows them, as far as
    /// that was asked for. Preemption does not change it.
    pub(crate) rated_end: u32,
    /// Set at the first admission.
    pub(crate) cached_tokens: Option<u32>,
    pub(crate) blocks: SequenceBlocks,
    /// Blocks that were too many when it was last refused admission, for each group; empty
    /// before that. Spares looking up a long prompt again in every step.
    pub(crate) refused_blocks: Vec<u32>,
    /// First plan for which it is looked up again all the same.
    pub(crate) refused_until: PlanId,
}

impl Sequence {
    pub(crate) fn new(arrival: Arrival, arrival_number: u64, end_len: u32, groups: usize) -> Self {
        let prompt_len = arrival.prompt.len() as u32;
        Self {
            id: arrival.id,
            rank: Rank {
                priority: arrival.priority,
                arrival: arrival_number,
            },
            tenant: arrival.tenant,
            stop: arrival.stop,
            deadline_ms: arrival.deadline_ms,
            stage: Stage::Waiting,
            slot: None,
            tokens: arrival.prompt.to_vec(),
            prompt_len,
            end_len,
            computed: 0,
            planned: 0,
            samples_in_flight: 0,
            proposal: Vec::new(),
            draft: Vec::new(),
            drafts_in_flight: 0,
            plans_in_flight: 0,
            must_start: true,
            failures: 0,
            last_failure: None,
            rated_end: match arrival.sampling.prompt_logprobs {
                Some(_) => 0,
                None => prompt_len - 1,
            },
            sampling: arrival.sampling,
            cached_tokens: None,
            blocks: SequenceBlocks::new(groups, arrival.cache_salt),
            refused_blocks: Vec::new(),
            refused_until: PlanId(0),
        }
    }

    /// Tokens that are known.
    pub(crate) fn known(&self) -> u32 {
        self.tokens.len() as u32
    }

    /// Tokens that are known or being sampled.
    pub(crate) fn total(&self) -> u32 {
        self.known() + self.samples_in_flight
    }

    /// Tokens generated so far.
    pub(crate) fn generated(&self) -> u32 {
        self.known() - self.prompt_len
    }

    /// Positions that could be computed next. The last token of a full-length sequence is only
    /// handed out: nothing follows that would attend to it.
    pub(crate) fn wanted(&self) -> u32 {
        let known = self.total().min(self.end_len - 1);
        // With guesses in flight more is planned than is known.
        known.saturating_sub(self.planned) + self.draft.len() as u32
    }

    /// Guesses the tokens that come next, if the next step samples and no grammar restricts it.
    pub(crate) fn guess(&mut self, speculation: &Speculation) {
        self.draft.clear();
        let samples = self.samples_in_flight == 0 && self.planned + 1 == self.known();
        if samples && self.sampling.constraint.is_none() {
            // Behind the last guess comes one more token.
            let most = match planted(Fault::DraftPastEnd) {
                true => u32::MAX,
                false => self.end_len - 1 - self.known(),
            };
            match speculation {
                Speculation::PromptLookup(lookup) => {
                    lookup.guess(&self.tokens, most, &mut self.draft);
                }
                Speculation::Proposals { max_draft_tokens } => {
                    let most = most.min(*max_draft_tokens) as usize;
                    let proposal = self.proposal.iter().take(most);
                    self.draft.extend(proposal);
                }
            }
        }
    }

    /// Whether prompt tokens wait to be rated.
    pub(crate) fn is_to_be_rated(&self) -> bool {
        self.rated_end < self.prompt_len - 1
    }

    /// Which of these positions rate the prompt token that follows them.
    pub(crate) fn rated(&self, positions: Range<u32>) -> Range<u32> {
        let first = if planted(Fault::RatedTwice) {
            positions.start
        } else {
            positions.start.max(self.rated_end)
        };
        first..positions.end.min(self.prompt_len - 1).max(first)
    }

    /// Rows of logits that the next `tokens` positions need.
    pub(crate) fn logit_rows(&self, tokens: u32) -> u32 {
        if tokens == 0 {
            return 0;
        }
        let end = self.planned + tokens;
        let sampled = end.saturating_sub(self.total() - 1);
        self.rated(self.planned..end).len() as u32 + sampled
    }

    /// How many of the next `tokens` positions need at most `rows` rows of logits.
    pub(crate) fn tokens_within(&self, tokens: u32, rows: u32) -> u32 {
        if self.logit_rows(tokens) <= rows {
            return tokens;
        }
        let first = match self.is_to_be_rated() {
            true => self.rated_end.max(self.planned),
            false => self.total() - 1,
        };
        first + rows - self.planned
    }

    /// Length for which blocks are held in reserve: what is known, and a block more so that a
    /// newcomer does not take the next block of a sequence that generates.
    pub(crate) fn reserved_len(&self, block_size: u32) -> u32 {
        (self.total() + block_size).min(self.end_len - 1)
    }

    /// What the newest token, already among `tokens`, ends.
    pub(crate) fn end_after_token(&self) -> Option<FinishReason> {
        let &token = self.tokens.last()?;
        let may_stop = self.generated() > self.stop.min_tokens || planted(Fault::MinTokensIgnored);
        if may_stop && self.stop.stop_token_ids.contains(&token) {
            return Some(FinishReason::Stop(token));
        }
        (self.known() == self.end_len).then_some(FinishReason::Length)
    }

    /// Forgets everything that plans in flight were going to add.
    pub(crate) fn roll_back(&mut self) {
        self.planned = self.computed;
        self.samples_in_flight = 0;
        self.drafts_in_flight = 0;
        self.must_start = true;
    }

    /// What the executor must know of it.
    pub(crate) fn start(&self) -> SequenceStart {
        assert_eq!(
            self.samples_in_flight, 0,
            "a sequence starts with all its tokens known"
        );
        SequenceStart {
            tokens: Arc::from(self.tokens.as_slice()),
            prompt_len: self.prompt_len,
            sampling: Arc::clone(&self.sampling),
            stop: Arc::clone(&self.stop),
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt_len,
            cached_tokens: self.cached_tokens.unwrap_or(0),
            generated_tokens: self.generated(),
        }
    }
}
