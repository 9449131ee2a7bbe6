//! Tenants: of each one sequence runs before others have several.

use backstop_sched::{Arrival, SchedulerConfig};
use backstop_types::{FinishReason, SequenceId};

use crate::common::{Machine, arrival, config, full, prompt};

fn of(tenant: u64, id: u64, max_tokens: u32) -> Arrival {
    Arrival {
        tenant,
        ..arrival(id, &prompt(id as u32, 4), max_tokens)
    }
}

fn four_slots(max_in_flight_plans: u32) -> SchedulerConfig {
    SchedulerConfig {
        max_num_seqs: 4,
        max_in_flight_plans,
        ..config(vec![full(256)])
    }
}

/// Tenants of the sequences that run; the tenant of sequence `n` is `n / 100`.
fn running(machine: &Machine) -> Vec<u64> {
    let mut tenants: Vec<u64> = machine.scheduler.running().map(|id| id.0 / 100).collect();
    tenants.sort_unstable();
    tenants
}

#[test]
fn one_tenant_alone_has_every_slot() {
    let mut machine = Machine::new(four_slots(1));
    (0..9).for_each(|id| machine.arrive(of(0, id, 50)));
    (0..5).for_each(|_| drop(machine.step()));
    assert_eq!(running(&machine), [0, 0, 0, 0]);
    assert_eq!(machine.scheduler.stats().preemptions, 0);
}

#[test]
fn a_tenant_with_nothing_running_gets_a_place_although_all_are_taken() {
    for depth in [1, 2] {
        let mut machine = Machine::new(four_slots(depth));
        (0..9).for_each(|id| machine.arrive(of(0, id, 100)));
        let mut last = machine.next();
        let mut step = |machine: &mut Machine| {
            let next = machine.plan();
            machine.done(&last);
            last = next.unwrap_or_else(|| machine.next());
        };
        (0..3).for_each(|_| step(&mut machine));
        (1..=3).for_each(|tenant| machine.arrive(of(tenant, 100 * tenant, 100)));
        // Another one of the first tenant does not come before them, whatever it ranks.
        machine.arrive(Arrival {
            priority: -1,
            ..of(0, 9, 10)
        });
        (0..10).for_each(|_| step(&mut machine));
        assert_eq!(running(&machine), [0, 1, 2, 3], "depth {depth}");
        // Nobody has several, so that a fifth tenant waits for the end of somebody.
        machine.arrive(of(4, 400, 10));
        step(&mut machine);
        assert_eq!(running(&machine), [0, 1, 2, 3], "depth {depth}");
    }
}

#[test]
fn who_gave_way_comes_back_and_answers_in_full() {
    let mut machine = Machine::new(four_slots(1));
    (0..4).for_each(|id| machine.arrive(of(0, id, 60)));
    (0..8).for_each(|_| drop(machine.step()));
    machine.arrive(of(1, 100, 5));
    machine.drain();
    assert_eq!(machine.scheduler.stats().preemptions, 1);
    for id in [0, 1, 2, 3] {
        assert_eq!(machine.tokens(id).len(), 60);
        assert_eq!(machine.finish(id), Some(FinishReason::Length));
    }
    assert_eq!(machine.tokens(100).len(), 5);
}

#[test]
fn a_place_is_kept_where_memory_is_what_is_full() {
    // Sixteen blocks of four: eight sequences of one tenant fill them.
    let mut machine = Machine::new(config(vec![full(16)]));
    (0..8).for_each(|id| machine.arrive(of(0, id, 28)));
    (0..5).for_each(|_| drop(machine.step()));
    machine.arrive(of(1, 100, 28));
    // The newcomer's answer goes on while the others outgrow the memory. When it needs a block,
    // the step under way may have to end first.
    let mut missed = 0;
    while machine.finish(100).is_none() {
        let plan = machine.step();
        let served = plan
            .sequences
            .iter()
            .any(|part| part.sequence == SequenceId(100));
        missed = if served { 0 } else { missed + 1 };
        assert!(missed <= 1, "missed {missed} steps in a row");
    }
    machine.drain();
    assert!((0..8).all(|id| machine.tokens(id).len() == 28));
}

#[test]
fn a_newcomer_that_would_not_fit_even_then_drives_nobody_out() {
    let mut machine = Machine::new(config(vec![full(16)]));
    machine.arrive(of(0, 0, 40));
    machine.arrive(of(0, 1, 8));
    machine.step();
    machine.arrive(Arrival {
        tenant: 1,
        ..arrival(100, &prompt(7, 60), 2)
    });
    machine.step();
    assert_eq!(running(&machine), [0, 0]);
    assert_eq!(machine.scheduler.stats().preemptions, 0);
    machine.drain();
    assert_eq!(machine.tokens(100).len(), 2);
}
