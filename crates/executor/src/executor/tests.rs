//! The executor on a device that queues its steps and is done with them when it is told so.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use backstop_kernels::Batch;
use backstop_types::{
    PlanId, SampledToken, SamplingParams, ScheduledSequence, SequenceId, SequenceSlot,
    SequenceStart, StopConditions, TokenId,
};

use super::*;
use crate::device::{DeviceLimits, IN_FLIGHT, LogitRow, Observation, RowResult, StepResults};

/// What became of a step: its samples, or nothing if it failed.
type Done = Option<Vec<TokenId>>;

/// Results that somebody is going to give.
#[derive(Default)]
struct Pending {
    done: Mutex<Option<Done>>,
    told: Condvar,
}

impl Pending {
    fn finish(&self, done: Done) {
        *self.done.lock().expect("no panic") = Some(done);
        self.told.notify_all();
    }
}

impl StepResults for Pending {
    fn wait(&self) -> Result<Vec<RowResult>, StepFault> {
        let done = self.done.lock().expect("no panic");
        let limit = Duration::from_secs(60);
        let told = self
            .told
            .wait_timeout_while(done, limit, |done| done.is_none());
        let (done, _) = told.expect("no panic");
        let tokens = done.clone().expect("a step is waited for that nobody ends");
        let tokens = tokens.ok_or_else(|| StepFault::passing("asked to"))?;
        let rows = tokens
            .into_iter()
            .map(|id| Ok(SampledToken { id, logprobs: None }));
        Ok(rows.collect())
    }
}

/// The tokens that a step computes, and its results.
type Step = (Vec<TokenId>, Arc<Pending>);

/// Hands out its steps.
struct Device {
    steps: Sender<Step>,
    tokens: Vec<TokenId>,
}

impl StepDevice for Device {
    fn limits(&self) -> DeviceLimits {
        DeviceLimits {
            logit_rows: 8,
            vocabulary: 16,
            steps_ahead: 1,
        }
    }

    fn checks_guesses(&self, sampling: &SamplingParams) -> bool {
        sampling.presence_penalty == 0.0
    }

    fn compute(&mut self, _plan: &StepPlan, batch: &Batch) -> Result<(), StepFault> {
        self.tokens.clone_from(&batch.tokens);
        Ok(())
    }

    fn observe(&mut self, _: &StepPlan, _: &Batch) -> Result<Observation, StepFault> {
        unreachable!("nobody looks at this device")
    }

