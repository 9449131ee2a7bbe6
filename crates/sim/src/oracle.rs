//! What must come of every sequence, computed with infinite memory.

use std::collections::BTreeMap;

use backstop_sched::{Arrival, Notice, Rejection, SchedulerConfig};
use backstop_types::{
    AttentionSpan, FinishReason, PromptLogprobs, SampleFault, SampledToken, SequenceId, TokenId,
    TokenLogprobs, TokenSample, Usage,
};

use crate::fairness::Fairness;
use crate::random::chain;
use crate::scenario::Scenario;

/// Tokens that the simulated model generates. There are few, so that sequences often agree.
const NUM_TOKENS: u64 = 2;

/// Hash of the empty prefix. The salt is part of it, so that blocks shared across salts differ.
pub(crate) fn empty_prefix(salt: u64) -> u64 {
    chain(0x5eed, salt)
}

/// The simulated model: the token that follows a prefix.
pub(crate) fn next_token(prefix: u64, seed: u64) -> TokenId {
    (chain(prefix, seed) % NUM_TOKENS) as TokenId
}

/// The simulated model's opinion of a token that follows a prefix: any number that depends on both.
pub(crate) fn rating(prefix: u64, token: TokenId) -> TokenLogprobs {
    TokenLogprobs {
        logprob: -1.0,
        rank: chain(prefix, token.into()) as u32,
        top: Vec::new(),
    }
}

/// A sequence as it must be.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) arrival: Arrival,
    /// Prompt and tokens handed out.
    pub(crate) tokens: Vec<TokenId>,
    /// Hash of `tokens`.
    prefix: u64,
    pub(crate) end_len: u32,
    /// Prompt tokens that were rated, the first of them unasked.
    rated: u32,
    pub(crate) cached_tokens: Option<u32>,
    failures: u32,
    /// Completed plans by which it must have ended.
    overdue: u64,
}

/// All sequences that live.
#[derive(Clone, Debug)]
pub(crate) struct Oracle {
    config: SchedulerConfig,
    /// Under priorities a sequence may wait as long as better ones keep coming.
    priorities: bool,
    pub(crate) live: BTreeMap<SequenceId, Expected>,
    completed_plans: u64,
    pub(crate) fairness: Fairness,
}

