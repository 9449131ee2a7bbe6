//! The turns of an episode, and the episodes of a simulation.

use backstop_sched::{Event, Notice, Scheduler};
use backstop_types::{FinishReason, SequenceId, StepOutcome, StepPlan};

use crate::Report;
use crate::executor::{Delivery, ShadowExecutor};
use crate::fairness::PlanWatch;
use crate::oracle::Oracle;
use crate::random::{Random, chain};
use crate::scenario::Scenario;

/// Runs episodes until `steps` turns have been taken. Panics at the first fault.
pub fn run(seed: u64, steps: u64) -> Report {
    let mut simulation = Simulation::new(seed);
    while simulation.report().steps < steps {
        simulation.run_episode();
    }
    simulation.report().clone()
}

/// A sequence of episodes. The seeds of the episodes count up, so that a faulty one can be run
/// alone.
#[derive(Clone, Debug)]
pub struct Simulation {
    next_seed: u64,
    report: Report,
}

impl Simulation {
    /// A simulation whose first episode has this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            next_seed: seed,
            report: Report::default(),
        }
    }

    /// Counts so far, also when an episode has panicked.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Seed of the next episode; after a panic, one more than that of the faulty one.
    pub fn next_seed(&self) -> u64 {
        self.next_seed
    }

    /// Runs one episode: random turns, and then the drain.
    pub fn run_episode(&mut self) {
        let seed = self.next_seed;
        self.next_seed += 1;
        self.report.episodes += 1;
        let mut random = Random::new(seed);
        let scenario = Scenario::new(&mut random);
        let scheduler = Scheduler::new(scenario.config.clone()).expect("scenarios are valid");
        let mut episode = Episode {
            scheduler,
            executor: ShadowExecutor::new(scenario.config.clone()),
            oracle: Oracle::new(&scenario),
            scenario,
            random,
            next_id: 0,
            now_ms: 0,
            report: &mut self.report,
        };
        for _ in 0..episode.scenario.turns {
            episode.turn();
        }
        episode.drain();
        episode.count();
    }
}

/// One kind of turn.
type Action<'a> = fn(&mut Episode<'a>);

struct Episode<'a> {
    scheduler: Scheduler,
    executor: ShadowExecutor,
    oracle: Oracle,
    scenario: Scenario,
    random: Random,
    next_id: u64,
    now_ms: u64,
    report: &'a mut Report,
}

