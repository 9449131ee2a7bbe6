//! What the command line says of a repository.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::QualifyError;

use super::contained::Commands;
use super::selection::Wanted;

/// A team's own repository as tasks (`--suite repo`).
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Repository (--suite repo)")]
pub struct RepoArgs {
    /// Git repository whose commits become tasks.
    #[arg(long, value_name = "PATH", requires = "repo_test")]
    pub repo: Option<PathBuf>,
    /// How to test it, by a shell, in isolation. `{tests}` stands for the files of tests that a commit changed.
    #[arg(long, value_name = "COMMAND")]
    pub repo_test: Option<String>,
    /// What to do before each test, in the same isolation.
    #[arg(long, value_name = "COMMAND")]
    pub repo_setup: Option<String>,
    /// Directory that tests may read, such as a virtual environment; its `bin` comes first.
    #[arg(long, value_name = "DIR", conflicts_with = "repo_container")]
    pub repo_environment: Option<PathBuf>,
    /// Image to test in, by podman or docker, without network. It must be there already.
    #[arg(long, value_name = "IMAGE")]
    pub repo_container: Option<String>,
    /// Tasks to find.
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repo_commits: u32,
    /// Only commits since this date, such as `2026-01-01`.
    #[arg(long, value_name = "DATE")]
    pub repo_since: Option<String>,
    /// Only commits that this one has among its ancestors, and itself.
    #[arg(long, value_name = "REVISION", default_value = "HEAD")]
    pub repo_revision: String,
    /// The newest commits to look at.
    #[arg(long, value_name = "NUMBER", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub repo_history: u32,
    /// Patterns of files that are tests, instead of the usual ones.
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    pub repo_tests: Vec<String>,
    /// Leave out commits that change more lines of code.
    #[arg(long, value_name = "NUMBER", default_value_t = 200)]
    pub repo_lines_max: u64,
    /// Leave out commits whose files are longer than this together, before the change.
    #[arg(long, value_name = "BYTES", default_value_t = 48 << 10)]
    pub repo_context_max: u64,
    /// Runs of the tests with and without each commit, to find those that pass now and then.
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repo_repeats: u32,
    /// Time that a run of the tests may take.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = crate::args::time)]
    pub repo_timeout: Duration,
    /// Memory that a run of the tests may take.
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(64..))]
    pub repo_memory_mib: u32,
    /// Show the model the commit's tests.
    #[arg(long)]
    pub repo_show_tests: bool,
}

impl RepoArgs {
    pub(super) fn commands(&self) -> Result<Commands, QualifyError> {
        let test = self.repo_test.clone().ok_or_else(|| {
            QualifyError::new("--repo-test COMMAND says how to test, such as 'pytest -q {tests}'")
        })?;
        Ok(Commands {
            setup: self.repo_setup.clone(),
            test,
        })
    }

    pub(super) fn wanted(&self, seed: u64) -> Wanted {
        Wanted {
            tasks: self.repo_commits as usize,
            since: self.repo_since.clone(),
            commits_max: self.repo_history,
            lines_max: self.repo_lines_max,
            context_bytes_max: self.repo_context_max,
            repeats: self.repo_repeats,
            seed,
            shows_tests: self.repo_show_tests,
        }
    }

    /// All that decides which tasks there are and how they are judged.
    pub(super) fn settings(
        &self,
        head: &str,
        tests: &[&str],
        place: &str,
        seed: u64,
    ) -> BTreeMap<String, Value> {
        let settings = [
            ("head", json!(head)),
            ("test", json!(self.repo_test)),
            ("setup", json!(self.repo_setup)),
            ("environment", json!(place)),
            ("since", json!(self.repo_since)),
            ("history", json!(self.repo_history)),
            ("commits", json!(self.repo_commits)),
            ("tests", json!(tests)),
            ("lines_max", json!(self.repo_lines_max)),
            ("context_bytes_max", json!(self.repo_context_max)),
            ("repeats", json!(self.repo_repeats)),
            ("timeout_s", json!(self.repo_timeout.as_secs_f64())),
            ("memory_mib", json!(self.repo_memory_mib)),
            ("tests_shown", json!(self.repo_show_tests)),
            ("selection_seed", json!(seed)),
        ];
        settings
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}
