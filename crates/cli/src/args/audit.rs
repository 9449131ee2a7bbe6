//! Settings of the audit log, and of the command that reads one.

use std::path::PathBuf;
use std::time::Duration;

use backstop_audit::Hash;
use clap::{Args, Subcommand};

use crate::quantities::{parse_bytes, parse_duration};

/// What is written down of requests.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Audit log")]
pub(crate) struct AuditArgs {
    /// File to which a line is written for every request: who asked, for what, and how it ended. Its lines are chained by
    /// hashes, and `backstop audit verify` checks them. Give it a directory of its own, which must be there.
    #[arg(long, env = "BACKSTOP_AUDIT_LOG", value_name = "FILE")]
    pub(crate) audit_log: Option<PathBuf>,

    /// Answer requests only while they can be written down; otherwise 503. Without it a full disk stops nothing, and the
    /// log says how many lines it lost.
    #[arg(long, env = "BACKSTOP_AUDIT_LOG_REQUIRED")]
    pub(crate) audit_log_required: bool,

    /// Write down prompts and answers too, up to 64 KiB each.
    #[arg(long, env = "BACKSTOP_AUDIT_LOG_PROMPTS")]
    pub(crate) audit_log_prompts: bool,

    /// Begin another file when one has come to this. [default: 256MiB]
    #[arg(long, env = "BACKSTOP_AUDIT_LOG_MAX_SIZE", value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) audit_log_max_size: Option<u64>,

    /// Begin another file when one is older than this, such as 24h. [default: whatever its age]
    #[arg(long, env = "BACKSTOP_AUDIT_LOG_MAX_AGE", value_name = "TIME", value_parser = parse_duration)]
    pub(crate) audit_log_max_age: Option<Duration>,

    /// Keep so many full files, the newest, and remove others. [default: all]
    #[arg(long, env = "BACKSTOP_AUDIT_LOG_MAX_FILES", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) audit_log_max_files: Option<u32>,
}

/// What `audit` is to do.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check that every line of a log follows from the one before, through all its files.
    Verify(AuditVerifyArgs),
    /// Print number and hash of a log's last line, to be kept elsewhere.
    Head(AuditHeadArgs),
}

/// Settings of `audit verify`.
#[derive(Clone, Debug, Args)]
pub(crate) struct AuditVerifyArgs {
    /// Logs, as --audit-log names them; the files that were put aside of them are found beside them.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) logs: Vec<PathBuf>,

    /// Fail if the line with this hash is not there: nothing up to it was cut off. Repeatable.
    #[arg(long, value_name = "HASH")]
    pub(crate) expect: Vec<Hash>,

    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Settings of `audit head`.
#[derive(Clone, Debug, Args)]
pub(crate) struct AuditHeadArgs {
    /// The log, as --audit-log names it.
    #[arg(value_name = "FILE")]
    pub(crate) log: PathBuf,
}