impl<'a> Episode<'a> {
    /// One random turn among those that are possible.
    fn turn(&mut self) {
        let weights = &self.scenario.weights;
        let choices: [(u32, Action<'a>); 7] = [
            (weights.arrive, Self::arrive),
            (weights.abort, Self::abort),
            (weights.tick, Self::tick),
            (weights.plan, |episode| {
                episode.plan();
            }),
            (
                if self.executor.can_execute() {
                    weights.execute
                } else {
                    0
                },
                Self::execute,
            ),
            (
                if self.executor.can_deliver() {
                    weights.deliver
                } else {
                    0
                },
                Self::deliver,
            ),
            (
                if self.scheduler.has_work() {
                    0
                } else {
                    weights.lose_cache
                },
                Self::lose_cache,
            ),
        ];
        let sum = choices.iter().map(|(weight, _)| weight).sum();
        let mut ticket = self.random.below(sum);
        for (weight, action) in choices {
            if ticket < weight {
                action(self);
                break;
            }
            ticket -= weight;
        }
        self.end_turn();
    }

    fn end_turn(&mut self) {
        self.scheduler.audit();
        self.report.steps += 1;
        let expected = self.oracle.live.is_empty() && self.executor.is_idle();
        assert_eq!(
            self.scheduler.has_work(),
            !expected,
            "work is lost or made up"
        );
    }

    /// Lets everything that is alive come to its end.
    fn drain(&mut self) {
        self.scenario.failures_per_mille = 0;
        let mut plans_left = self.oracle.plans_to_drain() + 4;
        while self.scheduler.has_work() {
            if self.plan() {
                plans_left -= 1;
                assert!(plans_left > 0, "the machine does not come to rest");
            }
            self.end_turn();
            if self.executor.can_execute() && self.random.chance(700) {
                self.execute();
                self.end_turn();
            }
            if self.executor.can_deliver() && self.random.chance(700) {
                self.deliver();
                self.end_turn();
            }
        }
        let referenced = self
            .scheduler
            .stats()
            .kv_blocks
            .iter()
            .map(|usage| usage.referenced)
            .sum();
        assert_eq!(0u32, referenced, "blocks are lost");
    }

    fn arrive(&mut self) {
        // Now and then an id that is in use.
        let reuse = self.random.chance(10);
        let id = if reuse {
            self.random.next() % (self.next_id + 1)
        } else {
            self.next_id
        };
        if reuse && !self.oracle.live.contains_key(&SequenceId(id)) {
            return;
        }
        self.next_id = self.next_id.max(id + 1);
        let arrival = self.scenario.arrival(&mut self.random, id, self.now_ms);
        let waiting = self.scheduler.stats().waiting;
        let refusal = self.oracle.refusal(&arrival, waiting);
        let result = self.scheduler.on(Event::Arrive(arrival.clone()));
        assert_eq!(
            result.as_ref().err(),
            refusal.as_ref(),
            "an arrival meets another answer"
        );
        self.report.arrivals += 1;
        match refusal {
            Some(_) => self.report.rejections += 1,
            None => self.oracle.arrive(arrival),
        }
        self.expect(Vec::new());
    }

    fn abort(&mut self) {
        // Mostly someone recent, who is likely to be alive.
        let back = self.random.next() % 16;
        let id = SequenceId(self.next_id.saturating_sub(back));
        self.send(Event::Abort(id));
        let notices: Vec<_> = self
            .oracle
            .end(id, FinishReason::Aborted)
            .into_iter()
            .collect();
        self.report.aborts += notices.len() as u64;
        self.expect(notices);
    }

    fn tick(&mut self) {
        self.now_ms += u64::from(self.random.below(20));
        self.send(Event::Tick {
            now_ms: self.now_ms,
        });
        let mut notices = self.oracle.expire(self.now_ms);
        self.report.expirations += notices.len() as u64;
        // Sequences with the same deadline may expire in any order.
        let mut actual = self.scheduler.take_notices();
        let id = |notice: &Notice| match notice {
            Notice::Finished { sequence, .. } => *sequence,
            _ => panic!("time brings nothing but ends: {notice:?}"),
        };
        notices.sort_by_key(id);
        actual.sort_by_key(id);
        assert_eq!(actual, notices, "time brings other ends");
        actual.iter().for_each(|notice| self.trace_notice(notice));
    }

    fn plan(&mut self) -> bool {
        let before = self.scheduler.running().collect();
        let plan = self.scheduler.plan();
        let notices = self.scheduler.take_notices();
        let mut watch = PlanWatch::new(before, self.scheduler.running().collect(), &notices);
        for notice in &notices {
            watch.check(notice, &self.oracle);
            self.oracle.follow(notice);
            self.trace_notice(notice);
        }
        if plan.is_some() {
            self.oracle.fairness.plan_made(&watch, &self.oracle.live);
        }
        let Some(plan) = plan else {
            let stuck = self.executor.is_idle() && !self.oracle.live.is_empty();
            assert!(!stuck, "there is work and nothing in flight, yet no plan");
            return false;
        };
        self.trace_plan(&plan);
        self.executor.submit(plan, &self.oracle);
        true
    }

    fn execute(&mut self) {
        let fail = self.random.chance(self.scenario.failures_per_mille);
        self.executor
            .execute(&mut self.random, fail, self.scenario.faults_per_mille);
    }

    fn deliver(&mut self) {
        let mut notices = Vec::new();
        match self.executor.deliver() {
            Delivery::Done(outcome, sequences) => {
                self.send(Event::StepDone(outcome.clone()));
                for sequence in sequences {
                    self.judge(sequence, &outcome, &mut notices);
                }
                self.oracle.plan_completed();
            }
            Delivery::Failed(plan, down) => {
                self.send(Event::StepFailed(plan));
                notices = down.map_or_else(Vec::new, |down| self.oracle.fail(&down));
            }
        }
        self.expect(notices);
    }

    /// What an outcome must bring for one of its sequences.
    fn judge(&mut self, id: SequenceId, outcome: &StepOutcome, notices: &mut Vec<Notice>) {
        let mut ratings = outcome.prompt_logprobs.iter();
        if let Some(rating) = ratings.find(|rating| rating.sequence == id) {
            self.report.rated_tokens += rating.tokens.as_ref().map_or(0, Vec::len) as u64;
            self.oracle.rate(rating, notices);
        }
        let mut samples = outcome.samples.iter();
        let Some(sample) = samples.find(|sample| sample.sequence == id) else {
            return;
        };
        let tokens = self.oracle.live.get(&id);
        let tokens = tokens.map(|expected| expected.tokens.clone());
        self.oracle.sample(sample, notices);
        let ended = !self.oracle.live.contains_key(&id);
        if let Some(tokens) = tokens.filter(|_| ended) {
            self.scenario.remember(&mut self.random, &tokens);
        }
    }

    fn lose_cache(&mut self) {
        self.executor.lose_cache();
        self.send(Event::CacheLost);
        self.report.cache_losses += 1;
        self.expect(Vec::new());
    }

    fn send(&mut self, event: Event) {
        self.scheduler.on(event).expect("only arrivals are refused");
    }

    /// The scheduler must have said exactly this.
    fn expect(&mut self, notices: Vec<Notice>) {
        let actual = self.scheduler.take_notices();
        assert_eq!(actual, notices, "an event brings other notices");
        actual.iter().for_each(|notice| self.trace_notice(notice));
    }

    fn trace(&mut self, value: u64) {
        self.report.trace_hash = chain(self.report.trace_hash, value);
    }

    fn trace_all<const N: usize>(&mut self, values: [u64; N]) {
        values.into_iter().for_each(|value| self.trace(value));
    }

    fn trace_notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Admitted {
                sequence,
                cached_tokens,
            } => {
                self.trace_all([1, sequence.0, u64::from(*cached_tokens)]);
            }
            Notice::Preempted { sequence } => {
                self.trace_all([2, sequence.0]);
            }
            Notice::PromptLogprobs {
                sequence,
                first_position,
                tokens,
            } => {
                self.trace_all([5, sequence.0, u64::from(*first_position)]);
                tokens
                    .iter()
                    .for_each(|token| self.trace(u64::from(token.rank)));
            }
            Notice::Token { sequence, token } => {
                self.trace_all([3, sequence.0, u64::from(token.id)]);
            }
            Notice::Finished {
                sequence, usage, ..
            } => {
                let generated = u64::from(usage.generated_tokens);
                self.trace_all([4, sequence.0, generated]);
            }
        }
    }

    fn trace_plan(&mut self, plan: &StepPlan) {
        self.trace(plan.id.0);
        for part in &plan.sequences {
            self.trace(part.sequence.0);
            self.trace(u64::from(part.slot.0));
            self.trace(u64::from(part.first_position) << 32 | u64::from(part.num_tokens));
            for block in part.new_blocks.iter().flat_map(|append| &append.blocks) {
                self.trace(u64::from(block.0));
            }
        }
    }

    /// Adds the scheduler's own counts to the report.
    fn count(&mut self) {
        let stats = self.scheduler.stats();
        self.report.plans += stats.plans_made;
        self.report.failed_plans += stats.plans_failed;
        self.report.tokens += stats.tokens_generated;
        self.report.preemptions += stats.preemptions;
        self.report.cached_tokens += stats.prefix_cache_hits;
    }
}
