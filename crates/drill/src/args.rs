//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser};

const EXAMPLES: &str = "\
Examples:
  With a gateway of LiteLLM's, which is started for it from a copy of your configuration:
    backstop-drill --gateway-config litellm.yaml --html drill.html
  With any gateway that runs and has http://127.0.0.1:4010/v1 as its primary:
    backstop-drill --gateway-url http://127.0.0.1:4000 --model primary --fallback-url http://127.0.0.1:8000
  Only some failures, from cron, for the textfile collector of Prometheus' node_exporter:
    backstop-drill --gateway-config litellm.yaml --only connection-refused,hang-before-headers \\
        --metrics-file /var/lib/node_exporter/backstop_drill.prom
  A primary that fails, to try things by hand:
    backstop-drill --stand-in 127.0.0.1:4010 --fault status-429-retry-after
  A gateway in production, without making anything fail:
    backstop-drill --readonly --gateway-url https://gateway.example --model chat --duration 10m

Exit codes:
  0  every failure that was rehearsed was survived
  1  the drill could not be held
  2  the command line is wrong
  3  the drill failed";

/// Rehearses the loss of the primary provider against your own gateway, and says whether the fallback held.
///
/// A stand-in takes the primary's place and fails in every known way, while paced requests go through the gateway. Each
/// failure is passed if no request was lost, none was answered twice or in parts of two answers, and Backstop gave the
/// answers. This is a program of its own, since the server has nothing to call others with.
#[derive(Clone, Debug, Parser)]
#[command(name = "backstop-drill", version, after_help = EXAMPLES)]
#[command(group(ArgGroup::new("mode").required(true).args(["list", "fault", "gateway_url", "gateway_config"])))]
pub struct CommandLine {
    /// List the failures, and end.
    #[arg(long)]
    pub list: bool,
    /// Whom to drill.
    #[command(flatten)]
    pub gateway: GatewayArgs,
    /// What takes the primary's place.
    #[command(flatten)]
    pub stand_in: StandInArgs,
    /// What is asked.
    #[command(flatten)]
    pub load: LoadArgs,
    /// What is written.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Whom to drill.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Gateway")]
pub struct GatewayArgs {
    /// Address of a gateway that runs, whose primary is the stand-in.
    #[arg(long, value_name = "URL", requires = "model")]
    pub gateway_url: Option<String>,
    /// Configuration of LiteLLM's proxy: it is started from a copy with the stand-in in the primary's place.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["api_key_file", "ca_file"])]
    pub gateway_config: Option<PathBuf>,
    /// LiteLLM's program.
    #[arg(long, value_name = "PROGRAM", default_value = "litellm")]
    pub gateway_program: PathBuf,
    /// Model to ask the gateway for; with --gateway-config, the primary, if several groups have fallbacks.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// File with the key that the gateway wants.
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities to trust, instead of the system's.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Address of Backstop: its answers are compared with what it says of itself. With --gateway-config it is taken from
    /// there.
    #[arg(long, value_name = "URL")]
    pub fallback_url: Option<String>,
    /// File with the key that Backstop wants.
    #[arg(long, value_name = "FILE", requires = "fallback_url")]
    pub fallback_api_key_file: Option<PathBuf>,
    /// Make nothing fail: ask a gateway as it is, and say who answers.
    #[arg(long, requires = "gateway_url", conflicts_with_all = ["only", "stand_in", "metrics_file"])]
    pub readonly: bool,
    /// How long, with --readonly.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time, requires = "readonly")]
    pub duration: Duration,
}

/// What takes the primary's place.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Stand-in")]
pub struct StandInArgs {
    /// Where the stand-in listens. With --gateway-config any free port is taken.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4010")]
    pub stand_in: SocketAddr,
    /// Run nothing but the stand-in, which fails like this, or `none`.
    #[arg(long, value_name = "NAME")]
    pub fault: Option<String>,
    /// Failures to rehearse, instead of all.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub only: Vec<String>,
}

/// What is asked, and how long is waited.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Load")]
pub struct LoadArgs {
    /// Requests a second; every other one is streamed.
    #[arg(long, value_name = "NUMBER", default_value_t = 4.0, value_parser = rate)]
    pub rate: f64,
    /// Requests under way at once; more are not sent.
    #[arg(long, value_name = "NUMBER", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
    /// The longest answer that is asked for.
    #[arg(long, value_name = "TOKENS", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub max_tokens: u32,
    /// How long the gateway may take until it passes on the stand-in's first answer.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = short)]
    pub warm_up: Duration,
    /// How long requests are sent before each failure.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = short)]
    pub before: Duration,
    /// How long requests are sent during each failure.
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = short)]
    pub during: Duration,
    /// How long the primary may take to answer again after each failure, before the drill goes on.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = short)]
    pub recovery_limit: Duration,
    /// How long a client waits for the end of an answer; then its request is lost.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = short)]
    pub request_timeout: Duration,
    /// How long a client may wait for the first token of a stream, for the drill to be passed.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = short)]
    pub first_token_limit: Duration,
}

/// What is written.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Reports")]
pub struct OutputArgs {
    /// Write the report as JSON; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the report as one HTML file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write metrics for the textfile collector of Prometheus' node_exporter. The file keeps the date of the last passed
    /// drill.
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if (0.1..=100.0).contains(&rate) {
        Ok(rate)
    } else {
        Err("expected 0.1 to 100 requests a second".into())
    }
}

/// `90s`, `1500ms`, `2m`.
fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// A time of which a drill has many.
fn short(text: &str) -> Result<Duration, String> {
    let time = time(text)?;
    if time.is_zero() || time > Duration::from_secs(600) {
        Err("expected more than 0 and at most 10m".into())
    } else {
        Ok(time)
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
    fn one_thing_is_done_at_a_time() {
        let parse =
            |line: &[&str]| CommandLine::try_parse_from(["backstop-drill"].iter().chain(line));
        for good in [
            &["--list"][..],
            &["--fault", "none"],
            &["--gateway-url", "http://g", "--model", "m"],
            &[
                "--gateway-url",
                "http://g",
                "--model",
                "m",
                "--readonly",
                "--duration",
                "1m",
            ],
            &["--gateway-config", "c", "--only", "status-401,status-403"],
        ] {
            parse(good).unwrap();
        }
        for bad in [
            &[][..],
            &["--gateway-url", "http://g"],
            &[
                "--gateway-url",
                "http://g",
                "--model",
                "m",
                "--gateway-config",
                "c",
            ],
            &["--gateway-config", "c", "--readonly"],
            &["--list", "--fault", "none"],
            &["--list", "--rate", "0"],
            &["--list", "--during", "11m"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
