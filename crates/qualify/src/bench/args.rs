//! The command line of `bench serve`. Flags have the names of `vllm bench serve` where they mean the same.

use std::path::PathBuf;
use std::time::Duration;

use backstop_load::{Backend, Burstiness, Events, Scale};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value};

const EXAMPLES: &str = "\
Examples:
  Clients that wait for their answers, 1, 8 and 64 of them:
    backstop-qualify bench serve --url http://127.0.0.1:8000 --max-concurrency 1,8,64 --ignore-eos
  Requests at random times, whatever becomes of those before, and which of them are good:
    backstop-qualify bench serve --url http://127.0.0.1:8000 --request-rate 1,2,4 --goodput ttft:500 tpot:50
  The highest rate at which 95 % of all answers are good:
    backstop-qualify bench serve --url http://127.0.0.1:8000 --find-capacity rate --goodput ttft:500 tpot:50
  The arrivals and lengths of a recorded trace:
    backstop-qualify bench serve --url http://127.0.0.1:8000 --dataset-name timed_trace --dataset-path trace.jsonl";

/// Measures the speed of a server.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// What is measured.
    #[command(subcommand)]
    pub what: Bench,
}

/// What is measured.
#[derive(Clone, Debug, Subcommand)]
pub enum Bench {
    /// A server of OpenAI's API under load, over HTTP.
    #[command(after_help = EXAMPLES)]
    Serve(Box<ServeArgs>),
}

/// `bench serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Whom to ask.
    #[command(flatten)]
    pub server: ServerArgs,
    /// How much at once.
    #[command(flatten)]
    pub load: LoadArgs,
    /// What is asked.
    #[command(flatten)]
    pub prompts: PromptArgs,
    /// What is good, and where the good ends.
    #[command(flatten)]
    pub goodput: GoodputArgs,
    /// What is written.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Whom to ask.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// Address of the server, with or without /v1.
    #[arg(long, visible_alias = "base-url", value_name = "URL")]
    pub url: String,
    /// Model to ask for; the first that the server lists, if none is named.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Which API is asked.
    #[arg(long, value_enum, default_value_t = BackendName::OpenaiChat)]
    pub backend: BackendName,
    /// Path of the API, if it is another than usual.
    #[arg(long, value_name = "PATH")]
    pub endpoint: Option<String>,
    /// File with the key that the server wants.
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities to trust, instead of the system's.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// How long a client waits for the end of an answer.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    pub request_timeout: Duration,
}

/// Which API is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendName {
    /// `/v1/completions`.
    Openai,
    /// `/v1/chat/completions`.
    OpenaiChat,
}

impl From<BackendName> for Backend {
    fn from(name: BackendName) -> Self {
        match name {
            BackendName::Openai => Self::Completions,
            BackendName::OpenaiChat => Self::Chat,
        }
    }
}

/// How much at once.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Load")]
pub struct LoadArgs {
    /// Requests of each run.
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub num_prompts: u32,
    /// Clients that wait for their answers, one run for each number; with a rate, the most requests in flight.
    #[arg(long, visible_alias = "concurrency", value_name = "NUMBERS", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=16_384))]
    pub max_concurrency: Vec<u32>,
    /// Requests a second, one run for each rate; inf sends all at once.
    #[arg(long, value_name = "RATES", value_delimiter = ',', value_parser = rate)]
    pub request_rate: Vec<f64>,
    /// How even the arrivals are: 1 is a Poisson process, less comes in bursts, more is more even, inf is a metronome.
    #[arg(long, value_name = "SHAPE", default_value = "1", value_parser = burstiness)]
    pub burstiness: Burstiness,
    /// Requests before those that are measured.
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub num_warmups: u32,
    /// What all that is drawn at random depends on; without one, every time something else, so that a server that remembers the
    /// prompts of an earlier benchmark is not faster for it.
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
}

