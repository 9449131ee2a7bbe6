//! The engine with an executor that counts instead of computing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backstop_engine::{
    EngineConfig, EngineHandle, EngineThread, Generation, GenerationEvent, GenerationRequest,
    Lifecycle, LifecycleState, SubmitError,
};
use backstop_types::{
    AttentionSpan, Executor, FinishReason, KvGroupSpec, KvSpec, PromptLogprobs, SampledToken,
    SamplingParams, SleepLevel, StepFailure, StepOutcome, StepPlan, StopConditions, TokenLogprobs,
    TokenSample,
};

/// Samples the position of the token; fails a step when told to.
struct CountingExecutor {
    kv: KvSpec,
    in_flight: VecDeque<StepPlan>,
    fail_next: Arc<AtomicBool>,
    step_time: Duration,
}

impl Executor for CountingExecutor {
    fn kv_spec(&self) -> &KvSpec {
        &self.kv
    }

    fn pipeline_depth(&self) -> usize {
        2
    }

    fn max_logit_rows(&self) -> u32 {
        8
    }

    fn submit(&mut self, plan: StepPlan) {
        self.in_flight.push_back(plan);
    }

    fn wait(&mut self) -> Result<StepOutcome, StepFailure> {
        std::thread::sleep(self.step_time);
        let plan = self.in_flight.pop_front().expect("a plan is in flight");
        if self.fail_next.swap(false, Ordering::SeqCst) {
            // Whatever is behind the failed plan fails too.
            self.fail_next
                .store(!self.in_flight.is_empty(), Ordering::SeqCst);
            return Err(StepFailure {
                plan: plan.id,
                message: "asked to".into(),
                fatal: false,
            });
        }
        let samples = plan.sequences.iter().filter(|scheduled| scheduled.samples);
        let samples = samples.map(|scheduled| TokenSample {
            sequence: scheduled.sequence,
            token: Ok(SampledToken {
                id: scheduled.first_position + scheduled.num_tokens,
                logprobs: None,
            }),
            further: Vec::new(),
            proposal: Vec::new(),
        });
        let rated = plan.sequences.iter();
        let rated = rated.filter(|scheduled| !scheduled.rated.is_empty());
        let ratings = rated.map(|scheduled| PromptLogprobs {
            sequence: scheduled.sequence,
            tokens: Ok(scheduled.rated.clone().map(rating).collect()),
        });
        Ok(StepOutcome {
            plan: plan.id,
            samples: samples.collect(),
            prompt_logprobs: ratings.collect(),
        })
    }

    fn sleep(&mut self, _level: SleepLevel) -> Result<(), String> {
        Ok(())
    }

    fn wake(&mut self, _progress: &(dyn Fn(u64, u64) + Sync)) -> Result<(), String> {
        Ok(())
    }
}

/// Of the token behind a position.
fn rating(position: u32) -> TokenLogprobs {
    TokenLogprobs {
        logprob: -1.0,
        rank: position + 1,
        top: Vec::new(),
    }
}

fn start(step_time: Duration) -> (EngineHandle, EngineThread, Arc<AtomicBool>) {
    let fail_next = Arc::new(AtomicBool::new(false));
    let group = KvGroupSpec {
        span: AttentionSpan::Full,
        num_blocks: 256,
    };
    let executor = CountingExecutor {
        kv: KvSpec {
            block_size: 4,
            groups: vec![group],
        },
        in_flight: VecDeque::new(),
        fail_next: Arc::clone(&fail_next),
        step_time,
    };
    let config = EngineConfig {
        max_num_seqs: 8,
        max_num_batched_tokens: 64,
        max_waiting: 32,
        max_model_len: 512,
        enable_prefix_caching: true,
        max_step_failures: 2,
        speculation: None,
    };
    let lifecycle = Lifecycle::new();
    lifecycle.advance(LifecycleState::Ready);
    let (handle, thread) =
        EngineThread::spawn(&config, Box::new(executor), lifecycle).expect("a valid config");
    (handle, thread, fail_next)
}

