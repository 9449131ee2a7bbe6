//! Runs suites into a directory of results: what is there is kept, what is missing is asked, and measures come at the end.

mod noise;

use std::collections::{BTreeMap, HashSet};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use backstop_client::Endpoint;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::QualifyError;
use crate::args::SuiteArgs;
use crate::record::{Attempt, Interval, Measure, Outcome, Run, Subject};
use crate::runner::{self, Asking, Job};
use crate::store::Directory;
use crate::subject;
use crate::suite::Suite;
use crate::suites::{self, Chosen};

/// This program, in what it writes.
pub const PROGRAM: &str = concat!("backstop-qualify ", env!("CARGO_PKG_VERSION"));

/// Runs the suites that the command line names.
pub(crate) async fn run(args: &SuiteArgs) -> Result<ExitCode, QualifyError> {
    let root = args
        .into
        .as_deref()
        .ok_or_else(|| QualifyError::new("--into is needed"))?;
    let endpoint = subject::endpoint(&args.endpoint)?;
    let subject = subject::meet(&endpoint, &args.endpoint).await?;
    let chosen = {
        // To find the tasks of a repository takes long.
        let (args, subject) = (args.clone(), subject.clone());
        let choosing = tokio::task::spawn_blocking(move || suites::choose(&args, &subject));
        choosing
            .await
            .map_err(|error| QualifyError::new(error.to_string()))??
    };
    let directory = Directory::open(root, &describe(&chosen, args, subject))?;
    if directory.is_resumed() {
        tracing::info!("{} has results of this run, which are kept", root.display());
    }
    let mut unanswered = 0;
    for one in chosen {
        unanswered += run_suite(one, args, &endpoint, &directory).await?;
    }
    if unanswered > 0 {
        return Err(QualifyError::new(format!(
            "{unanswered} attempts have no answer; the same command asks them again"
        )));
    }
    tracing::info!("results are in {}", root.display());
    Ok(ExitCode::SUCCESS)
}

/// What is asked for, and of whom.
pub(crate) fn describe(chosen: &[Chosen], args: &SuiteArgs, subject: Subject) -> Run {
    let settings = chosen
        .iter()
        .map(|one| (one.definition.name.clone(), settings(one, args)));
    Run {
        program: PROGRAM.into(),
        settings: settings.collect(),
        subject,
        began_unix_s: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs()),
    }
}

/// Everything that decides what is asked in a suite.
fn settings(one: &Chosen, args: &SuiteArgs) -> Value {
    let definition = json!(one.definition).to_string();
    let mut settings = one.suite.settings();
    settings.extend(one.sampling.settings());
    let sampling = &args.sampling;
    settings.extend([
        (
            "definition_sha256".into(),
            json!(sha256(definition.as_bytes())),
        ),
        ("tasks".into(), json!(task_count(one.suite.as_ref(), args))),
        ("samples".into(), json!(one.sampling.samples)),
        ("seed".into(), json!(sampling.seed)),
    ]);
    // What is as usual is not said.
    if let Some(body) = &sampling.body {
        settings.insert("body".into(), json!(body));
    }
    if !sampling.omit.is_empty() {
        settings.insert("omit".into(), json!(sampling.omit));
    }
    if args.endpoint.stream {
        settings.insert("stream".into(), json!(true));
    }
    json!(settings)
}

/// Tasks that are asked.
pub(crate) fn task_count(suite: &dyn Suite, args: &SuiteArgs) -> usize {
    let all = suite.tasks().len();
    args.limit.map_or(all, |limit| all.min(limit as usize))
}

