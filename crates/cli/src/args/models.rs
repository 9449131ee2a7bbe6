//! Settings of the commands that are about models on this machine.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::integrity::SignatureArgs;

/// What `models` is to do.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// What is known, what is here, and what this machine runs.
    List(ListArgs),
    /// Everything that is known of one model.
    Show(ShowArgs),
    /// Compare a model's files with the digests that were recorded when they came, or with a signature.
    Verify(VerifyArgs),
    /// Remove a model from the store.
    Remove(RemoveArgs),
}

/// Settings of `models list`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ListArgs {
    /// Only models whose weights are here.
    #[arg(long)]
    pub(crate) here: bool,

    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Settings of `models show`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ShowArgs {
    /// Name of a manifest, or directory of a checkpoint.
    pub(crate) model: String,

    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Settings of `models verify`.
#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Name of a manifest, or directory of a checkpoint.
    pub(crate) model: String,

    #[command(flatten)]
    pub(crate) signature: SignatureArgs,
}

/// Settings of `models remove`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Name of a model of the store.
    pub(crate) name: String,

    /// Do not ask.
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// Settings of `import`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ImportArgs {
    /// What `backstop pull --to` has filled, or a checkpoint, or a repository of a Hugging Face cache
    /// (`models--ORGANISATION--NAME`), or a snapshot in one.
    pub(crate) directory: PathBuf,

    /// What to call the model here. [default: as its manifest, its repository or its directory does]
    #[arg(long)]
    pub(crate) name: Option<String>,
}

/// Settings of `pull`, which are those of the program `backstop-pull`.
#[derive(Clone, Debug, Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(crate) struct PullArgs {
    /// A name of `backstop models list`, or a repository of the Hugging Face hub, and options: `backstop
    /// pull --help` lists them.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "MODEL"
    )]
    pub(crate) arguments: Vec<OsString>,
}
