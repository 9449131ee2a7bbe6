//! The command line. Every setting of `serve` can also stand in the environment and in a TOML
//! file; the command line wins over the environment, and that over the file.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use backstop_protocol::UnsupportedContent;
use backstop_server::Lane;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

use crate::quantities::{
    JsonList, parse_bytes, parse_duration, parse_json_list, parse_json_object,
};
use crate::speculative::SpeculativeConfig;

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
    /// Make a new API key: prints it, once, and the line for the key file, which does not hold it.
    Key(KeyArgs),
    /// Try grammars for a server, which starts this by itself.
    #[command(hide = true)]
    GrammarWorker,
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

    /// Address and port, such as 0.0.0.0:8001, where /health, /ready and /ping are answered as well,
    /// by a thread of their own and without keys, so that no load on the main port delays them.
    #[arg(long, env = "BACKSTOP_PROBE_ADDRESS", value_name = "ADDRESS:PORT")]
    pub(crate) probe_address: Option<SocketAddr>,

    /// Name that requests may ask for; repeatable, and `*` answers to any name. [default: the
    /// model's own]
    #[arg(long, env = "BACKSTOP_SERVED_MODEL_NAME", value_delimiter = ',')]
    pub(crate) served_model_name: Vec<String>,

    /// File with one API key a line, as it is or as a digest, followed by its settings (`backstop
    /// key` writes such lines). Read again when it changes and on SIGHUP. Without it every request
    /// is answered.
    #[arg(long, env = "BACKSTOP_API_KEY_FILE")]
    pub(crate) api_key_file: Option<PathBuf>,

    /// Origins of pages in browsers that may call, as a JSON list such as '["https://chat.example"]';
    /// '["*"]' stands for all. Without it browsers are told nothing, and keep pages of other origins
    /// from reading answers.
    #[arg(long, env = "BACKSTOP_ALLOWED_ORIGINS", value_name = "JSON", value_parser = parse_json_list)]
    pub(crate) allowed_origins: Option<JsonList>,

    /// Methods that those pages may use, as a JSON list. [default: '["*"]']
    #[arg(long, env = "BACKSTOP_ALLOWED_METHODS", value_name = "JSON", value_parser = parse_json_list)]
    pub(crate) allowed_methods: Option<JsonList>,

    /// Request headers that those pages may set, as a JSON list. [default: '["*"]']
    #[arg(long, env = "BACKSTOP_ALLOWED_HEADERS", value_name = "JSON", value_parser = parse_json_list)]
    pub(crate) allowed_headers: Option<JsonList>,

    /// Those pages may send cookies and the like, for a proxy in front of the server. The origins
    /// must be named then.
    #[arg(long, env = "BACKSTOP_ALLOW_CREDENTIALS")]
    pub(crate) allow_credentials: bool,

    /// Without keys: let requests choose their `priority`. With keys, each key says whether it may.
    #[arg(long, env = "BACKSTOP_ALLOW_PRIORITY")]
    pub(crate) allow_priority: bool,

    /// Let control tokens that are written out in messages, tools or documents be control tokens.
    /// Without it they are text.
    #[arg(long, env = "BACKSTOP_ALLOW_SPECIAL_TOKENS_IN_CONTENT")]
    pub(crate) allow_special_tokens_in_content: bool,

    /// What becomes of images, audio and files in the latest user message: `refuse` answers with 400;
    /// `note` answers without them, with a note in their place, as it always stands in earlier turns
    /// and in the results of tools. [default: refuse]
    #[arg(long, env = "BACKSTOP_UNSUPPORTED_CONTENT")]
    pub(crate) unsupported_content: Option<ContentChoice>,

    /// Let keys find each other's cached prefixes, which shows them what others have asked before.
    /// Otherwise only requests of the same key do.
    #[arg(long, env = "BACKSTOP_SHARE_PREFIX_CACHE")]
    pub(crate) share_prefix_cache: bool,

    /// Requests that wait for a place at most; more are answered with 429. [default: 128]
    #[arg(long, env = "BACKSTOP_MAX_NUM_QUEUED_REQS")]
    pub(crate) max_num_queued_reqs: Option<u32>,

    /// Prompt tokens of waiting requests at most; more are answered with 429. [default: no limit]
    #[arg(long, env = "BACKSTOP_MAX_NUM_QUEUED_TOKENS")]
    pub(crate) max_num_queued_tokens: Option<u64>,

    /// Longest wait for a place, such as 90s; then the answer is 503. [default: 30s]
    #[arg(long, env = "BACKSTOP_QUEUE_TIMEOUT", value_parser = parse_duration)]
    #[serde(deserialize_with = "crate::quantities::optional_duration")]
    pub(crate) queue_timeout: Option<std::time::Duration>,

    /// `normal`: a short queue, so that gateways go elsewhere. `outage`: nobody else is left: a long
    /// queue, shared equally between keys, and no batch requests. SIGUSR1 switches a running server
    /// to `outage`, SIGUSR2 back. [default: normal]
    #[arg(long, env = "BACKSTOP_ADMISSION_PROFILE")]
    pub(crate) admission_profile: Option<ProfileChoice>,

    /// --max-num-queued-reqs in an outage. [default: 1024]
    #[arg(long, env = "BACKSTOP_OUTAGE_MAX_NUM_QUEUED_REQS")]
    pub(crate) outage_max_num_queued_reqs: Option<u32>,

    /// --queue-timeout in an outage. [default: 300s]
    #[arg(long, env = "BACKSTOP_OUTAGE_QUEUE_TIMEOUT", value_parser = parse_duration)]
    #[serde(deserialize_with = "crate::quantities::optional_duration")]
    pub(crate) outage_queue_timeout: Option<std::time::Duration>,

    /// Longest answer, in an outage, to requests that do not say how long it may be. [default: what
    /// the context has room for]
    #[arg(long, env = "BACKSTOP_OUTAGE_DEFAULT_MAX_TOKENS")]
    pub(crate) outage_default_max_tokens: Option<u32>,

    /// Time that running requests get to finish after SIGTERM. [default: 30s]
    #[arg(long, env = "BACKSTOP_SHUTDOWN_TIMEOUT", value_parser = parse_duration)]
    #[serde(deserialize_with = "crate::quantities::optional_duration")]
    pub(crate) shutdown_timeout: Option<std::time::Duration>,

    /// After so long, such as 2s, an answer that is not streamed has its head sent before it, and a
    /// space as often until it is there, for clients and proxies of little patience. What fails then
    /// is a 200 with an error as its body. [default: an answer is sent when it is there]
    #[arg(long, env = "BACKSTOP_RESPONSE_KEEP_ALIVE", value_parser = parse_duration)]
    #[serde(deserialize_with = "crate::quantities::optional_duration")]
    pub(crate) response_keep_alive: Option<std::time::Duration>,

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

    /// Sequences that run at once. [default: 256 on a GPU, 64 on the CPU]
    #[arg(long, env = "BACKSTOP_MAX_NUM_SEQS")]
    pub(crate) max_num_seqs: Option<u32>,

    /// Tokens computed in one step. [default: 8192 on a GPU, 512 on the CPU]
    #[arg(long, env = "BACKSTOP_MAX_NUM_BATCHED_TOKENS")]
    pub(crate) max_num_batched_tokens: Option<u32>,

    /// Token positions in a block of the KV cache; on a GPU a multiple of 16. [default: 16]
    #[arg(long, env = "BACKSTOP_BLOCK_SIZE")]
    pub(crate) block_size: Option<u32>,

    /// Memory for the KV cache, such as 8GiB. [default: on a GPU what --gpu-memory-utilization
    /// leaves; on the CPU what --max-num-seqs sequences of --max-model-len need, but at most a
    /// quarter of the free memory]
    #[arg(long, env = "BACKSTOP_KV_CACHE_MEMORY", value_parser = parse_bytes)]
    #[serde(deserialize_with = "crate::quantities::optional_bytes")]
    pub(crate) kv_cache_memory: Option<u64>,

    /// Number format of the KV cache. [default: auto]
    #[arg(long, env = "BACKSTOP_KV_CACHE_DTYPE")]
    pub(crate) kv_cache_dtype: Option<KvCacheDtype>,

    /// Where to compute: `cuda` or, of several GPUs, `cuda:1`; `cpu`; `auto` takes the first GPU
    /// if it can be used and has kernels for the model, else the CPU. [default: auto]
    #[arg(long, env = "BACKSTOP_DEVICE")]
    pub(crate) device: Option<DeviceChoice>,

    /// Share of the GPU's memory that may be in use, from 0.05 to 1. [default: 0.92]
    #[arg(long, env = "BACKSTOP_GPU_MEMORY_UTILIZATION")]
    pub(crate) gpu_memory_utilization: Option<f64>,

    /// On a GPU, queue every operation of every step, instead of replaying decode steps that were
    /// recorded as graphs: slower, for finding faults.
    #[arg(long, env = "BACKSTOP_ENFORCE_EAGER")]
    pub(crate) enforce_eager: bool,

    /// Where the weights come from. [default: auto]
    #[arg(long, env = "BACKSTOP_LOAD_FORMAT")]
    pub(crate) load_format: Option<LoadFormat>,

    /// Threads that compute on the CPU. [default: one for each core]
    #[arg(long, env = "BACKSTOP_NUM_THREADS")]
    pub(crate) num_threads: Option<usize>,

    /// How the model marks reasoning and tool calls: cohere_cmd4, hermes, chatml, llama3_json,
    /// mistral, qwen3_coder, harmony, deepseek_v3, deepseek_v31, kimi_k2, glm45, glm47, or plain for
    /// a model that marks neither. [default: the manifest's, or what the chat template shows, or
    /// what is usual for the architecture]
    #[arg(long, env = "BACKSTOP_CHAT_FORMAT")]
    pub(crate) chat_format: Option<String>,

    /// JSON object merged into the checkpoint's config.json.
    #[arg(long, env = "BACKSTOP_HF_OVERRIDES", value_parser = parse_json_object)]
    pub(crate) hf_overrides: Option<serde_json::Value>,

    /// Do not reuse the keys and values of common prefixes.
    #[arg(long, env = "BACKSTOP_NO_ENABLE_PREFIX_CACHING")]
    pub(crate) no_enable_prefix_caching: bool,

    /// Guess tokens ahead and check several at once: JSON with `method`, `num_speculative_tokens`
    /// and, for the method "ngram" (what the text already says), `prompt_lookup_max` and
    /// `prompt_lookup_min`, the most and the fewest tokens that must agree (by default 4 and 2);
    /// for "eagle" `model`, the directory of an EAGLE head made for the model. Answers do not
    /// change; text that is guessed, such as edited code, comes faster. CPU only.
    #[arg(long, env = "BACKSTOP_SPECULATIVE_CONFIG", value_parser = SpeculativeConfig::parse)]
    pub(crate) speculative_config: Option<SpeculativeConfig>,
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

    /// Key file to check as well.
    #[arg(long, env = "BACKSTOP_API_KEY_FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
}