/// What is asked.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Prompts")]
pub struct PromptArgs {
    /// Where prompts come from.
    #[arg(long, value_enum, default_value_t = DatasetName::Random)]
    pub dataset_name: DatasetName,
    /// File of custom and timed_trace.
    #[arg(long, value_name = "FILE")]
    pub dataset_path: Option<PathBuf>,
    /// Tokens of a prompt, or of what a user says in each turn.
    #[arg(long, visible_alias = "input-len", value_name = "TOKENS", default_value_t = 1024, value_parser = tokens())]
    pub random_input_len: u32,
    /// The longest answer.
    #[arg(long, visible_alias = "output-len", value_name = "TOKENS", default_value_t = 128, value_parser = tokens())]
    pub random_output_len: u32,
    /// Lengths are even between 1 - RATIO and 1 + RATIO of these.
    #[arg(long, value_name = "RATIO", default_value_t = 0.0, value_parser = ratio)]
    pub random_range_ratio: f64,
    /// Tokens with which all prompts of a run begin alike.
    #[arg(long, value_name = "TOKENS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=4_194_304))]
    pub random_prefix_len: u32,
    /// How many beginnings prompts of prefix_repetition share.
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub prefix_repetition_num_prefixes: u32,
    /// Tokens of each of these.
    #[arg(long, value_name = "TOKENS", default_value_t = 256, value_parser = tokens())]
    pub prefix_repetition_prefix_len: u32,
    /// Tokens of what is a prompt's own.
    #[arg(long, value_name = "TOKENS", default_value_t = 256, value_parser = tokens())]
    pub prefix_repetition_suffix_len: u32,
    /// The longest answer to such a prompt.
    #[arg(long, value_name = "TOKENS", default_value_t = 128, value_parser = tokens())]
    pub prefix_repetition_output_len: u32,
    /// Turns of each conversation of multi_turn.
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub multi_turn_num_turns: u32,
    /// From an answer to the next turn.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time)]
    pub multi_turn_think_time: Duration,
    /// The longest answer to a prompt of a file that does not say.
    #[arg(long, value_name = "TOKENS", default_value_t = 256, value_parser = tokens())]
    pub custom_output_len: u32,
    /// Ask prompts of a file again when there are no more. A prefix cache may answer then.
    #[arg(long)]
    pub reuse_prompts: bool,
    /// Seconds that a 1 in a trace's timestamps means: 0.001 for JSON lines and 1 for CSV, unless it is said. Half of it is
    /// twice the speed.
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub timed_trace_sec_multiplier: Option<f64>,
    /// Let prompts of a trace share the blocks that they shared, of so many tokens each (`hash_ids`; Mooncake's are of 512).
    #[arg(long, value_name = "TOKENS", value_parser = tokens())]
    pub timed_trace_chunk_hash_size: Option<u32>,
    /// Have answers go on up to their longest length, where the server can.
    #[arg(long)]
    pub ignore_eos: bool,
    /// Temperature of sampling.
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0)]
    pub temperature: f64,
    /// Nucleus of sampling.
    #[arg(long, value_name = "NUMBER")]
    pub top_p: Option<f64>,
    /// Further fields of every request, as a JSON object.
    #[arg(long, value_name = "JSON", value_parser = object)]
    pub extra_body: Option<Map<String, Value>>,
}

/// Where prompts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum DatasetName {
    /// Made up; no two begin alike.
    Random,
    /// Made up, with beginnings that several share.
    PrefixRepetition,
    /// Made-up conversations of several turns, with the answers that came.
    MultiTurn,
    /// From JSON lines with prompt, messages or turns.
    Custom,
    /// Made up, with the arrivals and lengths of a file: JSON lines as Mooncake's, CSV as BurstGPT's or Azure's.
    TimedTrace,
}

impl DatasetName {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::PrefixRepetition => "prefix_repetition",
            Self::MultiTurn => "multi_turn",
            Self::Custom => "custom",
            Self::TimedTrace => "timed_trace",
        }
    }
}

/// What is good, and where the good ends.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Definitions and objectives")]
pub struct GoodputArgs {
    /// Which events of a stream count as tokens. A server may send one without content before its first token.
    #[arg(long, value_enum, default_value_t = TokenEvents::Choice)]
    pub token_events: TokenEvents,
    /// The longest latencies of a good answer, in milliseconds: ttft:MS, tpot:MS, e2el:MS.
    #[arg(long, value_name = "NAME:MS", num_args = 1..=3)]
    pub goodput: Vec<String>,
    /// Find the highest load under which enough answers are good, instead of running what is named above.
    #[arg(long, value_enum, value_name = "WHAT", requires = "goodput",
          conflicts_with_all = ["request_rate", "max_concurrency"])]
    pub find_capacity: Option<ScaleName>,
    /// How many of all answers are enough.
    #[arg(long, value_name = "FRACTION", default_value_t = 0.95, value_parser = fraction, requires = "find_capacity")]
    pub capacity_goodput: f64,
    /// The most loads that are tried.
    #[arg(long, value_name = "NUMBER", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=64),
          requires = "find_capacity")]
    pub capacity_probes: u32,
    /// How long requests come at each rate that is tried.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time, requires = "find_capacity")]
    pub capacity_probe_time: Duration,
}

/// What is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScaleName {
    /// Requests a second.
    Rate,
    /// Clients that wait for their answers.
    Concurrency,
}

impl From<ScaleName> for Scale {
    fn from(name: ScaleName) -> Self {
        match name {
            ScaleName::Rate => Self::Rate,
            ScaleName::Concurrency => Self::Concurrency,
        }
    }
}

/// Which events of a stream count as tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TokenEvents {
    /// All that have a choice, as for vLLM's benchmark.
    Choice,
    /// Those with text, reasoning or calls alone, as for aiperf.
    Content,
}

