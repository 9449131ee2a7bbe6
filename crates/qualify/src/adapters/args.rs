//! What the command line says of adapters.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

/// Run another harness against the server, or read what one left behind.
#[derive(Clone, Debug, Args)]
pub struct AdaptersArgs {
    #[command(subcommand)]
    pub(super) action: Action,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Action {
    /// Run a package that is installed here, and read its results.
    Run(RunArgs),
    /// Read results that a package has written before.
    Read(ReadArgs),
}

/// A package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// EleutherAI's lm-evaluation-harness.
    LmEval,
    /// EvalPlus: HumanEval+ and MBPP+.
    Evalplus,
    /// Berkeley's function-calling leaderboard.
    Bfcl,
    /// mini-SWE-agent.
    MiniSweAgent,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::LmEval => "lm-eval",
            Self::Evalplus => "evalplus",
            Self::Bfcl => "bfcl",
            Self::MiniSweAgent => "mini-swe-agent",
        }
    }

    /// What Python's installers call it.
    pub(super) fn distribution(self) -> &'static str {
        match self {
            Self::LmEval => "lm_eval",
            Self::Evalplus => "evalplus",
            Self::Bfcl => "bfcl-eval",
            Self::MiniSweAgent => "mini-swe-agent",
        }
    }
}

/// How a package is run.
#[derive(Clone, Debug, Args)]
pub(super) struct RunArgs {
    /// The package.
    #[arg(value_enum)]
    pub(super) kind: Kind,
    /// Address of a server of OpenAI's API.
    #[arg(long, value_name = "URL")]
    pub(super) url: String,
    /// Model to ask for.
    #[arg(long, value_name = "NAME")]
    pub(super) model: String,
    /// Directory of results.
    #[arg(long, value_name = "DIR")]
    pub(super) into: PathBuf,
    /// File with the key that the server wants.
    #[arg(long, value_name = "FILE")]
    pub(super) api_key_file: Option<PathBuf>,
    /// Virtual environment that has the package; otherwise its program is looked for in PATH.
    #[arg(long, value_name = "DIR")]
    pub(super) venv: Option<PathBuf>,
    /// How the model is asked, where the package has a choice: lm-eval's completions or chats, BFCL's tools or prompts.
    #[arg(long, value_enum, default_value_t = Mode::Plain)]
    pub(super) mode: Mode,
    /// How long it may take.
    #[arg(long, value_name = "TIME", default_value = "6h", value_parser = crate::args::time)]
    pub(super) timeout: Duration,
    /// Requests under way at once, where the package has a choice.
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) concurrency: u16,
    /// Let the package run what the model wrote as it does by itself, not contained by this program.
    #[arg(long)]
    pub(super) uncontained: bool,
    /// Further arguments of the package's own, behind `--`.
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub(super) arguments: Vec<String>,
}

/// How the model is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// lm-eval: `local-completions`. BFCL: `tools` in chats.
    Plain,
    /// lm-eval: `local-chat-completions`, with the server's chat template.
    Chat,
    /// BFCL: functions are described in the prompt.
    Prompt,
}

/// What is read.
#[derive(Clone, Debug, Args)]
pub(super) struct ReadArgs {
    /// The package that wrote it.
    #[arg(value_enum)]
    pub(super) kind: Kind,
    /// A file of results, or a directory that has some.
    pub(super) path: PathBuf,
    /// Directory of results.
    #[arg(long, value_name = "DIR")]
    pub(super) into: PathBuf,
    /// The package's version, where its files do not say it (EvalPlus, BFCL).
    #[arg(long, value_name = "VERSION")]
    pub(super) package_version: Option<String>,
}