/// Settings of `key`.
#[derive(Clone, Debug, Args)]
pub(crate) struct KeyArgs {
    /// What logs and metrics call the key's holder. Keys of one name share their limits.
    #[arg(long)]
    pub(crate) name: Option<String>,

    /// Requests in a minute at most. [default: no limit]
    #[arg(long)]
    pub(crate) requests_per_minute: Option<u32>,

    /// Prompt and generated tokens in a minute at most. [default: no limit]
    #[arg(long)]
    pub(crate) tokens_per_minute: Option<u32>,

    /// Requests at once at most. [default: no limit]
    #[arg(long)]
    pub(crate) max_concurrent_requests: Option<u32>,

    /// interactive, standard or batch: shares of 8, 4 and 1 when all are busy.
    #[arg(long, default_value = "standard")]
    pub(crate) lane: Lane,

    /// Requests may choose their lane: interactive by a negative `priority`, batch by a positive.
    #[arg(long)]
    pub(crate) may_choose_priority: bool,

    /// `/metrics` shows this key what all keys use; every other key sees what it uses itself.
    #[arg(long)]
    pub(crate) may_see_all_keys: bool,

    /// Add the line to this file, and print the key alone.
    #[arg(long, value_name = "FILE")]
    pub(crate) append: Option<PathBuf>,
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

/// Which limits hold for the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProfileChoice {
    /// A short queue.
    Normal,
    /// A long queue, shared equally.
    Outage,
}

