//! The command line of comparisons.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgGroup, Args, Subcommand};

use crate::args::{CodeArgs, SamplingArgs, SuiteArgs};
use crate::endpoints::PairArgs;
use crate::suites::RepoArgs;

/// Says how much worse one server is than another, on the same tasks.
///
/// Takes two directories of results with the same settings, or runs suites on two servers in turns. The first is what is
/// measured against; the second is the one in question, the fallback.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(mut_args(for_runs_alone))]
#[command(group(ArgGroup::new("what").required(true).args(["first", "suite"])))]
pub struct CompareArgs {
    /// Something else than comparing.
    #[command(subcommand)]
    pub command: Option<CompareCommand>,
    /// Directory of the first's results.
    #[arg(value_name = "A_DIR", requires = "second")]
    pub first: Option<PathBuf>,
    /// Directory of the second's results.
    #[arg(value_name = "B_DIR")]
    pub second: Option<PathBuf>,
    /// What the two are called in what is written.
    #[arg(long, value_name = "A,B", default_value = "A,B", value_parser = names)]
    pub names: Names,
    /// Directory for what is written: `comparison.json`, `measures/compare.json`, and pages.
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,
    /// Write the comparison as JSON; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the comparison as one HTML file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write a page with pairs of answers whose authors are hidden, and the key to it, into
    /// the directory of --into.
    #[arg(long, requires = "into")]
    pub blind: bool,
    /// Pairs on that page.
    #[arg(long, value_name = "NUMBER", default_value_t = 40, requires = "blind", value_parser = clap::value_parser!(u16).range(1..=500))]
    pub pairs: u16,
    /// Further words to hide on that page, such as the makers' names. Those of the models are hidden anyway.
    #[arg(long, value_name = "WORDS", value_delimiter = ',', requires = "blind")]
    pub hide: Vec<String>,
    /// Suites to run on both.
    #[command(flatten)]
    pub runs: RunsArgs,
    /// Whom to run them on.
    #[command(flatten)]
    pub servers: Option<PairArgs>,
}

/// Suites that are run on two servers in turns. The results lie in `a` and `b` within --into, and a run that was stopped
/// goes on there.
#[derive(Clone, Debug, Args)]
pub struct RunsArgs {
    /// Suites, such as `code/humaneval`, or groups of them, such as `code`.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires_all = SERVERS)]
    pub suite: Vec<String>,
    /// Files of tasks that are not part of this program (HumanEval, MBPP, EvalPlus).
    #[arg(long, value_name = "DIR", requires = "suite")]
    pub data_dir: Option<PathBuf>,
    /// Definitions of suites (`*.toml`), beside the built-in ones, or in their place.
    #[arg(long, value_name = "DIR", requires = "suite")]
    pub suites: Option<PathBuf>,
    /// Ask only the first tasks of each suite.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..), requires = "suite")]
    pub limit: Option<u32>,
    /// Longest context to search (suite `retrieval`). Servers that serve contexts of different lengths are asked the same
    /// tasks only if this says which.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..), requires = "suite")]
    pub context: Option<u32>,
    /// How answers are drawn; the seed is that of resampling and of the coin of --blind as well.
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// How programs that models wrote are run.
    #[command(flatten)]
    pub code: CodeArgs,
    /// A team's own repository.
    #[command(flatten)]
    pub repo: RepoArgs,
}

impl RunsArgs {
    /// What would be asked for if each were run alone.
    pub(super) fn of_both(&self, servers: &PairArgs, into: &Path) -> [SuiteArgs; 2] {
        let [a, b] = servers.each();
        [(a, "a"), (b, "b")].map(|(endpoint, folder)| SuiteArgs {
            list: false,
            suite: self.suite.clone(),
            into: Some(into.join(folder)),
            data_dir: self.data_dir.clone(),
            suites: self.suites.clone(),
            limit: self.limit,
            context: self.context,
            repeat: 1,
            endpoint,
            sampling: self.sampling.clone(),
            code: self.code.clone(),
            repo: self.repo.clone(),
        })
    }
}

