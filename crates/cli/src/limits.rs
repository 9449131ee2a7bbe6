//! Limits of the engine, from settings, manifest, model and device.

use backstop_engine::Speculation;
use backstop_executor::PlanRequest;
use backstop_kernels::Element;
use backstop_weights::ElementType;

use crate::args::{KvCacheDtype, ModelArgs};
use crate::load::OpenModel;
use crate::machine;
use crate::speculative::SpeculativeConfig;

/// A larger step is more efficient, a smaller one lets short requests through sooner.
const CPU_DEFAULTS: Defaults = Defaults {
    max_num_seqs: 64,
    max_num_batched_tokens: 512,
};
const CUDA_DEFAULTS: Defaults = Defaults {
    max_num_seqs: 256,
    max_num_batched_tokens: 8192,
};
const DEFAULT_BLOCK_SIZE: u32 = 16;
const DEFAULT_GPU_MEMORY_UTILIZATION: f64 = 0.92;

struct Defaults {
    max_num_seqs: u32,
    max_num_batched_tokens: u32,
}

/// What limits the engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) sizes: PlanRequest,
    pub(crate) speculation: Option<Speculation>,
}

impl Limits {
    pub(crate) fn new(args: &ModelArgs, open: &OpenModel, on_gpu: bool) -> Result<Self, String> {
        let defaults = if on_gpu { CUDA_DEFAULTS } else { CPU_DEFAULTS };
        let sizes = PlanRequest {
            max_model_len: max_model_len(args, open)?,
            max_num_seqs: args.max_num_seqs.unwrap_or(defaults.max_num_seqs),
            max_num_batched_tokens: args
                .max_num_batched_tokens
                .unwrap_or(defaults.max_num_batched_tokens),
            block_size: args.block_size.unwrap_or(DEFAULT_BLOCK_SIZE),
            kv_element: kv_element(
                args.kv_cache_dtype.unwrap_or(KvCacheDtype::Auto),
                open,
                on_gpu,
            ),
            kv_cache_bytes: args.kv_cache_memory,
            num_threads: args.num_threads.unwrap_or_else(machine::cores),
            memory_utilization: args
                .gpu_memory_utilization
                .unwrap_or(DEFAULT_GPU_MEMORY_UTILIZATION),
            graphs: !args.enforce_eager,
        };
        check(&sizes)?;
        let speculation = args.speculative_config.as_ref();
        let speculation = speculation.map(SpeculativeConfig::speculation);
        Ok(Self {
            sizes,
            speculation: speculation.transpose()?,
        })
    }
}

fn check(sizes: &PlanRequest) -> Result<(), String> {
    let positive = |name: &str, value: u64, most: u64| {
        if (1..=most).contains(&value) {
            Ok(())
        } else {
            Err(format!("--{name} must lie between 1 and {most}"))
        }
    };
    let (max_num_seqs, max_num_batched_tokens) = (sizes.max_num_seqs, sizes.max_num_batched_tokens);
    positive("max-model-len", sizes.max_model_len.into(), u32::MAX.into())?;
    positive("max-num-seqs", max_num_seqs.into(), 4096)?;
    positive(
        "max-num-batched-tokens",
        max_num_batched_tokens.into(),
        65_536,
    )?;
    positive("block-size", sizes.block_size.into(), 1024)?;
    positive("num-threads", sizes.num_threads as u64, 1024)?;
    if !(0.05..=1.0).contains(&sizes.memory_utilization) {
        return Err("--gpu-memory-utilization must lie between 0.05 and 1".into());
    }
    if max_num_batched_tokens < max_num_seqs {
        return Err(format!(
            "--max-num-batched-tokens {max_num_batched_tokens} is smaller than --max-num-seqs \
             {max_num_seqs}: a step must be able to compute a token of every running sequence"
        ));
    }
    Ok(())
}

fn max_model_len(args: &ModelArgs, open: &OpenModel) -> Result<u32, String> {
    let recommended = open
        .manifest
        .as_ref()
        .and_then(|manifest| manifest.serving.max_model_len);
    let spec = open.spec();
    let longest = spec.max_position_embeddings;
    let max_model_len = args.max_model_len.or(recommended).unwrap_or(longest);
    if max_model_len > longest {
        return Err(format!(
            "--max-model-len {max_model_len} exceeds the {longest} positions that the model was \
             made for (max_position_embeddings in config.json)"
        ));
    }
    Ok(max_model_len)
}

fn kv_element(choice: KvCacheDtype, open: &OpenModel, on_gpu: bool) -> Element {
    match choice {
        KvCacheDtype::F32 => Element::F32,
        KvCacheDtype::Bf16 => Element::BF16,
        KvCacheDtype::Fp8 => Element::F8E4M3,
        KvCacheDtype::Auto if on_gpu => Element::BF16,
        KvCacheDtype::Auto => {
            // Norms are never quantised, so their format is that of the checkpoint.
            let norm = open.spec().weights.vectors.first();
            let tensor = norm.and_then(|norm| open.source.checkpoint.tensor(&norm.parts[0].name));
            match tensor.map(|tensor| tensor.element_type) {
                Some(ElementType::F32) => Element::F32,
                _ => Element::BF16,
            }
        }
    }
}