/// What becomes of content that the model cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ContentChoice {
    /// The request is refused.
    Refuse,
    /// A note stands in its place.
    Note,
}

impl ContentChoice {
    /// The same for the server.
    pub(crate) fn policy(self) -> UnsupportedContent {
        match self {
            Self::Refuse => UnsupportedContent::Refuse,
            Self::Note => UnsupportedContent::Note,
        }
    }
}

/// Number format of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KvCacheDtype {
    /// float32 for F32 checkpoints, bfloat16 for all others.
    Auto,
    /// 32-bit floating point; on the CPU only.
    #[value(name = "float32", alias = "f32")]
    #[serde(rename = "float32", alias = "f32")]
    F32,
    /// 16-bit floating point with 8 bits of exponent.
    #[value(name = "bfloat16", alias = "bf16")]
    #[serde(rename = "bfloat16", alias = "bf16")]
    Bf16,
    /// 8-bit floating point (E4M3).
    #[value(alias = "fp8_e4m3")]
    #[serde(alias = "fp8_e4m3")]
    Fp8,
}

/// Where the weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LoadFormat {
    /// The checkpoint.
    Auto,
    /// The checkpoint, which is in safetensors.
    Safetensors,
    /// Made up, in the shape of the model: answers are noise, but take as long as real ones. Needs
    /// no weights, and for the models in `models/` no file of theirs at all.
    #[value(alias = "dummy")]
    #[serde(alias = "dummy")]
    Synthetic,
}

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum DeviceChoice {
    /// The first GPU if it can be used, else the CPU.
    Auto,
    /// The machine's processors.
    Cpu,
    /// The GPU of this number.
    Cuda(u32),
}

impl ModelArgs {
    /// Where to compute.
    pub(crate) fn device(&self) -> DeviceChoice {
        self.device.unwrap_or(DeviceChoice::Auto)
    }
}

impl std::str::FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || "expected auto, cpu, cuda, or cuda:N with the number of a GPU".to_owned();
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => match text.strip_prefix("cuda:") {
                Some(number) => number.parse().map(Self::Cuda).map_err(|_| refused()),
                None => Err(refused()),
            },
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn devices_are_named_as_elsewhere() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(text.parse(), Ok(choice));
        }
        for text in ["gpu", "cuda:", "cuda:-1", "CUDA", ""] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }
}
