//! Settings of everything that loads a model.

use backstop_loader::Mixture;
use backstop_text::format::FORMATS;
use clap::{Args, ValueEnum};

use super::integrity::IntegrityArgs;
use crate::quantities::{parse_bytes, parse_json_object};
use crate::speculative::SpeculativeConfig;

/// Settings of everything that loads a model.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// Directory of a checkpoint, or the name of a manifest in `models/`. [default: demo]
    #[arg(value_name = "MODEL", env = "BACKSTOP_MODEL")]
    pub(crate) model: Option<String>,

    #[command(flatten)]
    pub(crate) integrity: IntegrityArgs,

    /// Tokens of prompt and answer together at most. [default: the manifest's, or the model's]
    #[arg(long, env = "BACKSTOP_MAX_MODEL_LEN")]
    pub(crate) max_model_len: Option<u32>,

    /// Sequences that run at once. [default: 256 on a GPU, 64 on the CPU]
    #[arg(long, env = "BACKSTOP_MAX_NUM_SEQS", help_heading = "Computing")]
    pub(crate) max_num_seqs: Option<u32>,

    /// Tokens computed in one step. [default: 8192 on a GPU, 512 on the CPU]
    #[arg(
        long,
        env = "BACKSTOP_MAX_NUM_BATCHED_TOKENS",
        help_heading = "Computing"
    )]
    pub(crate) max_num_batched_tokens: Option<u32>,

    /// Token positions in a block of the KV cache; on a GPU a multiple of 16. [default: 16]
    #[arg(long, env = "BACKSTOP_BLOCK_SIZE", help_heading = "Computing")]
    pub(crate) block_size: Option<u32>,

    /// Memory for the KV cache, such as 8GiB. [default: on a GPU what --gpu-memory-utilization
    /// leaves; on the CPU what --max-num-seqs sequences of --max-model-len need, but at most a
    /// quarter of the free memory]
    #[arg(long, env = "BACKSTOP_KV_CACHE_MEMORY", value_parser = parse_bytes, help_heading = "Computing")]
    pub(crate) kv_cache_memory: Option<u64>,

    /// Number format of the KV cache. [default: auto]
    #[arg(long, env = "BACKSTOP_KV_CACHE_DTYPE", help_heading = "Computing")]
    pub(crate) kv_cache_dtype: Option<KvCacheDtype>,

    /// Where to compute: `cuda` or, of several GPUs, `cuda:1`; `cpu`; `metal`; `auto` takes the first GPU
    /// if it can be used and has kernels for the model, else the CPU. `candle` and `candle-cuda` compute with
    /// candle where there are native kernels as well. [default: auto]
    #[arg(long, env = "BACKSTOP_DEVICE", help_heading = "Computing")]
    pub(crate) device: Option<DeviceChoice>,

    /// Share of the GPU's memory that may be in use, from 0.05 to 1. [default: 0.92]
    #[arg(
        long,
        env = "BACKSTOP_GPU_MEMORY_UTILIZATION",
        help_heading = "Computing"
    )]
    pub(crate) gpu_memory_utilization: Option<f64>,

    /// On a GPU, queue every operation of every step, instead of replaying decode steps that were
    /// recorded as graphs: slower, for finding faults.
    #[arg(long, env = "BACKSTOP_ENFORCE_EAGER", help_heading = "Computing")]
    pub(crate) enforce_eager: bool,

    /// Where the weights come from. [default: auto]
    #[arg(long, env = "BACKSTOP_LOAD_FORMAT")]
    pub(crate) load_format: Option<LoadFormat>,

    /// With `--load-format synthetic`: the format of the weights that are made up, as files are named after it, such as
    /// `q4_k_m`. What is loaded is computed with as it is stored. [default: the manifest's, or what config.json says]
    #[arg(long, env = "BACKSTOP_QUANTIZATION", value_parser = parse_mixture)]
    pub(crate) quantization: Option<Mixture>,

    /// Threads that compute on the CPU. [default: one for each core]
    #[arg(long, env = "BACKSTOP_NUM_THREADS", help_heading = "Computing")]
    pub(crate) num_threads: Option<usize>,

    #[arg(long, env = "BACKSTOP_CHAT_FORMAT", help = chat_format_help())]
    pub(crate) chat_format: Option<String>,

    /// JSON object merged into the checkpoint's config.json.
    #[arg(long, env = "BACKSTOP_HF_OVERRIDES", value_parser = parse_json_object)]
    pub(crate) hf_overrides: Option<serde_json::Value>,

    /// Refuse a model whose config.json or generation_config.json has fields that nothing reads, instead of naming
    /// them in a warning.
    #[arg(long, env = "BACKSTOP_STRICT_CONFIG")]
    pub(crate) strict_config: bool,

    /// Do not reuse the keys and values of common prefixes.
    #[arg(
        long,
        env = "BACKSTOP_NO_ENABLE_PREFIX_CACHING",
        help_heading = "Computing"
    )]
    pub(crate) no_enable_prefix_caching: bool,

    /// Guess tokens ahead and check several at once: JSON with `method`, `num_speculative_tokens`
    /// and, for the method "ngram" (what the text already says), `prompt_lookup_max` and
    /// `prompt_lookup_min`, the most and the fewest tokens that must agree (by default 4 and 2);
    /// for "eagle", on the CPU only, `model`, the directory of an EAGLE head made for the model.
    /// Answers do not change; text that is guessed, such as edited code, comes faster.
    #[arg(long, env = "BACKSTOP_SPECULATIVE_CONFIG", value_parser = SpeculativeConfig::parse, help_heading = "Computing")]
    pub(crate) speculative_config: Option<SpeculativeConfig>,
}

