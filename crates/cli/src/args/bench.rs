//! Settings of `bench`, and of what hands over to `backstop-qualify`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ModelArgs;

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Measure a running server of OpenAI's API under load: a program of its own, as `drill` is.
    Serve(QualifyArgs),
    /// Measure a model's throughput in this process, without a server.
    Offline(Box<OfflineArgs>),
}

/// Settings of `bench offline`.
#[derive(Clone, Debug, Args)]
pub(crate) struct OfflineArgs {
    /// Prompts, all of which wait from the beginning on.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) num_prompts: u32,

    /// Tokens of each prompt. No two prompts begin alike.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) input_len: u32,

    /// Tokens of each answer, which goes on behind tokens that would end it.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) output_len: u32,

    /// Seed of prompts and of sampling.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,

    /// Sampling temperature.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) temperature: f32,

    /// Write the numbers as JSON; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) output_json: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// Settings of the program `backstop-qualify`, which are told by its own `--help`.
#[derive(Clone, Debug, Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(crate) struct QualifyArgs {
    /// What to do: `--help` lists it.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTIONS"
    )]
    pub(crate) arguments: Vec<OsString>,
}
