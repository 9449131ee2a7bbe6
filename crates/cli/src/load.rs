//! From a model's name to a running engine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use backstop_arch::{KvGroup, Model, ModelSpec};
use backstop_engine::{EngineConfig, EngineHandle, EngineThread, Lifecycle, LifecycleState};
use backstop_executor::{
    CpuExecutor, CpuExecutorConfig, KvMemoryPlan, KvMemoryRequest, full_demand_bytes,
    load_cpu_weights, plan_kv_memory,
};
use backstop_kernels::{CpuBackend, CpuKvCache, Element, KvGroupLayout};
use backstop_server::GenerationDefaults;
use backstop_text::{ChatTemplate, Tokenizer};
use backstop_types::TokenId;
use backstop_weights::{Checkpoint, ElementType, Manifest, ModelLocator};

use crate::args::{KvCacheDtype, ModelArgs};
use crate::machine;
use crate::progress::loading_bar;
use crate::quantities::format_bytes;

const DEFAULT_MODEL: &str = "demo";
const DEFAULT_MAX_NUM_SEQS: u32 = 64;
/// A larger step is more efficient, a smaller one lets short requests through sooner.
const DEFAULT_MAX_NUM_BATCHED_TOKENS: u32 = 512;
const DEFAULT_BLOCK_SIZE: u32 = 16;
/// KV memory by default: what the limits ask for, but no larger share of the free memory.
const DEFAULT_KV_SHARE_OF_FREE_MEMORY: u64 = 4;
/// Failed steps that one sequence survives before it is given up.
const MAX_STEP_FAILURES: u32 = 2;

/// A checkpoint and everything that its text files say; no weights yet.
pub(crate) struct OpenModel {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    pub(crate) manifest: Option<Manifest>,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) text: ModelText,
    model: Box<dyn Model<CpuBackend>>,
}

/// How to turn requests into tokens and back, and how to sample by default.
#[derive(Clone)]
pub(crate) struct ModelText {
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) template: Option<Arc<ChatTemplate>>,
    pub(crate) eos_token_ids: Vec<TokenId>,
    pub(crate) bos_token: String,
    pub(crate) eos_token: String,
    pub(crate) defaults: GenerationDefaults,
}

impl OpenModel {
    pub(crate) fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    /// Any valid prompt, for a model without a recorded answer.
    pub(crate) fn warm_up_prompt(&self) -> Result<Vec<TokenId>, String> {
        let tokens = self
            .text
            .tokenizer
            .encode("def main():", true)
            .map_err(|error| format!("tokenizer of {}: {error}", self.name))?;
        if tokens.is_empty() {
            Ok(vec![0])
        } else {
            Ok(tokens)
        }
    }
}

impl ModelText {
    fn read(checkpoint: &Checkpoint, manifest: Option<&Manifest>) -> Result<Self, String> {
        let tokenizer =
            Tokenizer::from_file(checkpoint.tokenizer_path()).map_err(|error| error.to_string())?;
        let template = checkpoint
            .chat_template()
            .map(ChatTemplate::from_source)
            .transpose();
        let tokens = checkpoint.special_tokens();
        let generation = checkpoint.generation_config();
        let serving = manifest
            .map(|manifest| manifest.serving.clone())
            .unwrap_or_default();
        let number = |ours: Option<f64>, theirs: Option<f64>| ours.or(theirs).map(|x| x as f32);
        Ok(Self {
            tokenizer: Arc::new(tokenizer),
            template: template.map_err(|error| error.to_string())?.map(Arc::new),
            bos_token: tokens.bos.clone().unwrap_or_default(),
            eos_token: tokens.eos.clone().unwrap_or_default(),
            defaults: GenerationDefaults {
                temperature: number(serving.temperature, generation.temperature),
                top_p: number(serving.top_p, generation.top_p),
                top_k: generation.top_k,
                min_p: generation.min_p.map(|x| x as f32),
                repetition_penalty: generation.repetition_penalty.map(|x| x as f32),
            },
            eos_token_ids: generation.eos_token_ids,
        })
    }
}

/// A model that answers.
pub(crate) struct RunningModel {
    pub(crate) engine: EngineHandle,
    pub(crate) thread: EngineThread,
    pub(crate) max_model_len: u32,
}

