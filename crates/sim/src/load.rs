//! A steady load, to measure what the scheduler itself costs.

use std::sync::Arc;

use backstop_sched::{Arrival, Event, Scheduler, SchedulerConfig};
use backstop_types::{
    AttentionSpan, KvGroupSpec, KvSpec, SampledToken, SequenceId, StepOutcome, StopConditions,
    TokenSample,
};

/// Sequences that all generate, under a full and a sliding group, with another one waiting.
#[derive(Clone, Debug)]
pub struct DecodeLoad {
    scheduler: Scheduler,
    steps_left: u32,
}

impl DecodeLoad {
    /// `num_sequences` sequences with prompts of `prompt_len` tokens, ready for `num_steps` steps
    /// in which each generates a token.
    pub fn new(num_sequences: u32, prompt_len: u32, num_steps: u32) -> Self {
        let block_size = 16;
        let max_model_len = prompt_len + num_steps + 2;
        let num_blocks = (num_sequences + 1) * (max_model_len.div_ceil(block_size) + 2);
        let group = |span| KvGroupSpec { span, num_blocks };
        let sliding = AttentionSpan::Sliding { visible_keys: 4097 };
        let config = SchedulerConfig {
            kv: KvSpec {
                block_size,
                groups: vec![group(AttentionSpan::Full), group(sliding)],
            },
            max_num_seqs: num_sequences,
            max_num_batched_tokens: num_sequences * prompt_len,
            max_logit_rows: num_sequences,
            max_waiting: num_sequences + 1,
            max_model_len,
            max_in_flight_plans: 1,
            enable_prefix_caching: true,
            max_step_failures: 0,
            speculation: None,
        };
        let mut scheduler = Scheduler::new(config).expect("the configuration is sound");
        let stop = StopConditions {
            max_tokens: num_steps + 1,
            min_tokens: 0,
            stop_token_ids: vec![u32::MAX],
        };
        let stop = Arc::new(stop);
        for id in 0..=u64::from(num_sequences) {
            // Every prompt is different.
            let first = id as u32 * prompt_len;
            let arrival = Arrival {
                id: SequenceId(id),
                prompt: (first..first + prompt_len).collect(),
                sampling: Arc::default(),
                stop: Arc::clone(&stop),
                priority: 0,
                tenant: 0,
                deadline_ms: None,
                cache_salt: 0,
            };
            scheduler.on(Event::Arrive(arrival)).expect("the load fits");
        }
        let mut load = Self {
            scheduler,
            steps_left: num_steps + 1,
        };
        // One step for all prompts.
        load.step();
        load
    }

    /// Plans a step, completes it and takes the notices. Returns the tokens generated.
    pub fn step(&mut self) -> usize {
        self.steps_left = self
            .steps_left
            .checked_sub(1)
            .expect("the load was made for fewer steps");
        let plan = self.scheduler.plan().expect("all sequences generate");
        let samples = plan.sequences.iter().map(|part| TokenSample {
            sequence: part.sequence,
            token: Ok(SampledToken {
                id: 7,
                logprobs: None,
            }),
            further: Vec::new(),
            proposal: Vec::new(),
        });
        let outcome = StepOutcome {
            plan: plan.id,
            samples: samples.collect(),
            prompt_logprobs: Vec::new(),
        };
        let tokens = outcome.samples.len();
        self.scheduler
            .on(Event::StepDone(outcome))
            .expect("only arrivals are refused");
        std::hint::black_box(self.scheduler.take_notices());
        tokens
    }
}