impl From<TokenEvents> for Events {
    fn from(events: TokenEvents) -> Self {
        match events {
            TokenEvents::Choice => Self::WithChoice,
            TokenEvents::Content => Self::WithContent,
        }
    }
}

/// What is written.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Reports")]
pub struct OutputArgs {
    /// Latencies in tables and in the JSON's flat fields.
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "ttft,ttfc,tpot,itl,e2el"
    )]
    pub percentile_metrics: Vec<LatencyName>,
    /// Percentiles of these.
    #[arg(long, value_name = "PERCENTS", value_delimiter = ',', default_value = "50,90,95,99", value_parser = percent)]
    pub metric_percentiles: Vec<f64>,
    /// Write everything as JSON; `-` is standard output, instead of tables.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write tables and plots as one HTML file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Directory of a qualification: its measures/bench-serve.json and bench/serve.json are written.
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,
    /// Put every request into the JSON, with the times of its events.
    #[arg(long)]
    pub save_detailed: bool,
    /// Measure this machine's power: auto does if the server's address is this machine's own.
    #[arg(long, value_enum, default_value_t = PowerName::Auto)]
    pub power: PowerName,
}

/// Latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum LatencyName {
    /// Time to first token.
    Ttft,
    /// Time per output token.
    Tpot,
    /// Inter-token latency.
    Itl,
    /// End-to-end latency.
    E2el,
    /// Time to the first event with content.
    Ttfc,
    /// Waiting for a place among those in flight.
    ClientQueueTime,
    /// End-to-end latency with that wait.
    E2elIncludingClientQueue,
}

/// Whether power is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PowerName {
    /// If the server's address is this machine's own.
    Auto,
    /// In any case.
    On,
    /// Not at all.
    Off,
}

fn tokens() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=4_194_304)
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "expected a number".to_owned())
}

fn in_range(text: &str, low: f64, high: f64) -> Result<f64, String> {
    let number = number(text)?;
    if (low..=high).contains(&number) {
        Ok(number)
    } else {
        Err(format!("expected {low} to {high}"))
    }
}

fn rate(text: &str) -> Result<f64, String> {
    if text == "inf" {
        return Ok(f64::INFINITY);
    }
    in_range(text, 0.001, 100_000.0)
}

fn positive(text: &str) -> Result<f64, String> {
    in_range(text, 1e-9, 1e6)
}

fn ratio(text: &str) -> Result<f64, String> {
    in_range(text, 0.0, 0.999)
}

fn fraction(text: &str) -> Result<f64, String> {
    in_range(text, 0.01, 1.0)
}

fn percent(text: &str) -> Result<f64, String> {
    in_range(text, 0.0, 100.0)
}

fn burstiness(text: &str) -> Result<Burstiness, String> {
    Burstiness::new(number(text)?).map_err(|error| error.to_string())
}

/// `90s`, `1500ms`, `2m`; up to a day.
fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time > Duration::from_secs(86_400) {
        return Err("expected at most a day".into());
    }
    Ok(time)
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("expected a JSON object: {error}"))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn parse(arguments: &[&str]) -> Result<ServeArgs, clap::Error> {
        let line = ["bench", "serve", "--url", "http://s"]
            .iter()
            .chain(arguments);
        let Bench::Serve(args) = Line::try_parse_from(line)?.bench.what;
        Ok(*args)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Line::command().debug_assert();
    }

    #[test]
    fn flags_of_vllm_are_taken() {
        let args = parse(&[
            "--backend",
            "openai",
            "--request-rate",
            "1,2.5,inf",
            "--max-concurrency",
            "64",
            "--num-prompts",
            "10",
            "--random-input-len",
            "64",
            "--random-output-len",
            "32",
            "--ignore-eos",
            "--goodput",
            "ttft:500",
            "tpot:50",
            "--percentile-metrics",
            "ttft,e2el",
            "--metric-percentiles",
            "50,99.9",
            "--seed",
            "7",
            "--burstiness",
            "0.5",
        ])
        .unwrap();
        assert_eq!(args.load.request_rate, [1.0, 2.5, f64::INFINITY]);
        assert_eq!(args.goodput.goodput, ["ttft:500", "tpot:50"]);
        assert_eq!(args.output.metric_percentiles, [50.0, 99.9]);
        assert_eq!(
            args.output.percentile_metrics,
            [LatencyName::Ttft, LatencyName::E2el]
        );
        assert_eq!(args.server.backend, BackendName::Openai);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            &["--request-rate", "0"][..],
            &["--request-rate", "fast"],
            &["--max-concurrency", "0"],
            &["--burstiness", "0"],
            &["--random-range-ratio", "1"],
            &["--metric-percentiles", "101"],
            &["--find-capacity", "rate"],
            &["--capacity-probes", "4"],
            &[
                "--find-capacity",
                "rate",
                "--goodput",
                "ttft:1",
                "--request-rate",
                "1",
            ],
            &["--extra-body", "[]"],
            &["--num-prompts", "0"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
