//! Chunks, limits, the queue, fairness.

use std::sync::Arc;

use crate::common::{Machine, PLAIN, STOP, arrival, config, full, prompt, shape};
use backstop_sched::{Arrival, ConfigError, Event, Rejection, Scheduler, SchedulerConfig};
use backstop_types::{FinishReason, SequenceId, StopConditions};

#[test]
fn a_long_prompt_is_computed_in_chunks_and_only_the_last_one_samples() {
    let mut machine = Machine::new(config(vec![full(64)]));
    machine.arrive(arrival(1, &prompt(1, 70), 2));
    let chunks: Vec<_> = (0..4).map(|_| machine.step()).collect();
    let shapes: Vec<_> = chunks.iter().map(|plan| shape(plan)[0]).collect();
    assert_eq!(shapes, [(1, 0, 32), (1, 32, 32), (1, 64, 6), (1, 70, 1)]);
    let samples: Vec<_> = chunks
        .iter()
        .map(|plan| plan.sequences[0].samples)
        .collect();
    assert_eq!(samples, [false, false, true, true]);
    assert_eq!(machine.tokens(1), [PLAIN, PLAIN]);
    assert_eq!(machine.finish(1), Some(FinishReason::Length));
    assert!(!machine.scheduler.has_work());
}

#[test]
fn a_start_comes_once_and_blocks_come_as_they_are_needed() {
    let mut machine = Machine::new(config(vec![full(64)]));
    machine.arrive(arrival(1, &prompt(1, 7), 4));
    let plan = machine.step();
    let start = plan.sequences[0].start.as_ref().unwrap();
    assert_eq!((start.tokens.len(), start.prompt_len), (7, 7));
    assert_eq!(plan.sequences[0].new_blocks[0].blocks.len(), 2);
    let plan = machine.step();
    assert!(plan.sequences[0].start.is_none() && plan.sequences[0].new_blocks.is_empty());
    let plan = machine.step();
    assert_eq!(plan.sequences[0].new_blocks[0].first_index, 2);
    assert_eq!(plan.sequences[0].new_blocks[0].blocks.len(), 1);
}

#[test]
fn sequences_that_generate_and_prompts_share_a_step() {
    let mut machine = Machine::new(config(vec![full(64)]));
    machine.arrive(arrival(1, &prompt(1, 6), 8));
    machine.step();
    machine.arrive(arrival(2, &prompt(2, 60), 1));
    assert_eq!(shape(&machine.step()), [(1, 6, 1), (2, 0, 28)]);
}

#[test]
fn a_short_prompt_passes_a_huge_one_that_came_before_it() {
    let mut machine = Machine::new(SchedulerConfig {
        max_model_len: 1000,
        ..config(vec![full(256)])
    });
    machine.arrive(arrival(1, &prompt(1, 900), 1));
    machine.step();
    machine.arrive(arrival(2, &prompt(2, 8), 1));
    machine.step();
    assert_eq!(machine.finish(2), Some(FinishReason::Length));
    assert_eq!(machine.finish(1), None);
}

#[test]
fn a_large_head_of_the_queue_is_not_overtaken() {
    let mut machine = Machine::new(config(vec![full(10)]));
    machine.arrive(arrival(1, &prompt(1, 12), 4));
    machine.step();
    machine.arrive(arrival(2, &prompt(2, 30), 1));
    for id in 3..10 {
        machine.arrive(arrival(id, &prompt(id as u32, 4), 1));
    }
    while machine.finish(1).is_none() {
        assert_eq!(shape(&machine.step()).len(), 1);
    }
    assert_eq!(shape(&machine.step())[0].0, 2);
    machine.drain();
}

#[test]
fn smaller_priorities_are_admitted_first() {
    let mut machine = Machine::new(SchedulerConfig {
        max_num_seqs: 1,
        ..config(vec![full(64)])
    });
    for (id, priority) in [(1, 5), (2, -1), (3, 5), (4, 0)] {
        machine.arrive(Arrival {
            priority,
            ..arrival(id, &prompt(id as u32, 5), 1)
        });
    }
    let order: Vec<_> = (0..4).map(|_| shape(&machine.step())[0].0).collect();
    assert_eq!(order, [2, 4, 1, 3]);
}

#[test]
fn a_stop_token_ends_a_sequence_and_is_handed_out() {
    let mut machine = Machine::new(config(vec![full(64)]));
    machine.arrive(arrival(1, &prompt(1, 5), 10));
    machine.step();
    let plan = machine.next();
    machine.done_with(&plan, STOP);
    assert_eq!(machine.tokens(1), [PLAIN, STOP]);
    assert_eq!(machine.finish(1), Some(FinishReason::Stop(STOP)));
    assert_eq!(machine.plan().map(|plan| plan.id), None);
}

