//! The engine thread itself.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use backstop_sched::{
    Arrival, ConfigError, Event, Notice, Scheduler, SchedulerConfig, Speculation,
};
use backstop_types::{Executor, PlanId, SleepLevel, StepFailure, StepOutcome, StepPlan};

use crate::handle::{EngineHandle, GenerationEvent, GenerationRequest};
use crate::inbox::{Command, Inbox, InboxReceiver, Progress, Reply, inbox};
use crate::lifecycle::{Lifecycle, LifecycleState};
use crate::outbox::Outbox;
use crate::stats::StatsCell;

/// How long an idle engine sleeps before it looks at its clock again.
const IDLE_WAIT: Duration = Duration::from_millis(500);

/// Limits of an engine. The KV shape and the pipeline depth come from the executor.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Sequences that run at once.
    pub max_num_seqs: u32,
    /// Token positions computed in one step.
    pub max_num_batched_tokens: u32,
    /// Sequences that wait at most.
    pub max_waiting: u32,
    /// Prompt and output tokens of one sequence.
    pub max_model_len: u32,
    /// Reuse the keys and values of common prefixes.
    pub enable_prefix_caching: bool,
    /// Failed steps that one sequence survives.
    pub max_step_failures: u32,
    /// How to guess tokens ahead, if at all; as far as the executor can check guesses.
    pub speculation: Option<Speculation>,
}

/// A running engine thread; [`stop`](EngineThread::stop) ends it.
#[derive(Debug)]
pub struct EngineThread {
    inbox: Inbox,
    thread: Option<JoinHandle<()>>,
}

