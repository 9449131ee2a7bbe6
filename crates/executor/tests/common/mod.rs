#![allow(
    unreachable_pub,
    dead_code,
    missing_docs,
    reason = "shared by several test binaries"
)]
//! Loads checkpoints and drives scheduler and executor without an engine thread.

pub mod goldens;
pub mod grammars;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstop_arch::{AnyModel, KvGroup, gguf_families};
use backstop_executor::{CpuExecutorConfig, DeviceExecutor, Drafter};
use backstop_kernels::{CpuBackend, CpuKvCache, CpuWeights, Element, KvGroupLayout};
use backstop_loader::load_cpu_weights;
use backstop_sched::{Arrival, Event, Notice, Scheduler, SchedulerConfig, Speculation};
use backstop_types::{
    Executor, FinishReason, KvGroupSpec, KvSpec, SampledToken, SamplingParams, SequenceId,
    StepFailure, StepOutcome, StepPlan, StopConditions, TokenId, TokenLogprobs,
};
use backstop_weights::Checkpoint;

/// A directory below the repository's root.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

/// A model with its weights.
pub struct Loaded {
    pub checkpoint: Checkpoint,
    pub weights: Arc<CpuWeights>,
}

/// As it is served.
pub fn load(directory: &Path) -> Loaded {
    load_with(directory, |weights| weights.arranged(&|_| {}))
}

pub fn load_with(directory: &Path, arrange: fn(CpuWeights) -> CpuWeights) -> Loaded {
    let mut checkpoint =
        Checkpoint::open(directory, &gguf_families()).unwrap_or_else(|error| panic!("{error}"));
    let model = fitted(&mut checkpoint);
    let weights = load_cpu_weights(&checkpoint, model.spec(), &|_| {})
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    Loaded {
        checkpoint,
        weights: Arc::new(arrange(weights)),
    }
}

/// The model of a checkpoint, whose other tensors are passed over.
pub fn fitted(checkpoint: &mut Checkpoint) -> AnyModel {
    let fitted = backstop_loader::fit(checkpoint);
    fitted.unwrap_or_else(|error| panic!("{error}")).model
}

pub fn model(checkpoint: &Checkpoint) -> AnyModel {
    backstop_arch::build(checkpoint.config()).unwrap_or_else(|error| panic!("{error}"))
}

/// Tokens of the model.
pub fn vocabulary(loaded: &Loaded) -> u32 {
    model(&loaded.checkpoint).spec().vocabulary_size
}

/// KV memory of `blocks` blocks in every group.
pub fn backend(loaded: &Loaded, block_size: u32, blocks: &[u32], element: Element) -> CpuBackend {
    let groups = model(&loaded.checkpoint).spec().kv_groups.clone();
    let layout = |(group, num_blocks): (&KvGroup, &u32)| group.layout(*num_blocks);
    let layouts: Vec<KvGroupLayout> = groups.iter().zip(blocks).map(layout).collect();
    let cache = CpuKvCache::new(&layouts, block_size, element);
    CpuBackend::new(Arc::clone(&loaded.weights), cache)
}

/// Limits of one drive.
#[derive(Clone, Copy, Debug)]
pub struct Drive {
    pub block_size: u32,
    pub blocks: u32,
    pub max_num_seqs: u32,
    pub max_num_batched_tokens: u32,
    pub enable_prefix_caching: bool,
    pub num_threads: usize,
    pub speculation: Option<Speculation>,
}

/// One request of a drive.
#[derive(Clone, Debug)]
pub struct Request {
    pub prompt: Vec<TokenId>,
    pub sampling: SamplingParams,
    pub max_tokens: u32,
    pub min_tokens: u32,
    pub stop_token_ids: Vec<TokenId>,
}

/// Everything that a drive produced. What is said of requests is in their order.
#[derive(Default)]
pub struct Driven {
    pub tokens: Vec<Vec<SampledToken>>,
    pub prompt_logprobs: Vec<Vec<TokenLogprobs>>,
    pub ends: Vec<Option<FinishReason>>,
    pub preemptions: u64,
    pub prefix_hits: u64,
    /// Tokens that were guessed, and those that came of it.
    pub guessed: (u64, u64),
}

/// Runs `waves` of requests one after the other on one executor, each to its end.
pub fn drive(loaded: &Loaded, drive: &Drive, waves: &[Vec<Request>]) -> Driven {
    let mut executor = cpu_executor(loaded, drive);
    let spec = executor.kv_spec().clone();
    drive_with(&mut executor, &spec, drive, waves)
}

/// The KV memory of a drive.
pub fn kv_spec(loaded: &Loaded, drive: &Drive) -> KvSpec {
    let groups = model(&loaded.checkpoint).spec().kv_groups.clone();
    let groups = groups.iter().map(|group| KvGroupSpec {
        span: group.span,
        num_blocks: drive.blocks,
    });
    KvSpec {
        block_size: drive.block_size,
        groups: groups.collect(),
    }
}

pub fn cpu_executor(loaded: &Loaded, drive: &Drive) -> DeviceExecutor {
    cpu_executor_with(loaded, drive, None)
}

