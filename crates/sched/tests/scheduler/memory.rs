//! Blocks: preemption, shared prefixes, sliding windows.

use crate::common::{Machine, arrival, config, full, prompt, shape, sliding};
use backstop_sched::{Arrival, Event, Notice, Rejection, SchedulerConfig};
use backstop_types::{FinishReason, SequenceId};

fn preempted(machine: &Machine) -> Vec<u64> {
    let preempted = machine.notices.iter().filter_map(|notice| match notice {
        Notice::Preempted { sequence } => Some(sequence.0),
        _ => None,
    });
    preempted.collect()
}

#[test]
fn the_last_in_rank_is_preempted_and_goes_on_where_it_was() {
    let mut machine = Machine::new(SchedulerConfig {
        enable_prefix_caching: false,
        ..config(vec![full(6)])
    });
    machine.arrive(arrival(1, &prompt(1, 4), 20));
    machine.arrive(arrival(2, &prompt(2, 4), 14));
    while preempted(&machine).is_empty() {
        machine.step();
    }
    assert_eq!(preempted(&machine), [2]);
    let generated = machine.tokens(2).len();
    assert!(generated > 0);
    // Nothing is admitted before the first is through.
    while machine.finish(1).is_none() {
        assert_eq!(shape(&machine.step())[0].0, 1);
    }
    let plan = machine.next();
    let start = plan.sequences[0].start.as_ref().unwrap();
    assert_eq!((start.tokens.len(), start.prompt_len), (4 + generated, 4));
    assert_eq!(plan.sequences[0].num_tokens as usize, 4 + generated);
    machine.done(&plan);
    machine.drain();
    assert_eq!((machine.tokens(1).len(), machine.tokens(2).len()), (20, 14));
    assert_eq!(machine.scheduler.stats().preemptions, 1);
}

#[test]
fn the_lowest_priority_is_preempted_before_the_youngest() {
    let mut machine = Machine::new(SchedulerConfig {
        enable_prefix_caching: false,
        ..config(vec![full(6)])
    });
    machine.arrive(Arrival {
        priority: 3,
        ..arrival(1, &prompt(1, 4), 14)
    });
    machine.arrive(arrival(2, &prompt(2, 4), 20));
    machine.drain();
    assert_eq!(preempted(&machine), [1]);
}

#[test]
fn a_sequence_in_flight_is_not_preempted_and_all_finish() {
    let mut machine = Machine::new(SchedulerConfig {
        max_in_flight_plans: 2,
        enable_prefix_caching: false,
        ..config(vec![full(6)])
    });
    machine.arrive(arrival(1, &prompt(1, 4), 20));
    machine.arrive(arrival(2, &prompt(2, 4), 14));
    let mut in_flight = std::collections::VecDeque::new();
    while machine.scheduler.has_work() {
        while let Some(plan) = machine.plan() {
            in_flight.push_back(plan);
        }
        let oldest = in_flight.pop_front().expect("work is planned");
        machine.done(&oldest);
    }
    assert_eq!(preempted(&machine), [2]);
    assert_eq!((machine.tokens(1).len(), machine.tokens(2).len()), (20, 14));
}

#[test]
fn an_equal_prefix_is_not_computed_again() {
    let mut machine = Machine::new(config(vec![full(64)]));
    let shared = prompt(1, 16);
    machine.arrive(arrival(1, &shared, 1));
    machine.drain();
    assert_eq!(machine.cached(1), Some(0));
    // At least one token has to be computed, so the last block is not taken.
    machine.arrive(arrival(2, &shared, 1));
    assert_eq!(shape(&machine.step()), [(2, 12, 4)]);
    assert_eq!(machine.cached(2), Some(12));
    let longer = [shared.as_slice(), &prompt(2, 3)].concat();
    machine.arrive(arrival(3, &longer, 1));
    assert_eq!(shape(&machine.step()), [(3, 16, 3)]);
    let stats = machine.scheduler.stats();
    assert_eq!(
        (stats.prefix_cache_queries, stats.prefix_cache_hits),
        (16 + 16 + 19, 12 + 16)
    );
}

#[test]
fn generated_tokens_are_part_of_the_prefix_of_the_next_turn() {
    let mut machine = Machine::new(config(vec![full(64)]));
    let first = prompt(1, 6);
    machine.arrive(arrival(1, &first, 7));
    machine.drain();
    let turn = [first.as_slice(), &machine.tokens(1), &prompt(2, 5)].concat();
    machine.arrive(arrival(2, &turn, 1));
    machine.step();
    // 13 tokens, the last of which was never computed.
    assert_eq!(machine.cached(2), Some(12));
}

#[test]
fn a_prefix_is_shared_only_under_the_same_salt() {
    let mut machine = Machine::new(config(vec![full(64)]));
    for (id, cache_salt) in [(1, 7), (2, 8), (3, 7)] {
        machine.arrive(Arrival {
            cache_salt,
            ..arrival(id, &prompt(1, 9), 1)
        });
        machine.drain();
    }
    assert_eq!(
        [1, 2, 3].map(|id| machine.cached(id)),
        [Some(0), Some(0), Some(8)]
    );
}

