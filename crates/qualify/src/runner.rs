//! Asks a suite's tasks, several at once, and hands over each attempt when it is decided. What is asked depends on the
//! settings alone, not on the order in which answers come.

mod asking;

use std::collections::HashSet;
use std::sync::Arc;

use backstop_client::FailureKind;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

use crate::QualifyError;
use crate::record::{Attempt, Outcome, Reply};
use crate::suite::{Judgement, Step, Suite};

pub(crate) use asking::{Asking, ask_again, pause};

/// A conversation that goes on for longer has failed.
const TURNS_MAX: usize = 128;
/// So many attempts in a row without a connection, beyond those that were under way: the server is gone.
const LOST_MAX: usize = 8;

/// A suite under way.
pub(crate) struct Job {
    pub(crate) asking: Asking,
    pub(crate) suite: Arc<dyn Suite>,
    /// Judging takes processors, not patience.
    judges: Semaphore,
}

impl Job {
    pub(crate) fn new(asking: Asking, suite: Arc<dyn Suite>) -> Arc<Self> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            asking,
            suite,
            judges: Semaphore::new(processors),
        })
    }
}

/// Asks every task so many times, but for what is done already.
///
/// # Errors
///
/// If an attempt cannot be kept or judged, or the server is gone.
pub(crate) async fn run(
    job: &Arc<Job>,
    tasks: usize,
    done: &HashSet<(String, u32)>,
    mut keep: impl FnMut(Attempt) -> Result<(), QualifyError>,
) -> Result<(), QualifyError> {
    let samples = job.asking.samples;
    let mut open = (0..tasks)
        .flat_map(|task| (0..samples).map(move |sample| (task, sample)))
        .filter(|(task, sample)| !done.contains(&(job.suite.tasks()[*task].clone(), *sample)));
    let mut running = JoinSet::new();
    let mut lost = 0;
    loop {
        while running.len() < job.asking.concurrency {
            let Some((task, sample)) = open.next() else {
                break;
            };
            running.spawn(attempt(job.clone(), task, sample));
        }
        let Some(finished) = running.join_next().await else {
            return Ok(());
        };
        let attempt = finished.map_err(internal)??;
        lost = if is_lost(&attempt) { lost + 1 } else { 0 };
        let reason = attempt.reason.clone();
        keep(attempt)?;
        if lost >= LOST_MAX + job.asking.concurrency {
            let reason = reason.unwrap_or_default();
            return Err(QualifyError::new(format!(
                "the server is gone ({reason}); the same command goes on from here"
            )));
        }
    }
}

fn is_lost(attempt: &Attempt) -> bool {
    let failure = attempt
        .replies
        .last()
        .and_then(|reply| reply.failure.as_ref());
    failure.is_some_and(|failure| failure.kind == FailureKind::Connection)
}

/// One attempt, from its first request to its judgement.
async fn attempt(job: Arc<Job>, task: usize, sample: u32) -> Result<Attempt, QualifyError> {
    let name = job.suite.tasks()[task].clone();
    let mut replies: Vec<Reply> = Vec::new();
    let (mut request, mut retries) = (Value::Null, 0);
    let judgement = loop {
        match step(&job, task, sample, &replies).await? {
            Step::Judged(judgement) => break judgement,
            Step::Ask(_) if replies.len() >= TURNS_MAX => {
                let reason = format!("the conversation had not ended after {TURNS_MAX} answers");
                break without_score(Outcome::Failed, reason);
            }
            Step::Ask(body) => {
                request = job.asking.body(job.suite.name(), &name, sample, body)?;
                let (answer, again) = job.asking.ask(&request).await;
                retries += again;
                replies.push(Reply::from(&answer));
                if let Some(failure) = answer.failure {
                    break without_score(Outcome::NoAnswer, failure.message);
                }
            }
        }
    };
    Ok(Attempt {
        task: name,
        sample,
        outcome: judgement.outcome,
        score: judgement.score,
        reason: judgement.reason,
        marks: judgement.marks,
        request,
        replies,
        retries,
    })
}

async fn step(
    job: &Arc<Job>,
    task: usize,
    sample: u32,
    replies: &[Reply],
) -> Result<Step, QualifyError> {
    let _judge = job
        .judges
        .acquire()
        .await
        .map_err(|error| QualifyError::new(error.to_string()))?;
    let (job, replies) = (job.clone(), replies.to_vec());
    let stepping = tokio::task::spawn_blocking(move || job.suite.step(task, sample, &replies));
    stepping.await.map_err(internal)?
}

fn without_score(outcome: Outcome, reason: String) -> Judgement {
    Judgement {
        outcome,
        score: 0.0,
        reason: Some(reason),
        marks: std::collections::BTreeMap::new(),
    }
}

fn internal(error: JoinError) -> QualifyError {
    QualifyError::new(format!("internal error: {error}"))
}

#[cfg(test)]
mod tests;