fn request(prompt_len: u32, max_tokens: u32) -> GenerationRequest {
    GenerationRequest {
        prompt: (0..prompt_len).collect(),
        sampling: Arc::new(SamplingParams::default()),
        stop: Arc::new(StopConditions {
            max_tokens,
            min_tokens: 0,
            stop_token_ids: Vec::new(),
        }),
        priority: 0,
        tenant: 0,
        cache_salt: 0,
        queue_timeout: None,
    }
}

async fn collect(mut generation: Generation) -> (Vec<u32>, FinishReason) {
    let mut tokens = Vec::new();
    loop {
        match generation.next().await.expect("the engine lives") {
            GenerationEvent::Admitted { .. } | GenerationEvent::PromptLogprobs(_) => {}
            GenerationEvent::Token(token) => tokens.push(token.id),
            GenerationEvent::Finished { reason, .. } => return (tokens, reason),
        }
    }
}

async fn wait_until_idle(handle: &EngineHandle) {
    for _ in 0..500 {
        let stats = handle.stats().scheduler;
        if stats.running == 0 && stats.waiting == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the engine is still busy: {:?}", handle.stats());
}

#[tokio::test]
async fn every_generation_gets_its_own_tokens_in_order() {
    let (handle, thread, _) = start(Duration::ZERO);
    let mut tasks = Vec::new();
    for index in 0..40_u32 {
        let generation = loop {
            match handle.submit(request(5 + index, 20)).await {
                Ok(generation) => break generation,
                Err(SubmitError::Rejected(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        tasks.push((index, tokio::spawn(collect(generation))));
    }
    for (index, task) in tasks {
        let (tokens, reason) = task.await.expect("no panic");
        assert_eq!(tokens, (5 + index..25 + index).collect::<Vec<_>>());
        assert_eq!(reason, FinishReason::Length);
    }
    thread.stop();
}

#[tokio::test]
async fn a_dropped_generation_frees_its_sequence() {
    let (handle, thread, _) = start(Duration::from_millis(1));
    let mut generation = handle.submit(request(5, 500)).await.expect("accepted");
    while !matches!(generation.next().await, Some(GenerationEvent::Token(_))) {}
    drop(generation);
    wait_until_idle(&handle).await;
    thread.stop();
}

#[tokio::test]
async fn a_failed_step_costs_no_request_its_answer() {
    let (handle, thread, fail_next) = start(Duration::from_millis(1));
    let generations = [
        handle.submit(request(5, 40)).await.expect("accepted"),
        handle.submit(request(9, 40)).await.expect("accepted"),
    ];
    tokio::time::sleep(Duration::from_millis(10)).await;
    fail_next.store(true, Ordering::SeqCst);
    for (generation, prompt_len) in generations.into_iter().zip([5, 9]) {
        let (tokens, reason) = collect(generation).await;
        assert_eq!(tokens, (prompt_len..prompt_len + 40).collect::<Vec<_>>());
        assert_eq!(reason, FinishReason::Length);
    }
    assert!(handle.stats().steps_failed > 0);
    thread.stop();
}

#[tokio::test]
async fn a_prompt_is_rated_before_its_answer_begins() {
    let (handle, thread, _) = start(Duration::ZERO);
    let sampling = SamplingParams {
        prompt_logprobs: Some(0),
        ..SamplingParams::default()
    };
    let mut generation = handle
        .submit(GenerationRequest {
            sampling: Arc::new(sampling),
            ..request(90, 2)
        })
        .await
        .expect("accepted");
    let mut ranks = Vec::new();
    let mut tokens = 0;
    loop {
        match generation.next().await.expect("the engine lives") {
            GenerationEvent::Admitted { .. } => {}
            GenerationEvent::PromptLogprobs(rated) => {
                assert_eq!(tokens, 0);
                ranks.extend(rated.iter().map(|token| token.rank));
            }
            GenerationEvent::Token(_) => tokens += 1,
            GenerationEvent::Finished { .. } => break,
        }
    }
    assert_eq!(ranks, (1..90).collect::<Vec<_>>());
    assert_eq!(tokens, 2);
    thread.stop();
}

#[tokio::test]
async fn what_was_let_in_before_a_drain_or_a_sleep_is_answered() {
    let (handle, thread, _) = start(Duration::ZERO);
    let level = SleepLevel::KeepWeights;
    let falling_asleep = LifecycleState::Sleeping { level, wake_s: 1 };
    for state in [falling_asleep, LifecycleState::Draining] {
        handle.lifecycle().advance(state);
        let generation = handle.submit(request(5, 5)).await.expect("accepted");
        assert_eq!(collect(generation).await.0.len(), 5);
    }
    thread.stop();
}

#[tokio::test]
async fn an_untrusted_model_is_not_asked() {
    let (handle, thread, _) = start(Duration::ZERO);
    let suspect = LifecycleState::Suspect("it gave another answer".into());
    handle.lifecycle().advance(suspect.clone());
    let refused = handle.submit(request(5, 5)).await;
    assert_eq!(refused.err(), Some(SubmitError::NotReady(suspect)));
    thread.stop();
}

#[tokio::test]
async fn stopping_ends_every_generation() {
    let (handle, thread, _) = start(Duration::from_millis(2));
    let mut generation = handle.submit(request(5, 500)).await.expect("accepted");
    tokio::task::spawn_blocking(move || thread.stop())
        .await
        .expect("no panic");
    while let Some(event) = generation.next().await {
        assert!(!matches!(
            event,
            GenerationEvent::Finished {
                reason: FinishReason::Length,
                ..
            }
        ));
    }
    assert!(!handle.liveness().thread_alive);
}

#[tokio::test]
async fn a_sleeping_engine_takes_nothing_in_and_wakes_with_an_empty_cache() {
    let (handle, thread, _) = start(Duration::from_millis(1));
    let (tokens, _) = collect(handle.submit(request(40, 3)).await.expect("accepted")).await;
    let (_, _, cached) = counted(handle.submit(request(40, 3)).await.expect("accepted")).await;
    assert!(cached > 0, "the prompt is cached");
    let running = handle.submit(request(5, 500)).await.expect("accepted");
    let level = SleepLevel::KeepWeights;
    let impatient = tokio::time::timeout(Duration::from_millis(50), handle.sleep(level));
    assert!(impatient.await.is_err(), "a request runs");
    drop(running);
    handle.sleep(level).await.expect("asleep");
    handle
        .lifecycle()
        .advance(LifecycleState::Sleeping { level, wake_s: 1 });
    let refused = handle.submit(request(5, 5)).await.err();
    assert!(
        matches!(
            refused,
            Some(SubmitError::NotReady(LifecycleState::Sleeping { .. }))
        ),
        "{refused:?}"
    );
    handle.wake(|_, _| {}).await.expect("awake");
    handle.lifecycle().advance(LifecycleState::Ready);
    let again = handle.submit(request(40, 3)).await.expect("accepted");
    let (after, _, cached) = counted(again).await;
    assert_eq!((after, cached), (tokens, 0));
    thread.stop();
}

/// What a generation brought, and how much of its prompt was cached.
async fn counted(mut generation: Generation) -> (Vec<u32>, FinishReason, u32) {
    let (mut tokens, mut cached) = (Vec::new(), 0);
    loop {
        match generation.next().await.expect("the engine lives") {
            GenerationEvent::Admitted { cached_tokens } => cached = cached_tokens,
            GenerationEvent::PromptLogprobs(_) => {}
            GenerationEvent::Token(token) => tokens.push(token.id),
            GenerationEvent::Finished { reason, .. } => return (tokens, reason, cached),
        }
    }
}
