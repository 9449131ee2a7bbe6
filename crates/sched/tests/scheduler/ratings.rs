//! Prompts whose tokens are rated: in order, each once, within the rows of logits.

use std::sync::Arc;

use crate::common::{Machine, arrival, config, full, prompt, ratings, shape};
use backstop_sched::{Arrival, Event, Notice, SchedulerConfig};
use backstop_types::{
    FinishReason, PromptLogprobs, SampleFault, SamplingParams, SequenceId, StepOutcome, StepPlan,
};

fn rated(id: u64, prompt: &[u32], max_tokens: u32) -> Arrival {
    Arrival {
        sampling: Arc::new(SamplingParams {
            prompt_logprobs: Some(1),
            ..SamplingParams::default()
        }),
        ..arrival(id, prompt, max_tokens)
    }
}

fn rows(plan: &StepPlan) -> u32 {
    plan.sequences.iter().map(|part| part.logit_rows()).sum()
}

/// Positions of the tokens that were rated, as the ratings themselves and as the notices say.
fn positions(machine: &Machine, id: u64) -> Vec<u32> {
    let mut positions = Vec::new();
    for notice in &machine.notices {
        if let Notice::PromptLogprobs {
            sequence,
            first_position,
            tokens,
        } = notice
            && sequence.0 == id
        {
            for (token, position) in tokens.iter().zip(*first_position..) {
                assert_eq!(token.rank, position, "a rating of another token");
                positions.push(position);
            }
        }
    }
    positions
}

#[test]
fn every_prompt_token_but_the_first_is_rated_once() {
    let mut machine = Machine::new(config(vec![full(64)]));
    machine.arrive(rated(1, &prompt(1, 29), 3));
    machine.arrive(rated(2, &prompt(2, 1), 3));
    machine.drain();
    assert_eq!(positions(&machine, 1), (1..29).collect::<Vec<_>>());
    assert_eq!(positions(&machine, 2), []);
    assert_eq!(machine.tokens(1).len(), 3);
    assert_eq!(machine.tokens(2).len(), 3);
}

#[test]
fn rows_of_logits_are_shared_and_nobody_goes_without() {
    let mut machine = Machine::new(config(vec![full(64)]));
    machine.arrive(arrival(1, &prompt(1, 4), 30));
    machine.step();
    machine.arrive(rated(2, &prompt(2, 40), 1));
    machine.arrive(rated(3, &prompt(3, 40), 1));
    machine.arrive(arrival(4, &prompt(4, 12), 1));
    // 8 rows: one for each that samples, half of the rest evenly, the others to the first.
    let plan = machine.step();
    assert_eq!(shape(&plan), [(1, 4, 1), (2, 0, 5), (3, 0, 1), (4, 0, 12)]);
    assert_eq!(rows(&plan), 8);
    while machine.scheduler.has_work() {
        let plan = machine.step();
        assert!(rows(&plan) <= 8);
        let first = plan.sequences.first().expect("a plan has sequences");
        assert!(first.num_tokens > 0);
    }
    for id in [2, 3] {
        assert_eq!(positions(&machine, id), (1..40).collect::<Vec<_>>());
    }
}

#[test]
fn a_rated_prompt_takes_no_prefix_and_leaves_one() {
    let mut machine = Machine::new(config(vec![full(64)]));
    machine.arrive(arrival(1, &prompt(1, 12), 1));
    machine.drain();
    machine.arrive(rated(2, &prompt(1, 12), 1));
    machine.drain();
    assert_eq!(machine.cached(2), Some(0));
    assert_eq!(positions(&machine, 2), (1..12).collect::<Vec<_>>());
    machine.arrive(arrival(3, &prompt(1, 12), 1));
    machine.drain();
    assert_eq!(machine.cached(3), Some(8));
}

#[test]
fn a_failed_step_rates_nothing_and_is_made_good() {
    let mut machine = Machine::new(SchedulerConfig {
        max_in_flight_plans: 2,
        ..config(vec![full(64)])
    });
    machine.arrive(rated(1, &prompt(1, 20), 1));
    machine.step();
    let (first, second) = (machine.next(), machine.next());
    machine.failed(&first);
    machine.failed(&second);
    machine.drain();
    assert_eq!(positions(&machine, 1), (1..20).collect::<Vec<_>>());
}

#[test]
fn after_a_preemption_only_the_rest_is_rated() {
    let mut machine = Machine::new(SchedulerConfig {
        max_num_seqs: 2,
        max_logit_rows: 2,
        ..config(vec![full(10)])
    });
    machine.arrive(arrival(1, &prompt(1, 8), 30));
    machine.step();
    machine.arrive(rated(2, &prompt(2, 20), 2));
    while machine.scheduler.stats().preemptions == 0 {
        machine.step();
    }
    assert!((5..19).contains(&positions(&machine, 2).len()));
    machine.drain();
    assert_eq!(positions(&machine, 2), (1..20).collect::<Vec<_>>());
    assert_eq!(machine.tokens(2).len(), 2);
}

#[test]
fn a_prompt_that_cannot_be_rated_ends_its_own_sequence_only() {
    let mut machine = Machine::new(config(vec![full(64)]));
    machine.arrive(rated(1, &prompt(1, 20), 1));
    machine.arrive(rated(2, &prompt(2, 3), 1));
    let plan = machine.next();
    let mut prompt_logprobs = ratings(&plan);
    prompt_logprobs[0] = PromptLogprobs {
        sequence: SequenceId(1),
        tokens: Err(SampleFault::NotANumber),
    };
    let outcome = StepOutcome {
        plan: plan.id,
        samples: Vec::new(),
        prompt_logprobs,
    };
    machine.on(Event::StepDone(outcome)).expect("a plan's");
    assert_eq!(machine.finish(1), Some(FinishReason::Failed));
    machine.drain();
    assert_eq!(positions(&machine, 2), [1, 2]);
}