impl EngineThread {
    /// Starts the thread. Must be called within a tokio runtime, which spreads the results.
    pub fn spawn(
        config: &EngineConfig,
        executor: Box<dyn Executor>,
        lifecycle: Lifecycle,
    ) -> Result<(EngineHandle, Self), ConfigError> {
        let scheduler = Scheduler::new(scheduler_config(config, executor.as_ref()))?;
        // As many commands as sequences can be accepted; more would only be refused later.
        let (inbox, receiver) = inbox((config.max_waiting + config.max_num_seqs) as usize + 16);
        let stats = Arc::new(StatsCell::new(
            scheduler.stats(),
            executor.kv_spec().clone(),
        ));
        let handle = EngineHandle::new(inbox.clone(), lifecycle.clone(), Arc::clone(&stats));
        let engine = Engine {
            scheduler,
            executor,
            receiver,
            outbox: Outbox::spawn(&tokio::runtime::Handle::current(), lifecycle.clone()),
            stats: Arc::clone(&stats),
            in_flight: VecDeque::new(),
            epoch: Instant::now(),
            asleep: false,
            falling_asleep: None,
            stopping: false,
        };
        let body = move || {
            // A broken invariant must not leave clients waiting: the life ends as failed, and
            // whoever supervises the process restarts it.
            let result = catch_unwind(AssertUnwindSafe(|| engine.run()));
            stats.thread_ended();
            match result {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => lifecycle.advance(LifecycleState::Failed(reason)),
                Err(_) => {
                    lifecycle.advance(LifecycleState::Failed("engine thread panicked".into()))
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .spawn(body)
            .expect("the operating system gives the process one more thread");
        Ok((
            handle,
            Self {
                inbox,
                thread: Some(thread),
            },
        ))
    }

    /// Aborts what still runs and waits for the thread's end.
    pub fn stop(mut self) {
        self.inbox.stop();
        if let Some(thread) = self.thread.take() {
            // The thread catches its own panics.
            let _ignored = thread.join();
        }
    }
}

fn scheduler_config(config: &EngineConfig, executor: &dyn Executor) -> SchedulerConfig {
    let most = executor.max_draft_tokens();
    let speculation = config.speculation.map(|guesses| guesses.at_most(most));
    let pipeline_depth = match speculation {
        // Guesses begin with the last token known, which a step in flight would still be sampling.
        Some(_) => 1,
        None => executor.pipeline_depth(),
    };
    SchedulerConfig {
        kv: executor.kv_spec().clone(),
        max_num_seqs: config.max_num_seqs,
        max_num_batched_tokens: config.max_num_batched_tokens,
        max_logit_rows: executor.max_logit_rows(),
        max_waiting: config.max_waiting,
        max_model_len: config.max_model_len,
        max_in_flight_plans: u32::try_from(pipeline_depth).unwrap_or(1),
        enable_prefix_caching: config.enable_prefix_caching,
        max_step_failures: config.max_step_failures,
        speculation,
    }
}

struct Engine {
    scheduler: Scheduler,
    executor: Box<dyn Executor>,
    receiver: InboxReceiver,
    outbox: Outbox,
    stats: Arc<StatsCell>,
    /// Plans handed to the executor, oldest first, with the tokens each computes.
    in_flight: VecDeque<(PlanId, u32)>,
    /// The scheduler's time is milliseconds since this instant.
    epoch: Instant,
    /// The executor has given its memory back.
    asleep: bool,
    /// Somebody waits for it to do so, as soon as there is nothing to do.
    falling_asleep: Option<(SleepLevel, Reply)>,
    stopping: bool,
}

impl Engine {
    /// Turns until asked to stop. An error means that the executor is beyond use.
    fn run(mut self) -> Result<(), String> {
        while !self.stopping {
            self.read_inbox();
            self.tick();
            self.fill_pipeline();
            self.publish();
            if !self.in_flight.is_empty() {
                self.finish_oldest()?;
                self.publish();
            }
            self.fall_asleep();
        }
        Ok(())
    }

    /// Takes in everything that has arrived; sleeps if there is nothing to do.
    fn read_inbox(&mut self) {
        let mut command = if self.scheduler.has_work() || !self.in_flight.is_empty() {
            self.receiver.try_next()
        } else {
            self.receiver.wait(IDLE_WAIT)
        };
        while let Some(received) = command {
            self.handle(received);
            command = self.receiver.try_next();
        }
        // Aborts come after the submissions read above, so that none overtakes its own request;
        // one that does (its request is still on the way) is kept by the scheduler's reply below.
        for id in self.receiver.take_aborts() {
            // Aborting a sequence that has just finished is no mistake.
            let _ignored = self.scheduler.on(Event::Abort(id));
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Wake => {}
            Command::Stop => self.stopping = true,
            Command::Sleep { level, reply } => self.falling_asleep = Some((level, reply)),
            Command::WakeUp { progress, reply } => {
                let woken = self.wake(&progress);
                let _ignored = reply.send(woken);
            }
            // Without an answer: whoever submitted it looks at the life-cycle.
            Command::Submit { .. } if self.asleep => {}
            Command::Submit {
                id,
                request,
                events,
                reply,
            } => {
                let accepted = self.scheduler.on(Event::Arrive(self.arrival(id, request)));
                if accepted.is_ok() {
                    self.outbox.register(id, events);
                }
                if reply.send(accepted).is_err() {
                    // The client went away while its request was on the way. Its abort may have
                    // been read before the request itself.
                    let _ignored = self.scheduler.on(Event::Abort(id));
                }
            }
        }
    }

    /// Lets the executor sleep if somebody waits for that and there is nothing to do: who asked had all requests end,
    /// and the scheduler may still be about to hear of it.
    fn fall_asleep(&mut self) {
        if self.scheduler.has_work() || !self.in_flight.is_empty() {
            return;
        }
        let Some((level, reply)) = self.falling_asleep.take() else {
            return;
        };
        if reply.is_closed() {
            return;
        }
        let slept = self.executor.sleep(level);
        self.asleep |= slept.is_ok();
        // Whoever asked may have gone this instant; the life-cycle says what is.
        let _ignored = reply.send(slept);
    }

    fn wake(&mut self, progress: &Progress) -> Result<(), String> {
        self.executor.wake(&progress.0)?;
        self.scheduler
            .on(Event::CacheLost)
            .expect("nothing arrives with it");
        self.asleep = false;
        Ok(())
    }

    fn arrival(&self, id: backstop_types::SequenceId, request: GenerationRequest) -> Arrival {
        let deadline = request
            .queue_timeout
            .map(|wait| self.epoch.elapsed() + wait);
        Arrival {
            id,
            prompt: request.prompt,
            sampling: request.sampling,
            stop: request.stop,
            priority: request.priority,
            tenant: request.tenant,
            deadline_ms: deadline.map(milliseconds),
            cache_salt: request.cache_salt,
        }
    }

    fn tick(&mut self) {
        let now_ms = milliseconds(self.epoch.elapsed());
        self.scheduler
            .on(Event::Tick { now_ms })
            .expect("a tick is never refused");
    }

    fn fill_pipeline(&mut self) {
        while self.in_flight.len() < self.executor.pipeline_depth() {
            let Some(plan) = self.scheduler.plan() else {
                break;
            };
            self.submit(plan);
        }
        assert!(
            !self.in_flight.is_empty() || !self.scheduler.has_work(),
            "the scheduler has work but nothing to do"
        );
    }

    fn submit(&mut self, plan: StepPlan) {
        self.in_flight.push_back((plan.id, plan.num_tokens()));
        self.executor.submit(plan);
    }

    /// Waits for the oldest plan and tells the scheduler how it ended. After a failure the rest of
    /// the pipeline, which fails as well, is emptied before anything new is planned.
    fn finish_oldest(&mut self) -> Result<(), String> {
        let mut failed = false;
        while let Some((plan, tokens)) = self.in_flight.pop_front() {
            match self.executor.wait() {
                Ok(outcome) => {
                    assert_eq!(outcome.plan, plan, "plans complete in order");
                    self.complete(outcome, tokens);
                }
                Err(failure) => {
                    assert_eq!(failure.plan, plan, "plans complete in order");
                    self.fail(failure)?;
                    failed = true;
                }
            }
            if !failed {
                break;
            }
        }
        Ok(())
    }

    fn fail(&mut self, failure: StepFailure) -> Result<(), String> {
        tracing::error!(plan = failure.plan.0, reason = %failure.message, "step failed");
        self.stats.step_failed();
        if failure.fatal {
            return Err(failure.message);
        }
        self.scheduler
            .on(Event::StepFailed(failure.plan))
            .expect("the plan was in flight");
        Ok(())
    }

    fn complete(&mut self, outcome: StepOutcome, tokens: u32) {
        self.stats.step_completed(tokens);
        self.scheduler
            .on(Event::StepDone(outcome))
            .expect("the plan was in flight");
    }

    /// Sends what happened to the clients and the statistics.
    fn publish(&mut self) {
        for notice in self.scheduler.take_notices() {
            match notice {
                Notice::Admitted {
                    sequence,
                    cached_tokens,
                } => {
                    self.outbox
                        .push(sequence, GenerationEvent::Admitted { cached_tokens });
                }
                // The statistics count preemptions; to the client nothing has changed.
                Notice::Preempted { .. } => {}
                Notice::PromptLogprobs {
                    sequence, tokens, ..
                } => {
                    self.outbox
                        .push(sequence, GenerationEvent::PromptLogprobs(tokens));
                }
                Notice::Token { sequence, token } => {
                    self.outbox.push(sequence, GenerationEvent::Token(token));
                }
                Notice::Finished {
                    sequence,
                    reason,
                    usage,
                } => {
                    self.outbox
                        .push(sequence, GenerationEvent::Finished { reason, usage });
                }
            }
        }
        self.outbox.flush();
        let tokens_in_progress = self.in_flight.front().map_or(0, |(_, tokens)| *tokens);
        let (stats, busy) = (self.scheduler.stats(), self.scheduler.has_work());
        self.stats.turn(stats, busy, tokens_in_progress);
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
