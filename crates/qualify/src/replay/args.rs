//! The command line of replays.

use std::path::PathBuf;

use clap::Args;

use crate::compare::Names;
use crate::endpoints::PairArgs;

/// Replays a gateway's own log through two servers, and says how far the second does what the first does.
///
/// The log has a request a line: bodies of /v1/chat/completions, lines of OpenAI's batches, or what LiteLLM logs. Only the
/// two servers are asked. No content is kept, unless --keep-answers says so.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// The log.
    #[arg(value_name = "LOG.jsonl")]
    pub log: PathBuf,
    /// Whom to ask.
    #[command(flatten)]
    pub servers: PairArgs,
    /// Directory for what is written: `replay.json`, `replay.html`, `pairs.jsonl`, `measures/replay.json`.
    #[arg(long, value_name = "DIR")]
    pub into: PathBuf,
    /// What the two are called in what is written.
    #[arg(long, value_name = "A,B", default_value = "A,B", value_parser = crate::compare::names)]
    pub names: Names,
    /// Chats to replay, from the log's beginning.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    /// Draw answers as the log has it. Without it temperature is 0, so that answers differ by model and not by chance.
    #[arg(long)]
    pub as_logged: bool,
    /// The longest answer, where the log has none or a longer one.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    /// Ask the first twice, to learn how far it agrees with itself.
    #[arg(long)]
    pub repeat_a: bool,
    /// Keep requests and answers in `pairs.jsonl`.
    #[arg(long)]
    pub keep_answers: bool,
    /// Seed of resampling, and of every request that has none.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub seed: u32,
    /// Write the outcome as JSON, too; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the page there, too.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}