    fn sample(&mut self, _rows: &[LogitRow<'_>]) -> Result<Arc<dyn StepResults>, StepFault> {
        let pending = Arc::<Pending>::default();
        let step = (std::mem::take(&mut self.tokens), Arc::clone(&pending));
        self.steps.send(step).expect("the test runs");
        Ok(pending)
    }
}

fn start() -> (DeviceExecutor, Receiver<Step>) {
    let (steps, queued) = channel();
    let device = Device {
        steps,
        tokens: Vec::new(),
    };
    let settings = WorkerSettings {
        kv: KvSpec {
            block_size: 16,
            groups: Vec::new(),
        },
        max_num_seqs: 1,
        num_threads: 1,
    };
    let executor = DeviceExecutor::start(Box::new(device), settings);
    (executor.expect("threads start"), queued)
}

/// A plan for the only sequence, which has the prompt 5, 6, 7.
fn plan(id: u64, first_position: u32, num_tokens: u32, draft: &[TokenId]) -> StepPlan {
    let start = || SequenceStart {
        tokens: Arc::from([5, 6, 7]),
        prompt_len: 3,
        sampling: Arc::default(),
        stop: Arc::new(StopConditions {
            max_tokens: 9,
            min_tokens: 0,
            stop_token_ids: Vec::new(),
        }),
    };
    StepPlan {
        id: PlanId(id),
        sequences: vec![ScheduledSequence {
            sequence: SequenceId(1),
            slot: SequenceSlot(0),
            start: (first_position == 0).then(start),
            first_position,
            num_tokens,
            draft: draft.to_vec(),
            new_blocks: Vec::new(),
            rated: 0..0,
            samples: true,
        }],
    }
}

/// The token that a step sampled, and those that follow it because guesses were right.
fn tokens(outcome: &StepOutcome) -> Vec<TokenId> {
    let sample = &outcome.samples[0];
    let token = sample.token.as_ref().expect("a token");
    let all = std::iter::once(token).chain(&sample.further);
    all.map(|token| token.id).collect()
}

#[test]
fn steps_are_queued_before_the_tokens_that_they_begin_with_are_known() {
    let (mut executor, queued) = start();
    executor.submit(plan(1, 0, 3, &[]));
    executor.submit(plan(2, 3, 1, &[]));
    let (first, results) = queued.recv().expect("a step");
    assert_eq!(first, [5, 6, 7]);
    let (second, results_of_second) = queued.recv().expect("a step behind the first");
    assert_eq!(second, [IN_FLIGHT]);
    for (number, results) in [(9, results), (10, results_of_second)] {
        results.finish(Some(vec![number]));
        assert_eq!(tokens(&executor.wait().expect("a step")), [number]);
    }
    // Nobody computes a position twice; this one is to show what is known of both.
    executor.submit(plan(3, 3, 2, &[]));
    let (third, results) = queued.recv().expect("a step");
    assert_eq!(third, [9, IN_FLIGHT], "the last step need not be read");
    results.finish(Some(vec![11]));
    assert_eq!(tokens(&executor.wait().expect("a step")), [11]);
}

#[test]
fn right_guesses_and_the_token_behind_them_count() {
    let (mut executor, queued) = start();
    executor.submit(plan(1, 0, 3, &[]));
    let (_, results) = queued.recv().expect("a step");
    results.finish(Some(vec![9]));
    executor.wait().expect("a step");
    executor.submit(plan(2, 3, 4, &[1, 2, 3]));
    let (guesses, results) = queued.recv().expect("a step");
    assert_eq!(guesses, [IN_FLIGHT, 1, 2, 3]);
    results.finish(Some(vec![1, 2, 8, 4]));
    assert_eq!(tokens(&executor.wait().expect("a step")), [1, 2, 8]);
    executor.submit(plan(3, 6, 1, &[]));
    let (next, results) = queued.recv().expect("a step");
    assert_eq!(next, [8], "the device does not know which row was the last");
    results.finish(Some(vec![7]));
    executor.wait().expect("a step");
}

#[test]
fn guesses_that_the_device_cannot_check_are_not_computed() {
    let (mut executor, queued) = start();
    let mut first = plan(1, 0, 3, &[]);
    let start = first.sequences[0].start.as_mut().expect("a start");
    start.sampling = Arc::new(SamplingParams {
        presence_penalty: 1.0,
        ..SamplingParams::default()
    });
    executor.submit(first);
    let (_, results) = queued.recv().expect("a step");
    results.finish(Some(vec![9]));
    executor.wait().expect("a step");
    executor.submit(plan(2, 3, 3, &[1, 2]));
    let (computed, results) = queued.recv().expect("a step");
    assert_eq!(computed, [IN_FLIGHT]);
    results.finish(Some(vec![1]));
    assert_eq!(tokens(&executor.wait().expect("a step")), [1]);
}

#[test]
fn what_is_behind_a_failed_step_fails_and_what_starts_anew_does_not() {
    let (mut executor, queued) = start();
    executor.submit(plan(1, 0, 3, &[]));
    executor.submit(plan(2, 3, 1, &[]));
    let next = || queued.recv().expect("a step").1;
    next().finish(None);
    next().finish(Some(vec![9]));
    assert_eq!(executor.wait().expect_err("it failed").plan, PlanId(1));
    assert_eq!(
        executor.wait().expect_err("it lacks inputs").plan,
        PlanId(2)
    );
    executor.submit(plan(3, 0, 3, &[]));
    next().finish(Some(vec![4]));
    assert_eq!(tokens(&executor.wait().expect("a step")), [4]);
}