#[test]
fn a_prefix_in_flight_is_not_shared_before_its_step_is_done() {
    let mut machine = Machine::new(SchedulerConfig {
        max_in_flight_plans: 2,
        ..config(vec![full(64)])
    });
    machine.arrive(arrival(1, &prompt(1, 9), 1));
    let first = machine.next();
    machine.arrive(arrival(2, &prompt(1, 9), 1));
    assert_eq!(shape(&machine.next()), [(2, 0, 9)]);
    machine.done(&first);
    assert_eq!(machine.cached(2), Some(0));
}

#[test]
fn cached_blocks_make_room_for_new_ones_least_recently_used_first() {
    let mut machine = Machine::new(config(vec![full(6)]));
    for (id, seed) in [(1, 1), (2, 2), (3, 1), (4, 3)] {
        machine.arrive(arrival(id, &prompt(seed, 9), 1));
        machine.drain();
    }
    // The third used the blocks of the first again, so the fourth took one of the second's.
    machine.arrive(arrival(5, &prompt(1, 9), 1));
    machine.drain();
    machine.arrive(arrival(6, &prompt(2, 9), 1));
    machine.drain();
    assert_eq!(
        [3, 5, 6].map(|id| machine.cached(id)),
        [Some(8), Some(8), Some(4)]
    );
}

#[test]
fn a_sliding_group_gives_blocks_back_as_the_window_passes() {
    let mut machine = Machine::new(SchedulerConfig {
        enable_prefix_caching: false,
        ..config(vec![full(32), sliding(5, 32)])
    });
    machine.arrive(arrival(1, &prompt(1, 40), 20));
    let used = |machine: &Machine| {
        let stats = machine.scheduler.stats();
        stats
            .kv_blocks
            .iter()
            .map(|usage| usage.referenced)
            .collect::<Vec<_>>()
    };
    machine.step();
    // Position 32 sees 28 to 32: of the computed positions those of block 7.
    assert_eq!(used(&machine), [8, 1]);
    machine.step();
    assert_eq!(used(&machine), [10, 1]);
    machine.step();
    // Position 41 sees 37 to 41.
    assert_eq!(used(&machine), [11, 2]);
    machine.drain();
    assert_eq!(used(&machine), [0, 0]);
}

#[test]
fn a_window_much_smaller_than_the_prompt_needs_a_small_pool_only() {
    let mut machine = Machine::new(config(vec![full(32), sliding(6, 3)]));
    machine.arrive(arrival(1, &prompt(1, 100), 8));
    machine.drain();
    assert_eq!(machine.tokens(1).len(), 8);
    // A window of 6 may touch 3 blocks of 4.
    let mut machine = Machine::new(config(vec![full(32), sliding(6, 2)]));
    let refused = machine.on(Event::Arrive(arrival(1, &prompt(1, 100), 8)));
    assert!(matches!(
        refused,
        Err(Rejection::NeverFits {
            group: 1,
            needed_blocks: 3,
            ..
        })
    ));
}

#[test]
fn a_hit_needs_the_last_window_of_a_sliding_group_only() {
    let mut machine = Machine::new(config(vec![full(32), sliding(5, 4)]));
    machine.arrive(arrival(1, &prompt(1, 25), 1));
    machine.drain();
    machine.arrive(arrival(2, &prompt(1, 25), 1));
    let plan = machine.step();
    assert_eq!(machine.cached(2), Some(24));
    // Block 5 holds positions 20 to 23, block 6 is new.
    let tables: Vec<_> = plan.sequences[0]
        .new_blocks
        .iter()
        .map(|append| (append.group, append.first_index, append.blocks.len()))
        .collect();
    assert_eq!(tables, [(0, 0, 7), (1, 5, 2)]);
}

#[test]
fn a_prefix_whose_last_window_is_gone_is_no_hit() {
    let mut machine = Machine::new(config(vec![full(32), sliding(5, 4)]));
    machine.arrive(arrival(1, &prompt(1, 25), 1));
    machine.drain();
    // Takes all four blocks of the sliding group, and none that the full group needs.
    machine.arrive(arrival(2, &prompt(2, 25), 1));
    machine.drain();
    machine.arrive(arrival(3, &prompt(1, 25), 1));
    machine.step();
    assert_eq!(machine.cached(3), Some(0));
    assert_eq!(machine.finish(3), None);
    machine.drain();
    let usage = machine.notices.iter().find_map(|notice| match notice {
        Notice::Finished {
            sequence: SequenceId(3),
            reason: FinishReason::Length,
            usage,
        } => Some(*usage),
        _ => None,
    });
    assert_eq!(usage.unwrap().prompt_tokens, 25);
}

#[test]
fn a_sequence_that_waits_for_blocks_notices_that_its_prefix_was_computed() {
    let mut machine = Machine::new(config(vec![full(9)]));
    machine.arrive(arrival(1, &prompt(1, 16), 20));
    machine.arrive(arrival(2, &prompt(1, 17), 1));
    machine.step();
    assert_eq!(machine.cached(2), None);
    while machine.finish(1).is_none() {
        machine.step();
    }
    assert_eq!(machine.cached(2), Some(16));
    assert_eq!(machine.finish(2), Some(FinishReason::Length));
}
