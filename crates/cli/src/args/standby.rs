//! Settings of a server that waits for its turn, and of the commands that speak to it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::quantities::parse_duration;

/// How it stays ready.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Standby")]
pub(crate) struct StandbyArgs {
    /// Unix socket at which `backstop status`, `sleep`, `wake`, `drain` and `reload` reach this server. Only its own user
    /// and root may use it.
    #[arg(long, env = "BACKSTOP_CONTROL_SOCKET", value_name = "PATH")]
    pub(crate) control_socket: Option<PathBuf>,

    /// How often the model proves itself again while it serves: a short answer must have the tokens and log-probabilities
    /// that it had before. If it has not, requests are refused until it has. 0 leaves it at the start.
    #[arg(long, env = "BACKSTOP_CANARY_INTERVAL", value_parser = parse_duration, default_value = "1h")]
    pub(crate) canary_interval: Duration,

    /// Directory in which `backstop-canary.toml` keeps the answer that a model without a recorded canary gave at its first
    /// good start, so that later starts are compared with it. [default: beside the weights, if that can be written]
    #[arg(long, env = "BACKSTOP_CANARY_DIRECTORY", value_name = "DIR")]
    pub(crate) canary_directory: Option<PathBuf>,

    /// Let a request wake a server that sleeps, and wait for it as long as it may wait in the queue. Without it such
    /// requests are answered 503, with the time that waking takes.
    #[arg(long, env = "BACKSTOP_WAKE_ON_REQUEST")]
    pub(crate) wake_on_request: bool,
}

/// Which server a command is for.
#[derive(Clone, Debug, Args)]
pub(crate) struct ControlArgs {
    /// The server's --control-socket.
    #[arg(long, env = "BACKSTOP_CONTROL_SOCKET", value_name = "PATH")]
    pub(crate) control_socket: PathBuf,
}

/// Settings of `status`.
#[derive(Clone, Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) server: ControlArgs,

    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Settings of `sleep`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SleepArgs {
    #[command(flatten)]
    pub(crate) server: ControlArgs,

    /// 1 gives the device's memory and the KV cache back and keeps the weights in the host's memory; 2 gives up the
    /// weights as well.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) level: u8,

    /// Time that running requests get to finish. If they need longer, the server stays awake.
    #[arg(long, value_parser = parse_duration, default_value = "30s")]
    pub(crate) timeout: Duration,
}

/// Settings of `reload`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReloadArgs {
    #[command(flatten)]
    pub(crate) server: ControlArgs,

    /// Read the model's weights again as well, and prove them. Requests are refused meanwhile.
    #[arg(long)]
    pub(crate) weights: bool,

    /// With --weights: time that running requests get to finish.
    #[arg(long, value_parser = parse_duration, default_value = "30s")]
    pub(crate) timeout: Duration,
}