/// Finds the model and reads its text files.
pub(crate) fn open(args: &ModelArgs) -> Result<OpenModel, String> {
    let wanted = args.model.as_deref().unwrap_or(DEFAULT_MODEL);
    let located = ModelLocator::from_environment()
        .locate(wanted)
        .map_err(|error| error.to_string())?;
    let name = located.name();
    let manifest = located.manifest.map(|(_, manifest)| manifest);
    let mut checkpoint = Checkpoint::open(&located.directory).map_err(|error| error.to_string())?;
    if let Some(overrides) = &args.hf_overrides {
        checkpoint
            .apply_overrides(overrides)
            .map_err(|error| error.to_string())?;
    }
    let model = backstop_arch::build::<CpuBackend>(checkpoint.config())
        .map_err(|error| format!("{}: {error}", located.directory.display()))?;
    let text = ModelText::read(&checkpoint, manifest.as_ref())?;
    Ok(OpenModel {
        name,
        directory: located.directory,
        manifest,
        text,
        checkpoint,
        model,
    })
}

/// Limits of the engine, from settings, manifest and model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_model_len: u32,
    max_num_seqs: u32,
    max_num_batched_tokens: u32,
    block_size: u32,
    kv_element: Element,
    num_threads: usize,
}

pub(crate) fn limits(args: &ModelArgs, open: &OpenModel) -> Result<Limits, String> {
    let spec = open.spec();
    let recommended = open
        .manifest
        .as_ref()
        .and_then(|manifest| manifest.serving.max_model_len);
    let longest = spec.max_position_embeddings;
    let max_model_len = args.max_model_len.or(recommended).unwrap_or(longest);
    if max_model_len > longest {
        return Err(format!(
            "--max-model-len {max_model_len} exceeds the {longest} positions that the model was \
             made for (max_position_embeddings in config.json)"
        ));
    }
    let positive = |name: &str, value: u64, most: u64| {
        if (1..=most).contains(&value) {
            Ok(())
        } else {
            Err(format!("--{name} must lie between 1 and {most}"))
        }
    };
    let limits = Limits {
        max_model_len,
        max_num_seqs: args.max_num_seqs.unwrap_or(DEFAULT_MAX_NUM_SEQS),
        max_num_batched_tokens: args
            .max_num_batched_tokens
            .unwrap_or(DEFAULT_MAX_NUM_BATCHED_TOKENS),
        block_size: args.block_size.unwrap_or(DEFAULT_BLOCK_SIZE),
        kv_element: kv_element(args.kv_cache_dtype.unwrap_or(KvCacheDtype::Auto), open),
        num_threads: args.num_threads.unwrap_or_else(machine::cores),
    };
    positive("max-model-len", limits.max_model_len.into(), longest.into())?;
    positive("max-num-seqs", limits.max_num_seqs.into(), 4096)?;
    positive(
        "max-num-batched-tokens",
        limits.max_num_batched_tokens.into(),
        65_536,
    )?;
    positive("block-size", limits.block_size.into(), 1024)?;
    positive("num-threads", limits.num_threads as u64, 1024)?;
    if limits.max_num_batched_tokens < limits.max_num_seqs {
        return Err(format!(
            "--max-num-batched-tokens {} is smaller than --max-num-seqs {}: a step must be able \
             to compute a token of every running sequence",
            limits.max_num_batched_tokens, limits.max_num_seqs
        ));
    }
    Ok(limits)
}

fn kv_element(choice: KvCacheDtype, open: &OpenModel) -> Element {
    match choice {
        KvCacheDtype::F32 => Element::F32,
        KvCacheDtype::Bf16 => Element::BF16,
        KvCacheDtype::Fp8 => Element::F8E4M3,
        KvCacheDtype::Auto => {
            // Norms are never quantised, so their format is that of the checkpoint.
            let norm = open.spec().weights.vectors.first();
            let tensor = norm.and_then(|norm| open.checkpoint.tensor(&norm.name));
            match tensor.map(|tensor| tensor.element_type) {
                Some(ElementType::F32) => Element::F32,
                _ => Element::BF16,
            }
        }
    }
}

