//! Settings of the log.

use clap::{Args, ValueEnum};

use crate::logging;

/// How the log is written, and how much of it.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Log")]
pub(crate) struct LogArgs {
    /// How the log, which goes to standard error, is written.
    #[arg(long, env = "BACKSTOP_LOG_FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,

    /// How much is logged: error, warn, info, debug or trace; or a list with levels of parts of the program, such as
    /// warn,backstop_server=debug. [default: what RUST_LOG says, or info]
    #[arg(long, env = "BACKSTOP_LOG_LEVEL", value_name = "LEVEL", value_parser = logging::parse_levels)]
    pub(crate) log_level: Option<String>,

    /// Do not log a line for each request that may use a model.
    #[arg(
        long,
        env = "BACKSTOP_DISABLE_ACCESS_LOG",
        visible_alias = "disable-uvicorn-access-log"
    )]
    pub(crate) disable_access_log: bool,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line, for programs that collect logs.
    Json,
}