/// What suites cannot be run without.
const SERVERS: [&str; 5] = ["url_a", "model_a", "url_b", "model_b", "into"];
/// Options that say nothing where two directories are compared.
const FOR_RUNS_ALONE: [&str; 21] = [
    "repo",
    "temperature",
    "top_p",
    "samples",
    "pass_at",
    "max_tokens",
    "body",
    "omit",
    "completion",
    "python",
    "code_timeout",
    "url_a",
    "model_a",
    "api_key_file_a",
    "url_b",
    "model_b",
    "api_key_file_b",
    "ca_file",
    "concurrency",
    "request_timeout",
    "retries",
];

fn for_runs_alone(option: Arg) -> Arg {
    let id = option.get_id().as_str();
    if FOR_RUNS_ALONE.contains(&id) || id.starts_with("repo_") {
        option.required(false).requires("suite")
    } else {
        option
    }
}

/// What else there is to do.
#[derive(Clone, Debug, Subcommand)]
pub enum CompareCommand {
    /// Says who gave the answers of a blind page, and what became of people's judgements of them.
    Unblind(UnblindArgs),
}

/// A blind page's key, and judgements.
#[derive(Clone, Debug, Args)]
pub struct UnblindArgs {
    /// The key, `blind/key.json`.
    #[arg(value_name = "KEY")]
    pub key: PathBuf,
    /// Judgements, as the page saves them: a line of JSON for each pair, with `pair` and `better` (`x`, `y` or `equal`).
    #[arg(long, value_name = "FILE")]
    pub judgements: Vec<PathBuf>,
    /// Write what came of it as JSON; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What two are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(pub [String; 2]);

const NAME_CHARACTERS_MAX: usize = 60;

/// Two names, with a comma between them.
pub(crate) fn names(text: &str) -> Result<Names, String> {
    let parts: Vec<String> = text.split(',').map(|part| part.trim().to_owned()).collect();
    let names: [String; 2] = parts
        .try_into()
        .map_err(|_| "expected two names with a comma between them".to_owned())?;
    let is_good = |name: &String| {
        let length = name.chars().count();
        (1..=NAME_CHARACTERS_MAX).contains(&length) && !name.chars().any(char::is_control)
    };
    if !names.iter().all(is_good) {
        return Err(format!(
            "expected names of 1 to {NAME_CHARACTERS_MAX} characters"
        ));
    }
    if names[0] == names[1] {
        return Err("expected two different names".into());
    }
    Ok(Names(names))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::{Command, CommandLine};

    fn parse(line: &str) -> Result<CompareArgs, clap::Error> {
        let line = format!("backstop-qualify compare {line}");
        match CommandLine::try_parse_from(line.split_whitespace())?.command {
            Some(Command::Compare(args)) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn two_directories_or_two_servers_are_compared() {
        const SERVERS: &str = "--url-a http://a --model-a a --url-b http://b --model-b b";
        let line = parse("x y --names primary,fallback --seed 3 --into d --blind").unwrap();
        assert_eq!(line.names.0, ["primary", "fallback"]);
        assert_eq!(line.runs.sampling.seed, 3);
        assert!(line.servers.is_none());
        let line = parse(&format!(
            "--suite code {SERVERS} --into d --temperature 0.5"
        ))
        .unwrap();
        assert!(line.servers.is_some());
        let line = parse("unblind key.json --judgements one --judgements two").unwrap();
        assert!(
            matches!(line.command, Some(CompareCommand::Unblind(args)) if args.judgements.len() == 2)
        );
        for bad in [
            "",
            "x",
            "x y z",
            "x y --blind",
            "x y --names one",
            "x y --names one,one",
            "x y --names ,b",
            "x y --pairs 3",
            "x y --temperature 0.5",
            "x y --concurrency 3",
            "--suite code --into d",
            "--suite code --into d --url-a http://a --model-a a --url-b http://b",
            &format!("--suite code {SERVERS}"),
            &format!("x y --suite code {SERVERS} --into d"),
            &format!("x y {SERVERS}"),
            "unblind",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn help_says_what_the_command_is_for() {
        let mut command = CommandLine::command();
        let about = |name: &str| {
            let about = command
                .find_subcommand(name)
                .and_then(clap::Command::get_about);
            about.map(ToString::to_string).unwrap_or_default()
        };
        assert!(
            about("compare").starts_with("Says how much worse"),
            "{}",
            about("compare")
        );
        assert!(
            about("replay").starts_with("Replays a gateway"),
            "{}",
            about("replay")
        );
        command.build();
    }
}