pub fn cpu_executor_with(
    loaded: &Loaded,
    drive: &Drive,
    drafter: Option<Drafter>,
) -> DeviceExecutor {
    let spec = kv_spec(loaded, drive);
    let blocks = vec![drive.blocks; spec.groups.len()];
    CpuExecutorConfig {
        model: Box::new(model(&loaded.checkpoint)),
        backend: backend(loaded, drive.block_size, &blocks, Element::BF16),
        kv: spec,
        max_num_seqs: drive.max_num_seqs,
        num_threads: drive.num_threads,
        drafter,
    }
    .start()
    .expect("threads start")
}

/// The same on an executor that stands ready.
pub fn drive_with(
    executor: &mut dyn Executor,
    spec: &KvSpec,
    drive: &Drive,
    waves: &[Vec<Request>],
) -> Driven {
    let mut scheduler = Scheduler::new(SchedulerConfig {
        kv: spec.clone(),
        max_num_seqs: drive.max_num_seqs,
        max_num_batched_tokens: drive.max_num_batched_tokens,
        max_logit_rows: executor.max_logit_rows(),
        max_waiting: 1024,
        max_model_len: 1024,
        max_in_flight_plans: match drive.speculation {
            Some(_) => 1,
            None => executor.pipeline_depth() as u32,
        },
        enable_prefix_caching: drive.enable_prefix_caching,
        max_step_failures: 1000,
        speculation: drive.speculation,
    })
    .expect("valid limits");
    let mut driven = Driven::default();
    for wave in waves {
        for request in wave {
            arrive(&mut scheduler, driven.tokens.len() as u64, request);
            driven.tokens.push(Vec::new());
            driven.prompt_logprobs.push(Vec::new());
            driven.ends.push(None);
        }
        run_to_end(&mut scheduler, executor, &mut driven);
    }
    let stats = scheduler.stats();
    driven.preemptions = stats.preemptions;
    driven.prefix_hits = stats.prefix_cache_hits;
    driven.guessed = (stats.draft_tokens, stats.accepted_tokens);
    driven
}

fn arrive(scheduler: &mut Scheduler, id: u64, request: &Request) {
    let arrival = Arrival {
        id: SequenceId(id),
        prompt: request.prompt.clone().into(),
        sampling: Arc::new(request.sampling.clone()),
        stop: Arc::new(StopConditions {
            max_tokens: request.max_tokens,
            min_tokens: request.min_tokens,
            stop_token_ids: request.stop_token_ids.clone(),
        }),
        priority: 0,
        tenant: 0,
        deadline_ms: None,
        cache_salt: 0,
    };
    scheduler.on(Event::Arrive(arrival)).expect("accepted");
}

fn run_to_end(scheduler: &mut Scheduler, executor: &mut dyn Executor, driven: &mut Driven) {
    let mut in_flight = 0;
    while scheduler.has_work() || in_flight > 0 {
        while in_flight < executor.pipeline_depth()
            && let Some(plan) = scheduler.plan()
        {
            executor.submit(plan);
            in_flight += 1;
        }
        let event = match executor.wait() {
            Ok(outcome) => Event::StepDone(outcome),
            Err(failure) => Event::StepFailed(failure.plan),
        };
        in_flight -= 1;
        scheduler.on(event).expect("the plan was in flight");
        scheduler.audit();
        for notice in scheduler.take_notices() {
            driven.note(notice);
        }
    }
}

impl Driven {
    fn note(&mut self, notice: Notice) {
        match notice {
            Notice::Token { sequence, token } => self.tokens[sequence.0 as usize].push(token),
            Notice::PromptLogprobs {
                sequence,
                first_position,
                tokens,
            } => {
                let rated = &mut self.prompt_logprobs[sequence.0 as usize];
                assert_eq!(rated.len() + 1, first_position as usize);
                rated.extend(tokens);
            }
            Notice::Finished {
                sequence, reason, ..
            } => self.ends[sequence.0 as usize] = Some(reason),
            Notice::Admitted { .. } | Notice::Preempted { .. } => {}
        }
    }

    /// Ids of a request's tokens.
    pub fn ids(&self, request: usize) -> Vec<TokenId> {
        self.tokens[request].iter().map(|token| token.id).collect()
    }
}

/// Fails a step in every so many, with the one behind it, after it has been computed.
pub struct Flaky<'a> {
    pub executor: &'a mut dyn Executor,
    pub steps_between: u64,
    in_flight: u64,
    failing: bool,
}

impl<'a> Flaky<'a> {
    pub fn new(executor: &'a mut dyn Executor, steps_between: u64) -> Self {
        Self {
            executor,
            steps_between,
            in_flight: 0,
            failing: false,
        }
    }
}

impl Executor for Flaky<'_> {
    fn kv_spec(&self) -> &KvSpec {
        self.executor.kv_spec()
    }

    fn pipeline_depth(&self) -> usize {
        self.executor.pipeline_depth()
    }

    fn max_logit_rows(&self) -> u32 {
        self.executor.max_logit_rows()
    }

    fn submit(&mut self, plan: StepPlan) {
        self.in_flight += 1;
        self.executor.submit(plan);
    }

    fn wait(&mut self) -> Result<StepOutcome, StepFailure> {
        let outcome = self.executor.wait()?;
        self.in_flight -= 1;
        self.failing |= outcome.plan.0 % self.steps_between == self.steps_between - 1;
        let failed = self.failing;
        self.failing &= self.in_flight > 0;
        match failed {
            false => Ok(outcome),
            true => Err(StepFailure {
                plan: outcome.plan,
                message: "asked to".into(),
                fatal: false,
            }),
        }
    }
}
