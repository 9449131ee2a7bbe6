//! A scheduler with short words for what the tests do to it.

use std::sync::Arc;

use backstop_sched::{Arrival, Event, Notice, Rejection, Scheduler, SchedulerConfig};
use backstop_types::{
    AttentionSpan, FinishReason, KvGroupSpec, KvSpec, PromptLogprobs, SampledToken, SequenceId,
    StepOutcome, StepPlan, StopConditions, TokenId, TokenLogprobs, TokenSample,
};

/// The token that [`Machine`] samples unless told otherwise.
pub(crate) const PLAIN: TokenId = 5;
/// The stop token of all sequences.
pub(crate) const STOP: TokenId = 9;

pub(crate) fn full(num_blocks: u32) -> KvGroupSpec {
    KvGroupSpec {
        span: AttentionSpan::Full,
        num_blocks,
    }
}

pub(crate) fn sliding(visible_keys: u32, num_blocks: u32) -> KvGroupSpec {
    KvGroupSpec {
        span: AttentionSpan::Sliding { visible_keys },
        num_blocks,
    }
}

/// Blocks of 4 positions, 8 sequences, 32 tokens a step, one plan in flight.
pub(crate) fn config(groups: Vec<KvGroupSpec>) -> SchedulerConfig {
    SchedulerConfig {
        kv: KvSpec {
            block_size: 4,
            groups,
        },
        max_num_seqs: 8,
        max_num_batched_tokens: 32,
        max_logit_rows: 8,
        max_waiting: 16,
        max_model_len: 128,
        max_in_flight_plans: 1,
        enable_prefix_caching: true,
        max_step_failures: 1,
        speculation: None,
    }
}

pub(crate) fn arrival(id: u64, prompt: &[TokenId], max_tokens: u32) -> Arrival {
    Arrival {
        id: SequenceId(id),
        prompt: Arc::from(prompt),
        sampling: Arc::default(),
        stop: Arc::new(StopConditions {
            max_tokens,
            min_tokens: 0,
            stop_token_ids: vec![STOP],
        }),
        priority: 0,
        tenant: 0,
        deadline_ms: None,
        cache_salt: 0,
    }
}

/// `len` tokens that no other seed begins with.
pub(crate) fn prompt(seed: u32, len: u32) -> Vec<TokenId> {
    (0..len).map(|position| 1000 * seed + position).collect()
}

/// A scheduler and all that it ever said. Every call is followed by an audit.
pub(crate) struct Machine {
    pub(crate) scheduler: Scheduler,
    pub(crate) notices: Vec<Notice>,
}

impl Machine {
    pub(crate) fn new(config: SchedulerConfig) -> Self {
        Self {
            scheduler: Scheduler::new(config).expect("tests have valid limits"),
            notices: Vec::new(),
        }
    }

    pub(crate) fn on(&mut self, event: Event) -> Result<(), Rejection> {
        let result = self.scheduler.on(event);
        self.settle();
        result
    }

    pub(crate) fn arrive(&mut self, arrival: Arrival) {
        self.on(Event::Arrive(arrival)).expect("it is let in");
    }

    pub(crate) fn abort(&mut self, id: u64) {
        self.on(Event::Abort(SequenceId(id)))
            .expect("only arrivals are refused");
    }

    pub(crate) fn plan(&mut self) -> Option<StepPlan> {
        let plan = self.scheduler.plan();
        self.settle();
        plan
    }

    /// A plan, which there must be.
    pub(crate) fn next(&mut self) -> StepPlan {
        self.plan().expect("there is work")
    }

    /// Completes a plan; every sample is `token`.
    pub(crate) fn done_with(&mut self, plan: &StepPlan, token: TokenId) {
        let sampling = plan.sequences.iter().filter(|scheduled| scheduled.samples);
        let samples = sampling.map(|scheduled| TokenSample {
            sequence: scheduled.sequence,
            token: Ok(SampledToken {
                id: token,
                logprobs: None,
            }),
            further: Vec::new(),
            proposal: Vec::new(),
        });
        let outcome = StepOutcome {
            plan: plan.id,
            samples: samples.collect(),
            prompt_logprobs: ratings(plan),
        };
        self.on(Event::StepDone(outcome))
            .expect("only arrivals are refused");
    }

    pub(crate) fn done(&mut self, plan: &StepPlan) {
        self.done_with(plan, PLAIN);
    }

    pub(crate) fn failed(&mut self, plan: &StepPlan) {
        self.on(Event::StepFailed(plan.id))
            .expect("only arrivals are refused");
    }

    /// Plans and completes one step.
    pub(crate) fn step(&mut self) -> StepPlan {
        let plan = self.next();
        self.done(&plan);
        plan
    }

    /// Steps until nothing is left to do.
    pub(crate) fn drain(&mut self) {
        let mut steps = 0;
        while self.scheduler.has_work() {
            self.step();
            steps += 1;
            assert!(steps < 10_000, "the machine does not come to rest");
        }
    }

    /// Why a sequence ended, if it did.
    pub(crate) fn finish(&self, id: u64) -> Option<FinishReason> {
        self.notices.iter().find_map(|notice| match notice {
            Notice::Finished {
                sequence, reason, ..
            } if sequence.0 == id => Some(*reason),
            _ => None,
        })
    }

    /// Tokens handed out for a sequence.
    pub(crate) fn tokens(&self, id: u64) -> Vec<TokenId> {
        let tokens = self.notices.iter().filter_map(|notice| match notice {
            Notice::Token { sequence, token } if sequence.0 == id => Some(token.id),
            _ => None,
        });
        tokens.collect()
    }

    /// Cached tokens with which a sequence was admitted.
    pub(crate) fn cached(&self, id: u64) -> Option<u32> {
        self.notices.iter().find_map(|notice| match notice {
            Notice::Admitted {
                sequence,
                cached_tokens,
            } if sequence.0 == id => Some(*cached_tokens),
            _ => None,
        })
    }

    fn settle(&mut self) {
        self.scheduler.audit();
        self.notices.append(&mut self.scheduler.take_notices());
    }
}

/// A rating of each token that a plan rates, which names the token's position as its rank.
pub(crate) fn ratings(plan: &StepPlan) -> Vec<PromptLogprobs> {
    let rated = plan
        .sequences
        .iter()
        .filter(|scheduled| !scheduled.rated.is_empty());
    let rating = |position| TokenLogprobs {
        logprob: -1.0,
        rank: position + 1,
        top: Vec::new(),
    };
    let ratings = rated.map(|scheduled| PromptLogprobs {
        sequence: scheduled.sequence,
        tokens: Ok(scheduled.rated.clone().map(rating).collect()),
    });
    ratings.collect()
}

/// Sequence, first position and number of tokens of each part of a plan.
pub(crate) fn shape(plan: &StepPlan) -> Vec<(u64, u32, u32)> {
    let parts = plan.sequences.iter();
    parts
        .map(|part| (part.sequence.0, part.first_position, part.num_tokens))
        .collect()
}