/// As hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Runs a suite as often as asked for, and writes its measures. Says how many attempts have no answer.
async fn run_suite(
    chosen: Chosen,
    args: &SuiteArgs,
    endpoint: &Endpoint,
    directory: &Directory,
) -> Result<usize, QualifyError> {
    let suite: Arc<dyn Suite> = Arc::from(chosen.suite);
    let asking = Asking::new(endpoint.clone(), args, &chosen.sampling);
    let job = Job::new(asking, suite.clone());
    let tasks = task_count(suite.as_ref(), args);
    let mut runs = Vec::new();
    for number in 1..=args.repeat {
        runs.push(run_once(&job, tasks, number, directory).await?);
    }
    let name = suite.name();
    let mut measures = measures(suite.as_ref(), &runs[0]);
    if runs.len() > 1 {
        measures.extend(noise::measures(suite.as_ref(), &runs));
    }
    directory.write_measures(name, &measures)?;
    for measure in &measures {
        tracing::info!("{name}: {}", in_words(measure));
    }
    let unanswered = |attempt: &&Attempt| attempt.outcome == Outcome::NoAnswer;
    Ok(runs.iter().flatten().filter(unanswered).count())
}

/// Asks what has no answer yet, and gives all attempts in the order of the tasks.
async fn run_once(
    job: &Arc<Job>,
    tasks: usize,
    number: u32,
    directory: &Directory,
) -> Result<Vec<Attempt>, QualifyError> {
    let (name, samples) = (job.suite.name(), job.asking.samples);
    let (mut answers, kept) = directory.answers(name, number)?;
    let (mut attempts, unanswered): (Vec<_>, Vec<_>) = kept
        .into_iter()
        .partition(|attempt| attempt.outcome != Outcome::NoAnswer);
    let done: HashSet<(String, u32)> = attempts
        .iter()
        .map(|attempt| (attempt.task.clone(), attempt.sample))
        .collect();
    let total = tasks * samples as usize;
    tracing::info!(
        "{name}, run {number}: {} of {total} attempts are there, {} without an answer",
        done.len() + unanswered.len(),
        unanswered.len()
    );
    let bar = bar(name, total, done.len());
    let asked = runner::run(job, tasks, &done, |attempt| {
        answers.append(&attempt)?;
        attempts.push(attempt);
        bar.inc(1);
        Ok(())
    });
    let asked = asked.await;
    bar.finish_and_clear();
    answers.sync()?;
    asked?;
    let places: BTreeMap<&String, usize> = job
        .suite
        .tasks()
        .iter()
        .enumerate()
        .map(|(place, task)| (task, place))
        .collect();
    attempts.sort_by_key(|attempt| (places.get(&attempt.task).copied(), attempt.sample));
    Ok(attempts)
}

/// What the suite makes of its attempts, and what became of the asking.
pub(crate) fn measures(suite: &dyn Suite, attempts: &[Attempt]) -> Vec<Measure> {
    let answered: Vec<Attempt> = attempts
        .iter()
        .filter(|attempt| attempt.outcome != Outcome::NoAnswer)
        .cloned()
        .collect();
    let mut measures = suite.measures(&answered);
    let count = attempts.len() as u64;
    let share = |held: usize| held as f64 / attempts.len().max(1) as f64;
    let of = |outcome| {
        attempts
            .iter()
            .filter(|attempt| attempt.outcome == outcome)
            .count()
    };
    let retries: u32 = attempts.iter().map(|attempt| attempt.retries).sum();
    for (metric, value) in [
        ("no_answer", share(of(Outcome::NoAnswer))),
        ("truncated", share(of(Outcome::Truncated))),
        ("retries", f64::from(retries)),
    ] {
        measures.push(Measure {
            suite: suite.name().to_owned(),
            metric: metric.into(),
            value,
            interval: None,
            count,
            samples: 1,
            settings: BTreeMap::new(),
            source: PROGRAM.into(),
        });
    }
    measures
}

fn in_words(measure: &Measure) -> String {
    let interval = measure.interval.as_ref().map(|interval| {
        let Interval { low, high, .. } = interval;
        format!(" ({low:.4} to {high:.4})")
    });
    format!(
        "{} {:.4}{} of {}",
        measure.metric,
        measure.value,
        interval.unwrap_or_default(),
        measure.count
    )
}

/// Hidden where standard error is no terminal.
fn bar(name: &str, total: usize, done: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len} {per_sec} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(total as u64).with_style(style.progress_chars("=> "));
    bar.set_message(name.to_owned());
    bar.set_position(done as u64);
    bar
}
