//! Settings of the commands beside `serve`.

use std::ffi::OsString;
use std::path::PathBuf;

use backstop_server::Lane;
use clap::Args;

use super::model::{DeviceChoice, ModelArgs};

/// Settings of `generate`.
#[derive(Clone, Debug, Args)]
pub(crate) struct GenerateArgs {
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

    #[command(flatten)]
    pub(crate) model: ModelArgs,
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

/// Settings of `compare`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CompareArgs {
    /// The device that is compared with that of `--device`: `cpu`, `candle`, `metal`, `cuda:1` and so on.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) with: DeviceChoice,

    /// Text file with a prompt in each line. [default: some of several kinds]
    #[arg(long, value_name = "FILE")]
    pub(crate) prompts: Option<PathBuf>,

    /// Tokens of a prompt; the rest of its line is left out.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(2..=4096))]
    pub(crate) prompt_tokens: u32,

    /// Tokens of the first device's answer to each prompt, which are compared as well.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(0..=4096))]
    pub(crate) max_tokens: u32,

    /// Fail if the mean difference of log-probabilities is larger.
    #[arg(long, default_value_t = 0.05)]
    pub(crate) tolerance: f64,

    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) model: ModelArgs,
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
    /// What the model continues.
    #[arg(long, default_value = "def fibonacci(n):\n    ")]
    pub(crate) prompt: String,

    /// Tokens to record.
    #[arg(long, default_value_t = 16)]
    pub(crate) tokens: u32,

    /// How far a log-probability may be off later, on another processor.
    #[arg(long, default_value_t = 0.05)]
    pub(crate) tolerance: f32,

    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// Settings of `documents`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DocumentsArgs {
    /// A checkout of the source, with the pages in its `docs`.
    #[arg(default_value = ".")]
    pub(crate) root: PathBuf,
}

/// Settings of `drill`, which are those of the program `backstop-drill`.
#[derive(Clone, Debug, Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(crate) struct DrillArgs {
    /// What to drill: `backstop drill --help` lists it.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTIONS"
    )]
    pub(crate) arguments: Vec<OsString>,
}
