#![allow(
    unreachable_pub,
    dead_code,
    missing_docs,
    reason = "shared by several test binaries"
)]
//! Loads checkpoints and drives scheduler and executor without an engine thread.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstop_arch::{KvGroup, Model};
use backstop_executor::{CpuExecutor, CpuExecutorConfig, load_cpu_weights};
use backstop_kernels::{CpuBackend, CpuKvCache, CpuWeights, Element, KvGroupLayout};
use backstop_sched::{Arrival, Event, Notice, Scheduler, SchedulerConfig};
use backstop_types::{
    Executor, KvGroupSpec, KvSpec, SampledToken, SamplingParams, SequenceId, StopConditions,
    TokenId,
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

pub fn load(directory: &Path) -> Loaded {
    let checkpoint = Checkpoint::open(directory).unwrap_or_else(|error| panic!("{error}"));
    let model = model(&checkpoint);
    let weights = load_cpu_weights(&checkpoint, model.spec(), &|_| {})
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    Loaded {
        checkpoint,
        weights: Arc::new(weights),
    }
}

pub fn model(checkpoint: &Checkpoint) -> Box<dyn Model<CpuBackend>> {
    backstop_arch::build(checkpoint.config()).unwrap_or_else(|error| panic!("{error}"))
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
}

/// One request of a drive.
#[derive(Clone, Debug)]
pub struct Request {
    pub prompt: Vec<TokenId>,
    pub sampling: SamplingParams,
    pub max_tokens: u32,
}

/// Everything that a drive produced.
pub struct Driven {
    /// Tokens of each request, in the order of the requests.
    pub tokens: Vec<Vec<SampledToken>>,
    pub preemptions: u64,
    pub prefix_hits: u64,
}

/// Runs `waves` of requests one after the other on one executor, each to its end.
pub fn drive(loaded: &Loaded, drive: &Drive, waves: &[Vec<Request>]) -> Driven {
    let groups = model(&loaded.checkpoint).spec().kv_groups.clone();
    let spec = KvSpec {
        block_size: drive.block_size,
        groups: groups
            .iter()
            .map(|group| KvGroupSpec {
                span: group.span,
                num_blocks: drive.blocks,
            })
            .collect(),
    };
    let blocks = vec![drive.blocks; groups.len()];
    let mut executor = CpuExecutor::new(CpuExecutorConfig {
        model: model(&loaded.checkpoint),
        backend: backend(loaded, drive.block_size, &blocks, Element::BF16),
        kv: spec.clone(),
        max_num_seqs: drive.max_num_seqs,
        num_threads: drive.num_threads,
    })
    .expect("threads start");
    drive_with(&mut executor, &spec, drive, waves)
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
        max_waiting: 1024,
        max_model_len: 1024,
        max_in_flight_plans: executor.pipeline_depth() as u32,
        enable_prefix_caching: drive.enable_prefix_caching,
        max_step_failures: 0,
    })
    .expect("valid limits");
    let mut tokens = Vec::new();
    for wave in waves {
        for request in wave {
            arrive(&mut scheduler, tokens.len() as u64, request);
            tokens.push(Vec::new());
        }
        run_to_end(&mut scheduler, executor, &mut tokens);
    }
    let stats = scheduler.stats();
    Driven {
        tokens,
        preemptions: stats.preemptions,
        prefix_hits: stats.prefix_cache_hits,
    }
}

fn arrive(scheduler: &mut Scheduler, id: u64, request: &Request) {
    let arrival = Arrival {
        id: SequenceId(id),
        prompt: request.prompt.clone().into(),
        sampling: Arc::new(request.sampling.clone()),
        stop: Arc::new(StopConditions {
            max_tokens: request.max_tokens,
            min_tokens: 0,
            stop_token_ids: Vec::new(),
        }),
        priority: 0,
        deadline_ms: None,
        cache_salt: 0,
    };
    scheduler.on(Event::Arrive(arrival)).expect("accepted");
}

fn run_to_end(
    scheduler: &mut Scheduler,
    executor: &mut dyn Executor,
    tokens: &mut [Vec<SampledToken>],
) {
    let mut in_flight = 0;
    while scheduler.has_work() || in_flight > 0 {
        while in_flight < executor.pipeline_depth()
            && let Some(plan) = scheduler.plan()
        {
            executor.submit(plan);
            in_flight += 1;
        }
        let outcome = executor
            .wait()
            .unwrap_or_else(|failure| panic!("{failure:?}"));
        in_flight -= 1;
        scheduler
            .on(Event::StepDone(outcome))
            .expect("the plan was in flight");
        scheduler.audit();
        for notice in scheduler.take_notices() {
            if let Notice::Token { sequence, token } = notice {
                tokens[sequence.0 as usize].push(token);
            }
        }
    }
}