impl Oracle {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            config: scenario.config.clone(),
            priorities: scenario.priorities,
            fairness: Fairness::new(scenario),
            live: BTreeMap::new(),
            completed_plans: 0,
        }
    }

    /// Why an arrival must be refused, judged position by position. `waiting` is the length of
    /// the queue.
    pub(crate) fn refusal(&self, arrival: &Arrival, waiting: u32) -> Option<Rejection> {
        let max_model_len = self.config.max_model_len;
        let prompt_tokens = arrival.prompt.len() as u32;
        if prompt_tokens == 0 {
            return Some(Rejection::EmptyPrompt);
        }
        if arrival.stop.max_tokens == 0 {
            return Some(Rejection::InvalidLimits);
        }
        if prompt_tokens >= max_model_len {
            return Some(Rejection::PromptTooLong {
                prompt_tokens,
                max_model_len,
            });
        }
        if self.live.contains_key(&arrival.id) {
            return Some(Rejection::DuplicateSequence {
                sequence: arrival.id,
            });
        }
        let end_len = max_model_len.min(prompt_tokens + arrival.stop.max_tokens);
        for (group, spec) in self.config.kv.groups.iter().enumerate() {
            let needed_blocks = most_blocks(spec.span, self.config.kv.block_size, end_len - 1);
            if needed_blocks > spec.num_blocks {
                return Some(Rejection::NeverFits {
                    max_tokens_total: end_len,
                    group,
                    needed_blocks,
                    pool_blocks: spec.num_blocks,
                });
            }
        }
        (waiting >= self.config.max_waiting).then_some(Rejection::QueueFull { waiting })
    }

    pub(crate) fn arrive(&mut self, arrival: Arrival) {
        let prompt_len = arrival.prompt.len() as u32;
        let tokens = arrival.prompt.to_vec();
        let empty = empty_prefix(arrival.cache_salt);
        let prefix = tokens
            .iter()
            .fold(empty, |hash, &token| chain(hash, token.into()));
        // The first in rank advances with every plan that completes, if not with this one then
        // with the next. Sequences behind it in rank may hold it up if they run when it is
        // admitted again; there are at most `max_num_seqs` of them.
        let ahead = self.live.len() as u64 + 1 + u64::from(self.config.max_num_seqs);
        let life = 3 * u64::from(self.config.max_model_len + 2);
        let overdue = self.completed_plans + ahead * life * self.fairness.detour();
        let expected = Expected {
            end_len: self
                .config
                .max_model_len
                .min(prompt_len + arrival.stop.max_tokens),
            tokens,
            prefix,
            rated: match arrival.sampling.prompt_logprobs {
                Some(_) => 1,
                None => prompt_len,
            },
            cached_tokens: None,
            failures: 0,
            overdue,
            arrival,
        };
        self.live.insert(expected.arrival.id, expected);
    }

    /// The notices that the end of a sequence must bring: one, or none if it has ended already.
    pub(crate) fn end(&mut self, id: SequenceId, reason: FinishReason) -> Option<Notice> {
        let expected = self.live.remove(&id)?;
        let prompt_tokens = expected.arrival.prompt.len() as u32;
        let usage = Usage {
            prompt_tokens,
            cached_tokens: expected.cached_tokens.unwrap_or(0),
            generated_tokens: expected.tokens.len() as u32 - prompt_tokens,
        };
        Some(Notice::Finished {
            sequence: id,
            reason,
            usage,
        })
    }

    /// The notices that ratings of a prompt must bring, computed anew.
    pub(crate) fn rate(&mut self, rating: &PromptLogprobs, notices: &mut Vec<Notice>) {
        let id = rating.sequence;
        let Some(expected) = self.live.get_mut(&id) else {
            return;
        };
        let count = match &rating.tokens {
            Ok(tokens) => tokens.len(),
            Err(fault) => return notices.extend(self.end(id, reason_of(*fault))),
        };
        let (first, prompt) = (expected.rated as usize, &expected.arrival.prompt);
        assert!(first + count <= prompt.len(), "a token is rated twice");
        expected.rated += count as u32;
        notices.push(Notice::PromptLogprobs {
            sequence: id,
            first_position: first as u32,
            tokens: ratings(expected, first, count),
        });
    }

    /// The notices that a sample must bring.
    pub(crate) fn sample(&mut self, sample: &TokenSample, notices: &mut Vec<Notice>) {
        match sample.token {
            Err(fault) => notices.extend(self.end(sample.sequence, reason_of(fault))),
            Ok(_) => {
                for _ in 0..=sample.further.len() {
                    self.sample_one(sample.sequence, notices);
                }
            }
        }
    }

    /// The notices that one more token must bring.
    fn sample_one(&mut self, id: SequenceId, notices: &mut Vec<Notice>) {
        let Some(expected) = self.live.get_mut(&id) else {
            return;
        };
        assert_eq!(
            expected.rated as usize,
            expected.arrival.prompt.len(),
            "a prompt is not rated to its end"
        );
        let token = next_token(expected.prefix, expected.arrival.sampling.seed);
        let stop = &expected.arrival.stop;
        let generated_before = expected.tokens.len() - expected.arrival.prompt.len();
        let stops =
            stop.stop_token_ids.contains(&token) && generated_before as u32 >= stop.min_tokens;
        expected.tokens.push(token);
        expected.prefix = chain(expected.prefix, token.into());
        let at_end = expected.tokens.len() as u32 == expected.end_len;
        let token_notice = SampledToken {
            id: token,
            logprobs: None,
        };
        notices.push(Notice::Token {
            sequence: id,
            token: token_notice,
        });
        if stops {
            notices.extend(self.end(id, FinishReason::Stop(token)));
        } else if at_end {
            notices.extend(self.end(id, FinishReason::Length));
        }
    }

    /// The notices that a failure must bring which takes down these sequences.
    pub(crate) fn fail(&mut self, ids: &[SequenceId]) -> Vec<Notice> {
        let mut notices = Vec::new();
        for &id in ids {
            let Some(expected) = self.live.get_mut(&id) else {
                continue;
            };
            expected.failures += 1;
            if expected.failures > self.config.max_step_failures {
                notices.extend(self.end(id, FinishReason::Failed));
            }
        }
        notices
    }

    /// The notices that the passage of time must bring, in order of the deadlines.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Vec<Notice> {
        let late = self
            .live
            .values()
            .filter(|expected| expected.cached_tokens.is_none());
        let late = late.filter_map(|expected| {
            let deadline_ms = expected.arrival.deadline_ms?;
            (deadline_ms < now_ms).then_some((deadline_ms, expected.arrival.id))
        });
        let mut late: Vec<_> = late.collect();
        late.sort_unstable();
        let reason = FinishReason::DeadlineExceeded;
        late.into_iter()
            .filter_map(|(_, id)| self.end(id, reason))
            .collect()
    }

    /// Follows admissions and preemptions, which only the scheduler can decide, and checks that
    /// they are allowed.
    pub(crate) fn follow(&mut self, notice: &Notice) {
        match *notice {
            Notice::Admitted {
                sequence,
                cached_tokens,
            } => {
                let expected = &self.live[&sequence];
                assert!(
                    expected.cached_tokens.is_none(),
                    "a sequence is admitted twice"
                );
                assert!(
                    (cached_tokens as usize) < expected.tokens.len(),
                    "nothing to compute"
                );
                assert_eq!(
                    cached_tokens % self.config.kv.block_size,
                    0,
                    "part of a block is hit"
                );
                assert!(self.config.enable_prefix_caching || cached_tokens == 0);
                let expected = self
                    .live
                    .get_mut(&sequence)
                    .expect("it was there a moment ago");
                expected.cached_tokens = Some(cached_tokens);
            }
            Notice::Preempted { sequence } => {
                let expected = &self.live[&sequence];
                assert!(
                    expected.cached_tokens.is_some(),
                    "only what was admitted is preempted"
                );
            }
            Notice::PromptLogprobs { .. } | Notice::Token { .. } | Notice::Finished { .. } => {
                panic!("a plan hands out no tokens and ends nothing: {notice:?}")
            }
        }
    }

    /// Whose a living sequence is.
    pub(crate) fn tenant(&self, id: SequenceId) -> u64 {
        self.live[&id].arrival.tenant
    }

    /// The tenant of each living sequence.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = u64> {
        self.live.values().map(|expected| expected.arrival.tenant)
    }

    /// Counts a completed plan and checks that nobody waits forever.
    pub(crate) fn plan_completed(&mut self) {
        self.completed_plans += 1;
        if self.priorities {
            return;
        }
        for expected in self.live.values() {
            assert!(
                self.completed_plans <= expected.overdue,
                "a sequence starves"
            );
        }
    }

    /// Plans within which everything must be over when nothing more comes in.
    pub(crate) fn plans_to_drain(&self) -> u64 {
        let seqs = self.live.len() as u64 + u64::from(self.config.max_num_seqs);
        seqs * 3 * u64::from(self.config.max_model_len + 2)
    }
}

fn reason_of(fault: SampleFault) -> FinishReason {
    match fault {
        SampleFault::NotANumber => FinishReason::Failed,
        SampleFault::Constraint => FinishReason::ConstraintFailed,
    }
}

/// Of `count` tokens of the prompt, from position `first` on.
fn ratings(expected: &Expected, first: usize, count: usize) -> Vec<TokenLogprobs> {
    let mut prefix = empty_prefix(expected.arrival.cache_salt);
    let mut all = Vec::new();
    for &token in &expected.arrival.prompt[..first + count] {
        all.push(rating(prefix, token));
        prefix = chain(prefix, token.into());
    }
    all.split_off(first)
}

/// Most blocks that the positions visible from any one position touch.
fn most_blocks(span: AttentionSpan, block_size: u32, num_positions: u32) -> u32 {
    let touched = (0..num_positions)
        .map(|position| position / block_size - span.first_visible(position) / block_size + 1);
    touched.max().unwrap_or(0)
}
