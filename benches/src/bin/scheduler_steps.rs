//! Scheduler steps per second, without an executor:
//! `cargo run --release -p backstop-benches --bin scheduler_steps [DIRECTORY]`.
//!
//! A step here is everything that the engine asks of the scheduler for one step of the model:
//! the plan, the outcome with one token for each sampling sequence, and the notices.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstop_benches::machine;
use backstop_benches::report::{self, Table};
use backstop_benches::statistics::median;
use backstop_sched::{Arrival, Event, Notice, Scheduler, SchedulerConfig};
use backstop_types::{
    AttentionSpan, KvGroupSpec, KvSpec, SampledToken, SamplingParams, SequenceId, StepOutcome,
    StepPlan, StopConditions, TokenSample,
};
use serde_json::{Value, json};

const BLOCK_SIZE: u32 = 16;
const ROUNDS: usize = 5;
const ROUND_TIME: Duration = Duration::from_millis(500);
/// Long enough that the ends of sequences do not count.
const LONG: u32 = 100_000;

/// What runs while steps are counted.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    name: &'static str,
    running: u32,
    prompt_tokens: u32,
    answer_tokens: u32,
}

const SCENARIOS: [Scenario; 6] = [
    decodes("1 decode", 1),
    decodes("64 decodes", 64),
    decodes("256 decodes", 256),
    mixed(
        "64 running, 512-token prompts, 64-token answers",
        64,
        512,
        64,
    ),
    mixed(
        "256 running, 512-token prompts, 64-token answers",
        256,
        512,
        64,
    ),
    mixed(
        "256 running, 8192-token prompts, 1-token answers",
        256,
        8192,
        1,
    ),
];

const fn decodes(name: &'static str, running: u32) -> Scenario {
    Scenario {
        name,
        running,
        prompt_tokens: 16,
        answer_tokens: LONG,
    }
}

const fn mixed(
    name: &'static str,
    running: u32,
    prompt_tokens: u32,
    answer_tokens: u32,
) -> Scenario {
    Scenario {
        name,
        running,
        prompt_tokens,
        answer_tokens,
    }
}

fn main() -> std::io::Result<()> {
    let machine = machine::facts();
    let columns = ["scenario", "steps/s", "µs/step", "tokens/step"];
    let mut table = Table::new("Scheduler steps per second", &columns);
    let mut measurements = Vec::new();
    for scenario in SCENARIOS {
        let (rates, tokens_per_step) = measure(scenario);
        let rate = median(&rates);
        table.rows.push(vec![
            scenario.name.to_owned(),
            format!("{rate:.0}"),
            format!("{:.2}", 1e6 / rate),
            format!("{tokens_per_step:.0}"),
        ]);
        measurements.push(json!({
            "scenario": scenario.name,
            "steps_per_second_median": rate,
            "steps_per_second": rates,
            "tokens_per_step": tokens_per_step,
        }));
    }
    let tables = [table];
    let text = report::markdown("scheduler_steps", &machine, &tables);
    std::io::stdout().write_all(text.as_bytes())?;
    match std::env::args_os().nth(1).map(PathBuf::from) {
        Some(directory) => {
            let measurements = Value::Array(measurements);
            report::write(
                &directory,
                "scheduler_steps",
                &machine,
                &measurements,
                &tables,
            )
        }
        None => Ok(()),
    }
}

/// Steps per second of each round, and tokens per step over all of them.
fn measure(scenario: Scenario) -> (Vec<f64>, f64) {
    let mut bench = Bench::new(scenario);
    // Past the admission of the first sequences.
    for _ in 0..2 * scenario.running {
        bench.step();
    }
    let (mut all_steps, mut all_tokens) = (0_u64, 0_u64);
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let mut steps = 0_u64;
        while started.elapsed() < ROUND_TIME {
            for _ in 0..16 {
                all_tokens += u64::from(bench.step());
            }
            steps += 16;
        }
        rates.push(steps as f64 / started.elapsed().as_secs_f64());
        all_steps += steps;
    }
    (rates, all_tokens as f64 / all_steps as f64)
}

/// A scheduler that always has as many sequences as the scenario says.
struct Bench {
    scheduler: Scheduler,
    scenario: Scenario,
    next_id: u64,
}

impl Bench {
    fn new(scenario: Scenario) -> Self {
        let longest = scenario.prompt_tokens + scenario.answer_tokens;
        // Twice what runs, so that the prefix cache is full of what ran before.
        let num_blocks = 2 * scenario.running * (longest.div_ceil(BLOCK_SIZE) + 1);
        let group = |span| KvGroupSpec { span, num_blocks };
        let scheduler = Scheduler::new(SchedulerConfig {
            kv: KvSpec {
                block_size: BLOCK_SIZE,
                groups: vec![
                    group(AttentionSpan::Full),
                    group(AttentionSpan::Sliding { visible_keys: 4097 }),
                ],
            },
            max_num_seqs: scenario.running,
            max_num_batched_tokens: 2048,
            max_logit_rows: scenario.running,
            max_waiting: scenario.running,
            max_model_len: longest,
            max_in_flight_plans: 1,
            enable_prefix_caching: true,
            max_step_failures: 0,
            speculation: None,
        });
        let mut bench = Self {
            scheduler: scheduler.expect("valid limits"),
            scenario,
            next_id: 0,
        };
        for _ in 0..scenario.running {
            bench.arrive();
        }
        bench
    }

    fn arrive(&mut self) {
        let id = self.next_id;
        self.next_id += 1;
        // No two prompts share a prefix.
        let token =
            |position: u32| (id as u32).wrapping_mul(31).wrapping_add(position * 7) % 50_000;
        let prompt: Vec<u32> = (0..self.scenario.prompt_tokens).map(token).collect();
        let arrival = Arrival {
            id: SequenceId(id),
            prompt: prompt.into(),
            sampling: Arc::new(SamplingParams::default()),
            stop: Arc::new(StopConditions {
                max_tokens: self.scenario.answer_tokens,
                min_tokens: 0,
                stop_token_ids: vec![1],
            }),
            priority: 0,
            tenant: 0,
            deadline_ms: None,
            cache_salt: 0,
        };
        self.scheduler
            .on(Event::Arrive(arrival))
            .expect("there is room in the queue");
    }

    /// One step; returns its tokens.
    fn step(&mut self) -> u32 {
        let plan = self.scheduler.plan().expect("there is always work");
        let tokens = plan.num_tokens();
        self.scheduler
            .on(Event::StepDone(outcome(&plan)))
            .expect("the plan was in flight");
        for notice in self.scheduler.take_notices() {
            if let Notice::Finished { .. } = notice {
                self.arrive();
            }
        }
        tokens
    }
}

fn outcome(plan: &StepPlan) -> StepOutcome {
    let sampling = plan.sequences.iter().filter(|scheduled| scheduled.samples);
    let samples = sampling.map(|scheduled| TokenSample {
        sequence: scheduled.sequence,
        token: Ok(SampledToken {
            id: 2 + scheduled.first_position % 1000,
            logprobs: None,
        }),
        further: Vec::new(),
        proposal: Vec::new(),
    });
    StepOutcome {
        plan: plan.id,
        samples: samples.collect(),
        prompt_logprobs: Vec::new(),
    }
}