fn parse_mixture(name: &str) -> Result<Mixture, String> {
    Mixture::named(name).ok_or_else(|| format!("known are: {}", Mixture::names().join(", ")))
}

fn chat_format_help() -> String {
    let ids: Vec<&str> = FORMATS.iter().map(|format| format.id).collect();
    format!(
        "How the model marks reasoning and tool calls: {}. [default: the manifest's, or what the chat \
         template shows, or what is usual for the architecture]",
        ids.join(", ")
    )
}

/// Number format of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvCacheDtype {
    /// float32 for F32 checkpoints on the CPU, bfloat16 for all others.
    Auto,
    /// 32-bit floating point; on the CPU only.
    #[value(name = "float32", alias = "f32")]
    F32,
    /// 16-bit floating point with 8 bits of exponent.
    #[value(name = "bfloat16", alias = "bf16")]
    Bf16,
    /// 8-bit floating point (E4M3).
    #[value(alias = "fp8_e4m3")]
    Fp8,
}

/// Where the weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoadFormat {
    /// The checkpoint.
    Auto,
    /// The checkpoint, which is in safetensors.
    Safetensors,
    /// Made up, in the shape of the model: answers are noise, but take as long as real ones. Needs
    /// no weights, and for the models in `models/` no file of theirs at all.
    #[value(alias = "dummy")]
    Synthetic,
}

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceChoice {
    /// The first GPU if it can be used, else the CPU.
    Auto,
    /// The machine's processors.
    Cpu,
    /// The GPU of this number: with the native kernels, or else with candle's.
    Cuda(u32),
    /// One of candle's devices.
    Candle(CandleChoice),
}

/// Which of candle's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CandleChoice {
    /// The machine's processors.
    Cpu,
    /// Apple's GPU.
    Metal,
    /// NVIDIA's GPU of this number.
    Cuda(u32),
}

impl ModelArgs {
    /// Where to compute.
    pub(crate) fn device(&self) -> DeviceChoice {
        self.device.unwrap_or(DeviceChoice::Auto)
    }
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
            Self::Candle(CandleChoice::Cpu) => formatter.write_str("candle"),
            Self::Candle(CandleChoice::Metal) => formatter.write_str("metal"),
            Self::Candle(CandleChoice::Cuda(number)) => write!(formatter, "candle-cuda:{number}"),
        }
    }
}

impl std::str::FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || {
            "expected auto, cpu, cuda, metal, candle, candle-cuda, or cuda:N and candle-cuda:N with \
             the number of a GPU"
                .to_owned()
        };
        let number = |text: &str| text.parse().map_err(|_| refused());
        if let Some(text) = text.strip_prefix("candle-cuda:") {
            return Ok(Self::Candle(CandleChoice::Cuda(number(text)?)));
        }
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "candle" => Ok(Self::Candle(CandleChoice::Cpu)),
            "metal" => Ok(Self::Candle(CandleChoice::Metal)),
            "candle-cuda" => Ok(Self::Candle(CandleChoice::Cuda(0))),
            _ => match text.strip_prefix("cuda:") {
                Some(text) => number(text).map(Self::Cuda),
                None => Err(refused()),
            },
        }
    }
}
