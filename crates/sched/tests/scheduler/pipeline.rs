//! Two plans in flight, aborts while in flight, failed steps.

use crate::common::{Machine, PLAIN, STOP, arrival, config, full, prompt, shape};
use backstop_sched::{Event, SchedulerConfig};
use backstop_types::{
    FinishReason, SampleFault, SampledToken, SequenceId, StepOutcome, TokenSample,
};

fn two_plans() -> SchedulerConfig {
    SchedulerConfig {
        max_in_flight_plans: 2,
        ..config(vec![full(64)])
    }
}

#[test]
fn a_token_in_flight_is_computed_by_the_next_plan() {
    let mut machine = Machine::new(two_plans());
    machine.arrive(arrival(1, &prompt(1, 5), 3));
    let first = machine.next();
    let second = machine.next();
    assert_eq!(shape(&second), [(1, 5, 1)]);
    assert!(second.sequences[0].samples && second.sequences[0].start.is_none());
    assert!(machine.plan().is_none(), "two plans are in flight");
    machine.done(&first);
    let third = machine.next();
    assert_eq!(shape(&third), [(1, 6, 1)]);
    machine.done(&second);
    // The third token is the last, and nothing is planned past it.
    assert!(machine.plan().is_none());
    machine.done(&third);
    assert_eq!(machine.finish(1), Some(FinishReason::Length));
    assert_eq!(machine.tokens(1).len(), 3);
}

#[test]
fn what_is_in_flight_behind_a_stop_token_is_discarded() {
    let mut machine = Machine::new(SchedulerConfig {
        max_num_seqs: 1,
        ..two_plans()
    });
    machine.arrive(arrival(1, &prompt(1, 5), 9));
    machine.arrive(arrival(2, &prompt(2, 5), 1));
    let first = machine.next();
    let second = machine.next();
    machine.done_with(&first, STOP);
    assert_eq!(machine.finish(1), Some(FinishReason::Stop(STOP)));
    // Slot and blocks are not handed on while the second plan uses them.
    assert!(machine.plan().is_none());
    let usage = machine.scheduler.stats().kv_blocks[0];
    assert_eq!(usage.referenced, 2);
    machine.done_with(&second, PLAIN);
    assert_eq!(machine.tokens(1), [STOP]);
    assert_eq!(shape(&machine.next())[0].0, 2);
}

#[test]
fn an_abort_in_flight_keeps_slot_and_blocks_until_the_outcome() {
    let mut machine = Machine::new(SchedulerConfig {
        max_num_seqs: 1,
        ..two_plans()
    });
    machine.arrive(arrival(1, &prompt(1, 5), 9));
    let first = machine.next();
    let second = machine.next();
    machine.abort(1);
    assert_eq!(machine.finish(1), Some(FinishReason::Aborted));
    machine.arrive(arrival(2, &prompt(2, 5), 1));
    assert!(machine.plan().is_none());
    machine.done(&first);
    assert!(machine.plan().is_none());
    machine.done(&second);
    assert!(machine.tokens(1).is_empty());
    assert_eq!(shape(&machine.next())[0].0, 2);
}

#[test]
fn an_abort_in_the_queue_or_of_nobody_is_fine() {
    let mut machine = Machine::new(two_plans());
    machine.arrive(arrival(1, &prompt(1, 5), 9));
    machine.abort(1);
    machine.abort(1);
    machine.abort(77);
    assert_eq!(machine.finish(1), Some(FinishReason::Aborted));
    assert!(!machine.scheduler.has_work());
}

#[test]
fn a_failed_step_is_repeated_from_where_it_began() {
    let mut machine = Machine::new(config(vec![full(64)]));
    machine.arrive(arrival(1, &prompt(1, 40), 2));
    machine.step();
    let plan = machine.next();
    machine.failed(&plan);
    let again = machine.next();
    assert_eq!(shape(&again), shape(&plan));
    let part = &again.sequences[0];
    assert_eq!(part.start.as_ref().unwrap().tokens.len(), 40);
    assert_eq!(
        (
            part.new_blocks[0].first_index,
            part.new_blocks[0].blocks.len()
        ),
        (0, 10)
    );
    machine.done(&again);
    machine.drain();
    assert_eq!(machine.tokens(1).len(), 2);
}

#[test]
fn one_failure_takes_the_plans_behind_it_down_and_counts_once() {
    let mut machine = Machine::new(two_plans());
    machine.arrive(arrival(1, &prompt(1, 5), 4));
    machine.step();
    let (first, second) = (machine.next(), machine.next());
    machine.failed(&first);
    // Nothing is planned until the executor has given up the second plan as well.
    assert!(machine.plan().is_none());
    machine.failed(&second);
    let again = machine.next();
    assert_eq!(shape(&again), [(1, 5, 1)]);
    assert_eq!(again.sequences[0].start.as_ref().unwrap().tokens.len(), 6);
    // max_step_failures is 1: this was the one, and the next is too many.
    machine.failed(&again);
    assert_eq!(machine.finish(1), Some(FinishReason::Failed));
    assert!(!machine.scheduler.has_work());
}

#[test]
fn a_failed_step_publishes_nothing() {
    let mut machine = Machine::new(config(vec![full(64)]));
    machine.arrive(arrival(1, &prompt(1, 12), 1));
    let plan = machine.next();
    machine.failed(&plan);
    machine.abort(1);
    machine.arrive(arrival(2, &prompt(1, 12), 1));
    machine.step();
    assert_eq!(machine.cached(2), Some(0));
}

#[test]
fn faults_end_their_own_sequence_only() {
    let mut machine = Machine::new(config(vec![full(64)]));
    machine.arrive(arrival(1, &prompt(1, 5), 2));
    machine.arrive(arrival(2, &prompt(2, 5), 2));
    machine.arrive(arrival(3, &prompt(3, 5), 2));
    let plan = machine.next();
    let token = Ok(SampledToken {
        id: PLAIN,
        logprobs: None,
    });
    let samples = vec![
        TokenSample {
            sequence: SequenceId(1),
            token: Err(SampleFault::NotANumber),
            further: Vec::new(),
            proposal: Vec::new(),
        },
        TokenSample {
            sequence: SequenceId(2),
            token,
            further: Vec::new(),
            proposal: Vec::new(),
        },
        TokenSample {
            sequence: SequenceId(3),
            token: Err(SampleFault::Constraint),
            further: Vec::new(),
            proposal: Vec::new(),
        },
    ];
    machine
        .on(Event::StepDone(StepOutcome {
            plan: plan.id,
            samples,
            prompt_logprobs: Vec::new(),
        }))
        .unwrap();
    assert_eq!(machine.finish(1), Some(FinishReason::Failed));
    assert_eq!(machine.finish(3), Some(FinishReason::ConstraintFailed));
    machine.drain();
    assert_eq!(machine.finish(2), Some(FinishReason::Length));
}

#[test]
#[should_panic(expected = "outcomes come in the order of the plans")]
fn an_outcome_out_of_order_is_a_fault_of_the_executor() {
    let mut machine = Machine::new(two_plans());
    machine.arrive(arrival(1, &prompt(1, 5), 4));
    machine.next();
    let second = machine.next();
    machine.failed(&second);
}