/// The KV pools that the settings and the free memory allow.
pub(crate) fn kv_memory(
    args: &ModelArgs,
    limits: &Limits,
    groups: &[KvGroup],
) -> Result<KvMemoryPlan, String> {
    let mut request = KvMemoryRequest {
        budget_bytes: u64::MAX,
        block_size: limits.block_size,
        element_bytes: limits.kv_element.bytes() as u32,
        max_num_seqs: limits.max_num_seqs,
        max_model_len: limits.max_model_len,
        max_num_batched_tokens: limits.max_num_batched_tokens,
    };
    let available = machine::available_memory_bytes();
    request.budget_bytes = match args.kv_cache_memory {
        Some(asked) if available.is_some_and(|available| asked > available) => {
            return Err(format!(
                "--kv-cache-memory {} is more than the {} that are free on this machine",
                format_bytes(asked),
                format_bytes(available.unwrap_or(0)),
            ));
        }
        Some(asked) => asked,
        None => {
            let share = available.map_or(4 << 30, |free| free / DEFAULT_KV_SHARE_OF_FREE_MEMORY);
            full_demand_bytes(groups, &request).min(share)
        }
    };
    plan_kv_memory(groups, &request).map_err(|error| error.to_string())
}

/// Reads the weights and starts the engine. Must be called within a tokio runtime.
pub(crate) fn start(
    args: &ModelArgs,
    open: OpenModel,
    max_waiting: u32,
    lifecycle: &Lifecycle,
) -> Result<RunningModel, String> {
    let started = Instant::now();
    let limits = limits(args, &open)?;
    let kv = kv_memory(args, &limits, &open.spec().kv_groups)?;
    let bytes_total = open.checkpoint.bytes_total();
    if let Some(free) = machine::available_memory_bytes()
        && bytes_total + kv.bytes > free
    {
        return Err(format!(
            "{} needs {} for its weights and {} for the KV cache, which is {} more than the \
             machine has free: lower --kv-cache-memory or serve a smaller model",
            open.name,
            format_bytes(bytes_total),
            format_bytes(kv.bytes),
            format_bytes(bytes_total + kv.bytes - free),
        ));
    }
    let bar = loading_bar(bytes_total);
    let progress = |bytes_done: u64| {
        bar.set_position(bytes_done);
        lifecycle.advance(LifecycleState::Loading {
            bytes_done,
            bytes_total,
        });
    };
    let weights = load_cpu_weights(&open.checkpoint, open.spec(), &progress)
        .map_err(|error| format!("{}: {error}", open.directory.display()))?;
    bar.finish_and_clear();
    tracing::info!(
        "loaded {} of weights in {:.1} s; KV cache {} in blocks of {} tokens",
        format_bytes(bytes_total),
        started.elapsed().as_secs_f32(),
        format_bytes(kv.bytes),
        limits.block_size,
    );
    spawn(args, open, limits, (weights, kv), max_waiting, lifecycle)
}

fn spawn(
    args: &ModelArgs,
    open: OpenModel,
    limits: Limits,
    (weights, kv): (backstop_kernels::CpuWeights, KvMemoryPlan),
    max_waiting: u32,
    lifecycle: &Lifecycle,
) -> Result<RunningModel, String> {
    let groups: Vec<KvGroupLayout> = open
        .spec()
        .kv_groups
        .iter()
        .zip(&kv.spec.groups)
        .map(|(group, pool)| KvGroupLayout {
            span: group.span,
            num_blocks: pool.num_blocks,
            num_layers: group.num_layers,
            kv_heads: group.kv_heads,
            head_dim: group.head_dim,
        })
        .collect();
    let cache = CpuKvCache::new(&groups, limits.block_size, limits.kv_element);
    let executor = CpuExecutor::new(CpuExecutorConfig {
        model: open.model,
        backend: CpuBackend::new(Arc::new(weights), cache),
        kv: kv.spec,
        max_num_seqs: limits.max_num_seqs,
        num_threads: limits.num_threads,
    })
    .map_err(|error| format!("cannot start the executor: {error}"))?;
    let config = EngineConfig {
        max_num_seqs: limits.max_num_seqs,
        max_num_batched_tokens: limits.max_num_batched_tokens,
        max_waiting,
        max_model_len: limits.max_model_len,
        enable_prefix_caching: !args.no_enable_prefix_caching,
        max_step_failures: MAX_STEP_FAILURES,
    };
    let (engine, thread) = EngineThread::spawn(&config, Box::new(executor), lifecycle.clone())
        .map_err(|error| error.to_string())?;
    Ok(RunningModel {
        engine,
        thread,
        max_model_len: limits.max_model_len,
    })
}
