//! Guesses that the executor proposes.

use backstop_sched::{Event, SchedulerConfig, Speculation};
use backstop_types::{
    FinishReason, SampledToken, SequenceId, StepOutcome, StepPlan, TokenId, TokenSample,
};

use crate::common::{Machine, PLAIN, arrival, config, full, prompt};

fn with_proposals() -> SchedulerConfig {
    SchedulerConfig {
        speculation: Some(Speculation::Proposals {
            max_draft_tokens: 3,
        }),
        ..config(vec![full(64)])
    }
}

fn token(id: TokenId) -> SampledToken {
    SampledToken { id, logprobs: None }
}

/// Completes a plan of one sequence: its tokens, and what the executor guesses to follow.
fn done(machine: &mut Machine, plan: &StepPlan, tokens: &[TokenId], proposal: &[TokenId]) {
    let (&first, further) = tokens.split_first().expect("a sample has a token");
    let sample = TokenSample {
        sequence: SequenceId(1),
        token: Ok(token(first)),
        further: further.iter().map(|&id| token(id)).collect(),
        proposal: proposal.to_vec(),
    };
    let outcome = StepOutcome {
        plan: plan.id,
        samples: vec![sample],
        prompt_logprobs: Vec::new(),
    };
    machine.on(Event::StepDone(outcome)).expect("an outcome");
}

#[test]
fn proposals_are_checked_by_the_next_step_and_right_ones_are_handed_out() {
    let mut machine = Machine::new(with_proposals());
    machine.arrive(arrival(1, &prompt(1, 5), 20));
    let plan = machine.next();
    assert!(plan.sequences[0].draft.is_empty());
    done(&mut machine, &plan, &[PLAIN], &[11, 12, 13, 14]);

    let plan = machine.next();
    let part = &plan.sequences[0];
    assert_eq!(part.draft, [11, 12, 13], "no more than the limit");
    assert_eq!((part.first_position, part.num_tokens), (5, 4));
    // Two of three are right, and the executor guesses again.
    done(&mut machine, &plan, &[11, 12, PLAIN], &[21]);

    let plan = machine.next();
    let part = &plan.sequences[0];
    assert_eq!(part.draft, [21]);
    assert_eq!((part.first_position, part.num_tokens), (8, 2));
    let stats = machine.scheduler.stats();
    assert_eq!((stats.draft_tokens, stats.accepted_tokens), (3, 2));
    assert_eq!(machine.tokens(1), [PLAIN, 11, 12, PLAIN]);
}

#[test]
fn a_proposal_stands_only_behind_the_token_that_it_came_with() {
    let mut machine = Machine::new(with_proposals());
    machine.arrive(arrival(1, &prompt(1, 5), 20));
    let plan = machine.next();
    done(&mut machine, &plan, &[PLAIN], &[11, 12]);
    let plan = machine.next();
    done(&mut machine, &plan, &[PLAIN], &[]);
    assert!(machine.next().sequences[0].draft.is_empty());
}

#[test]
fn a_proposal_outlives_a_failed_step() {
    let mut machine = Machine::new(with_proposals());
    machine.arrive(arrival(1, &prompt(1, 5), 20));
    let plan = machine.next();
    done(&mut machine, &plan, &[PLAIN], &[11, 12]);
    let plan = machine.next();
    machine.failed(&plan);
    let plan = machine.next();
    assert_eq!(plan.sequences[0].draft, [11, 12]);
    assert!(plan.sequences[0].start.is_some());
}

#[test]
fn nothing_is_guessed_past_the_last_token() {
    let mut machine = Machine::new(with_proposals());
    machine.arrive(arrival(1, &prompt(1, 5), 3));
    let plan = machine.next();
    done(&mut machine, &plan, &[PLAIN], &[11, 12, 13]);
    let plan = machine.next();
    assert_eq!(plan.sequences[0].draft, [11], "one more token follows it");
    done(&mut machine, &plan, &[11, PLAIN], &[12]);
    assert_eq!(machine.finish(1), Some(FinishReason::Length));
    assert!(machine.plan().is_none());
}