#[test]
fn a_stop_token_is_not_honoured_before_the_minimum() {
    let mut machine = Machine::new(config(vec![full(64)]));
    let stop = StopConditions {
        max_tokens: 9,
        min_tokens: 2,
        stop_token_ids: vec![STOP],
    };
    machine.arrive(Arrival {
        stop: Arc::new(stop),
        ..arrival(1, &prompt(1, 5), 1)
    });
    for expected in [None, None, Some(FinishReason::Stop(STOP))] {
        let plan = machine.next();
        machine.done_with(&plan, STOP);
        assert_eq!(machine.finish(1), expected);
    }
}

#[test]
fn the_model_length_ends_a_sequence() {
    let mut machine = Machine::new(SchedulerConfig {
        max_model_len: 8,
        ..config(vec![full(64)])
    });
    machine.arrive(arrival(1, &prompt(1, 6), 100));
    machine.drain();
    assert_eq!(machine.tokens(1).len(), 2);
    assert_eq!(machine.finish(1), Some(FinishReason::Length));
}

#[test]
fn a_sequence_that_waits_past_its_deadline_ends() {
    let mut machine = Machine::new(SchedulerConfig {
        max_num_seqs: 1,
        ..config(vec![full(64)])
    });
    for id in 1..=3 {
        let deadline_ms = Some(100 * id);
        machine.arrive(Arrival {
            deadline_ms,
            ..arrival(id, &prompt(id as u32, 5), 3)
        });
    }
    machine.step();
    machine.on(Event::Tick { now_ms: 200 }).unwrap();
    assert_eq!(machine.finish(2), None);
    machine.on(Event::Tick { now_ms: 201 }).unwrap();
    assert_eq!(machine.finish(2), Some(FinishReason::DeadlineExceeded));
    // The first was admitted in time, and what runs has no deadline.
    machine.on(Event::Tick { now_ms: 300 }).unwrap();
    assert_eq!((machine.finish(1), machine.finish(3)), (None, None));
    machine.drain();
    assert_eq!(machine.finish(3), Some(FinishReason::Length));
}

#[test]
fn arrivals_that_cannot_be_served_are_refused() {
    let mut machine = Machine::new(SchedulerConfig {
        max_waiting: 2,
        ..config(vec![full(8)])
    });
    let refuse = |machine: &mut Machine, arrival| {
        machine
            .on(Event::Arrive(arrival))
            .expect_err("this is refused")
    };
    assert_eq!(
        refuse(&mut machine, arrival(1, &[], 1)),
        Rejection::EmptyPrompt
    );
    assert_eq!(
        refuse(&mut machine, arrival(1, &[1], 0)),
        Rejection::InvalidLimits
    );
    assert_eq!(
        refuse(&mut machine, arrival(1, &prompt(1, 128), 1)),
        Rejection::PromptTooLong {
            prompt_tokens: 128,
            max_model_len: 128
        }
    );
    let never = refuse(&mut machine, arrival(1, &prompt(1, 30), 4));
    assert!(matches!(
        never,
        Rejection::NeverFits {
            needed_blocks: 9,
            pool_blocks: 8,
            ..
        }
    ));
    // The last token needs no block.
    machine.arrive(arrival(1, &prompt(1, 30), 3));
    assert_eq!(
        refuse(&mut machine, arrival(1, &[1], 1)),
        Rejection::DuplicateSequence {
            sequence: SequenceId(1)
        }
    );
    machine.arrive(arrival(2, &[1], 1));
    assert_eq!(
        refuse(&mut machine, arrival(3, &[1], 1)),
        Rejection::QueueFull { waiting: 2 }
    );
    machine.drain();
    assert_eq!(machine.tokens(1).len(), 3);
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let good = config(vec![full(8)]);
    let error = |config| {
        Scheduler::new(config)
            .map(|_| ())
            .expect_err("this is refused")
    };
    assert_eq!(
        error(SchedulerConfig {
            max_num_batched_tokens: 7,
            ..good.clone()
        }),
        ConfigError::BudgetBelowSequences {
            max_num_batched_tokens: 7,
            max_num_seqs: 8
        }
    );
    assert_eq!(
        error(SchedulerConfig {
            max_in_flight_plans: 0,
            ..good.clone()
        }),
        ConfigError::TooSmall {
            name: "max_in_flight_plans",
            value: 0,
            min: 1
        }
    );
    assert_eq!(
        error(SchedulerConfig {
            max_logit_rows: 7,
            ..good.clone()
        }),
        ConfigError::TooSmall {
            name: "max_logit_rows",
            value: 7,
            min: 8
        }
    );
    assert_eq!(error(config(vec![])), ConfigError::NoGroups);
    assert!(Scheduler::new(good).is_ok());
}
