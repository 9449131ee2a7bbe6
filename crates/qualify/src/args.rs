//! The command line: suites by flags, everything else by a subcommand.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};
use serde_json::{Map, Value};

use crate::adapters::AdaptersArgs;
use crate::bench::BenchArgs;
use crate::compare::CompareArgs;
use crate::conformance::ConformanceArgs;
use crate::replay::ReplayArgs;
use crate::report::ReportArgs;
use crate::suites::RepoArgs;

const EXAMPLES: &str = "\
Examples:
  All code suites whose data are in a directory, against a server on this machine:
    backstop-qualify --suite code --data-dir data --url http://127.0.0.1:8000 --model chat --into results
  As a vendor claims it, with ten answers to each task at another temperature:
    backstop-qualify --suite code/humaneval --samples 10 --pass-at 1,10 --temperature 0.8 --top-p 0.95 \\
        --url http://127.0.0.1:8000 --model chat --into results
  The same command again goes on where it was stopped.

Exit codes:
  0  done
  1  it could not be done, or not wholly: some tasks have no answer
  2  the command line is wrong";

/// Re-runs vendors' claims against any server of OpenAI's API, and keeps every answer.
#[derive(Clone, Debug, Parser)]
#[command(name = "backstop-qualify", version, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(group(ArgGroup::new("what").required(true).args(["list", "suite"])))]
pub struct CommandLine {
    /// Something else than suites.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Suites of tasks.
    #[command(flatten)]
    pub suites: SuiteArgs,
}

/// Everything but suites. Each part is a module with arguments and a `run` of its own; `run.rs` has a line for each.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Measure the speed of a server.
    Bench(BenchArgs),
    /// Ask a server for what gateways rely on, one behaviour after the other.
    Conformance(ConformanceArgs),
    /// Make a report of a directory of results; sign and verify reports.
    Report(ReportArgs),
    /// Says how much worse one server is than another, on the same tasks.
    Compare(Box<CompareArgs>),
    /// Replays a gateway's own log through two servers.
    Replay(Box<ReplayArgs>),
    /// Run another harness against the server, or read what one left behind.
    Adapters(AdaptersArgs),
}

/// Which suites, whom to ask, and how.
#[derive(Clone, Debug, Args)]
pub struct SuiteArgs {
    /// List the suites, and end.
    #[arg(long)]
    pub list: bool,
    /// Suites, such as `code/humaneval`, or groups of them, such as `code`.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires_all = ["url", "model", "into"])]
    pub suite: Vec<String>,
    /// Directory of results. A run that was stopped goes on there.
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,
    /// Files of tasks that are not part of this program (HumanEval, MBPP, EvalPlus).
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Definitions of suites (`*.toml`), beside the built-in ones, or in their place.
    #[arg(long, value_name = "DIR")]
    pub suites: Option<PathBuf>,
    /// Ask only the first tasks of each suite.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// Longest context to search, instead of what the server says it serves (suite `retrieval`).
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub context: Option<u32>,
    /// Run everything so many times, to learn how much results differ by themselves.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,
    /// Whom to ask.
    #[command(flatten)]
    pub endpoint: EndpointArgs,
    /// How answers are drawn.
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// How programs that models wrote are run.
    #[command(flatten)]
    pub code: CodeArgs,
    /// A team's own repository.
    #[command(flatten)]
    pub repo: RepoArgs,
}

/// Whom to ask, and how patiently.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub struct EndpointArgs {
    /// Address of a server of OpenAI's API.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Model to ask for.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// File with the key that the server wants.
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities to trust, instead of the system's.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Requests under way at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
    /// How long to wait for the end of an answer.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    pub request_timeout: Duration,
    /// How often a request is sent again after a failed connection, a 429 or a 503.
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub retries: u32,
    /// Have answers streamed.
    #[arg(long)]
    pub stream: bool,
}

/// How answers are drawn. What is not given is as the suite has it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Seed of everything that is drawn: each answer's own seed follows from it.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub seed: u64,
    /// Temperature.
    #[arg(long, value_name = "NUMBER", value_parser = temperature)]
    pub temperature: Option<f64>,
    /// Nucleus of the probabilities to draw from.
    #[arg(long, value_name = "NUMBER", value_parser = fraction)]
    pub top_p: Option<f64>,
    /// Answers to each task.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub samples: Option<u32>,
    /// The k of each pass@k.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub pass_at: Vec<u32>,
    /// The longest answer.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    /// Further fields of every request, as a JSON object.
    #[arg(long, value_name = "JSON", value_parser = object)]
    pub body: Option<Map<String, Value>>,
    /// Fields that the server does not take, such as `seed`, and that are left out.
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    pub omit: Vec<String>,
    /// Have base models continue the task's text, instead of asking in a chat.
    #[arg(long)]
    pub completion: bool,
}

/// How programs that models wrote are run.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Programs that models wrote")]
pub struct CodeArgs {
    /// Python to run them with, isolated from this machine.
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    pub python: PathBuf,
    /// Processor time that each may take, instead of the suite's; by the clock it is five times as much.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub code_timeout: Option<Duration>,
}

/// `90s`, `1500ms`, `2m`.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time.is_zero() || time > Duration::from_secs(24 * 3600) {
        Err("expected more than 0 and at most 24h".into())
    } else {
        Ok(time)
    }
}

fn temperature(text: &str) -> Result<f64, String> {
    within(text, 0.0, 2.0)
}

fn fraction(text: &str) -> Result<f64, String> {
    let value = within(text, 0.0, 1.0)?;
    if value == 0.0 {
        return Err("expected more than 0".into());
    }
    Ok(value)
}

fn within(text: &str, low: f64, high: f64) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if (low..=high).contains(&value) {
        Ok(value)
    } else {
        Err(format!("expected {low} to {high}"))
    }
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("expected a JSON object: {error}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(["backstop-qualify"].into_iter().chain(line.split(' ')))
    }

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn suites_need_a_server_and_a_directory() {
        let whole = "--suite code,tools --url http://s --model m --into d";
        let line = parse(whole).unwrap();
        assert_eq!(line.suites.suite, ["code", "tools"]);
        parse("--list").unwrap();
        parse(&format!("{whole} --pass-at 1,10 --samples 20")).unwrap();
        let object = format!("{whole} --body {{\"top_k\":20}}");
        assert_eq!(
            parse(&object).unwrap().suites.sampling.body.unwrap()["top_k"],
            20
        );
        for bad in [
            "",
            "--suite code",
            "--suite code --url http://s --model m",
            &format!("{whole} --list"),
            &format!("{whole} --samples 0"),
            &format!("{whole} --temperature 3"),
            &format!("{whole} --top-p 0"),
            &format!("{whole} --body 3"),
            &format!("{whole} --request-timeout 0s"),
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
