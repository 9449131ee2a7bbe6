//! The command line. Every setting of `serve` can also stand in the environment and in a TOML
//! file; the command line wins over the environment, and that over the file.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

use crate::quantities::{parse_bytes, parse_duration, parse_json_object};

/// The last link in an LLM gateway's fallback chain: serves open-weight models from local disk
/// over the OpenAI API, without any outbound connection.
#[derive(Debug, Parser)]
#[command(name = "backstop", version, propagate_version = true)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Load a model and answer the OpenAI API.
    Serve(Box<ServeArgs>),
    /// Answer one prompt in the terminal.
    Generate(Box<GenerateArgs>),
    /// Say what this machine can run, and why not.
    Doctor(DoctorArgs),
    /// Record the answer that every later start of `serve` must reproduce: prints the `[canary]`
    /// section of a manifest.
    Canary(Box<CanaryArgs>),
}

/// Settings of `serve`; `None` means that neither command line, environment nor file say.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) model: ModelArgs,

    /// Address to listen on. [default: 127.0.0.1]
    #[arg(long, env = "BACKSTOP_HOST")]
    pub(crate) host: Option<IpAddr>,

    /// Port to listen on; 0 takes a free one. [default: 8000]
    #[arg(long, env = "BACKSTOP_PORT")]
    pub(crate) port: Option<u16>,

    /// Name that requests may ask for; repeatable, and `*` answers to any name. [default: the
    /// model's own]
    #[arg(long, env = "BACKSTOP_SERVED_MODEL_NAME", value_delimiter = ',')]
    pub(crate) served_model_name: Vec<String>,

    /// File with one API key a line. Without it every request is answered.
    #[arg(long, env = "BACKSTOP_API_KEY_FILE")]
    pub(crate) api_key_file: Option<PathBuf>,

    /// Requests that wait for a place at most; more are answered with 429. [default: 512]
    #[arg(long, env = "BACKSTOP_MAX_NUM_QUEUED_REQS")]
    pub(crate) max_num_queued_reqs: Option<u32>,

    /// Longest wait for a place, such as 90s; then the answer is 503. [default: 120s]
    #[arg(long, env = "BACKSTOP_QUEUE_TIMEOUT", value_parser = parse_duration)]
    #[serde(deserialize_with = "crate::quantities::optional_duration")]
    pub(crate) queue_timeout: Option<std::time::Duration>,

    /// Time that running requests get to finish after SIGTERM. [default: 30s]
    #[arg(long, env = "BACKSTOP_SHUTDOWN_TIMEOUT", value_parser = parse_duration)]
    #[serde(deserialize_with = "crate::quantities::optional_duration")]
    pub(crate) shutdown_timeout: Option<std::time::Duration>,

    /// TOML file with any of these settings, named as the flags are.
    #[arg(long, env = "BACKSTOP_CONFIG")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,
}

/// Settings of everything that loads a model.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct ModelArgs {
    /// Directory of a checkpoint, or the name of a manifest in `models/`. [default: demo]
    #[arg(value_name = "MODEL", env = "BACKSTOP_MODEL")]
    pub(crate) model: Option<String>,

    /// Tokens of prompt and answer together at most. [default: the manifest's, or the model's]
    #[arg(long, env = "BACKSTOP_MAX_MODEL_LEN")]
    pub(crate) max_model_len: Option<u32>,

    /// Sequences that run at once. [default: 64]
    #[arg(long, env = "BACKSTOP_MAX_NUM_SEQS")]
    pub(crate) max_num_seqs: Option<u32>,

    /// Tokens computed in one step. [default: 512]
    #[arg(long, env = "BACKSTOP_MAX_NUM_BATCHED_TOKENS")]
    pub(crate) max_num_batched_tokens: Option<u32>,

    /// Token positions in a block of the KV cache. [default: 16]
    #[arg(long, env = "BACKSTOP_BLOCK_SIZE")]
    pub(crate) block_size: Option<u32>,

    /// Memory for the KV cache, such as 8GiB. [default: what --max-num-seqs sequences of
    /// --max-model-len need, but at most a quarter of the free memory]
    #[arg(long, env = "BACKSTOP_KV_CACHE_MEMORY", value_parser = parse_bytes)]
    #[serde(deserialize_with = "crate::quantities::optional_bytes")]
    pub(crate) kv_cache_memory: Option<u64>,

    /// Number format of the KV cache. [default: auto, the checkpoint's own]
    #[arg(long, env = "BACKSTOP_KV_CACHE_DTYPE")]
    pub(crate) kv_cache_dtype: Option<KvCacheDtype>,

    /// Where to compute. [default: auto]
    #[arg(long, env = "BACKSTOP_DEVICE")]
    pub(crate) device: Option<DeviceChoice>,

    /// Threads that compute. [default: one for each core]
    #[arg(long, env = "BACKSTOP_NUM_THREADS")]
    pub(crate) num_threads: Option<usize>,

    /// JSON object merged into the checkpoint's config.json.
    #[arg(long, env = "BACKSTOP_HF_OVERRIDES", value_parser = parse_json_object)]
    pub(crate) hf_overrides: Option<serde_json::Value>,

    /// Do not reuse the keys and values of common prefixes.
    #[arg(long, env = "BACKSTOP_NO_ENABLE_PREFIX_CACHING")]
    pub(crate) no_enable_prefix_caching: bool,
}

/// Settings of `generate`.
#[derive(Clone, Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,

    /// The user's message.
    #[arg(long, short)]
    pub(crate) prompt: String,

    /// Give the prompt to the model as it is, without the chat template.
    #[arg(long)]
    pub(crate) raw: bool,

    /// Tokens to generate at most.
    #[arg(long, default_value_t = 512)]
    pub(crate) max_tokens: u32,

    /// Randomness; 0 always takes the most likely token. [default: the model's, or 1]
    #[arg(long)]
    pub(crate) temperature: Option<f32>,

    /// Seed of the random choice. [default: a new one each time]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

/// Settings of `doctor`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Model to judge as well: a directory or the name of a manifest.
    pub(crate) model: Option<String>,
}

/// Settings of `canary`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CanaryArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,

    /// What the model continues.
    #[arg(long, default_value = "def fibonacci(n):\n    ")]
    pub(crate) prompt: String,

    /// Tokens to record.
    #[arg(long, default_value_t = 16)]
    pub(crate) tokens: u32,

    /// How far a log-probability may be off later, on another processor.
    #[arg(long, default_value_t = 0.05)]
    pub(crate) tolerance: f32,
}

/// Number format of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KvCacheDtype {
    /// f32 for F32 checkpoints, bf16 for all others.
    Auto,
    /// 32-bit floating point.
    #[value(alias = "float32")]
    F32,
    /// bfloat16.
    #[value(alias = "bfloat16")]
    Bf16,
    /// 8-bit floating point (E4M3).
    #[value(alias = "fp8_e4m3")]
    Fp8,
}

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DeviceChoice {
    /// The best that this build and machine have.
    Auto,
    /// The machine's processors.
    Cpu,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
