//! Runs suites on two servers in turns, so that whatever happens meanwhile happens to both: some tasks on the one, the same
//! on the other, and so on. Each leaves a directory of results, as if it had been asked alone.

use std::collections::HashSet;
use std::sync::Arc;

use backstop_client::Endpoint;

use crate::QualifyError;
use crate::args::SuiteArgs;
use crate::qualification::{describe, measures, task_count};
use crate::record::{Attempt, Outcome};
use crate::runner::{self, Asking, Job};
use crate::store::{Answers, Directory};
use crate::subject;
use crate::suites::{self, Chosen};

/// Tasks of a turn, at least: fewer would have each server wait for the other's slowest answer too often.
const TURN_TASKS_MIN: usize = 10;

/// Runs the suites on both; what is there from an earlier run is kept.
pub(crate) async fn run(both: &[SuiteArgs; 2]) -> Result<(), QualifyError> {
    let [a, b] = both;
    let (a, chosen_a) = Server::open(a).await?;
    let (b, chosen_b) = Server::open(b).await?;
    let mut unanswered = 0;
    for (one, other) in chosen_a.into_iter().zip(chosen_b) {
        unanswered += suite(&[&a, &b], [one, other]).await?;
    }
    if unanswered > 0 {
        tracing::warn!("{unanswered} attempts have no answer; the same command asks them again");
    }
    Ok(())
}

/// One suite on both. Says how many attempts have no answer.
async fn suite(servers: &[&Server<'_>; 2], chosen: [Chosen; 2]) -> Result<usize, QualifyError> {
    let [one, other] = chosen;
    let mut sides = [Side::open(servers[0], one)?, Side::open(servers[1], other)?];
    let name = sides[0].job.suite.name().to_owned();
    let tasks = sides.iter().map(|side| side.tasks).max().unwrap_or(0);
    let turn = TURN_TASKS_MIN.max(2 * sides[0].job.asking.concurrency);
    tracing::info!("{name}: {tasks} tasks, {turn} on each server in turn");
    let mut asked = 0;
    for number in 0_usize.. {
        if asked >= tasks {
            break;
        }
        asked = tasks.min(asked + turn);
        // Who begins takes turns as well.
        for side in [number % 2, 1 - number % 2] {
            sides[side].ask(asked).await?;
        }
        tracing::info!("{name}: {asked} of {tasks} tasks");
    }
    let mut unanswered = 0;
    for (side, server) in sides.iter().zip(servers) {
        let measures = measures(side.job.suite.as_ref(), &side.attempts);
        server.directory.write_measures(&name, &measures)?;
        let is_open = |attempt: &&Attempt| attempt.outcome == Outcome::NoAnswer;
        unanswered += side.attempts.iter().filter(is_open).count();
    }
    Ok(unanswered)
}

/// A server, and where its results go.
struct Server<'a> {
    args: &'a SuiteArgs,
    endpoint: Endpoint,
    directory: Directory,
}

impl<'a> Server<'a> {
    async fn open(args: &'a SuiteArgs) -> Result<(Self, Vec<Chosen>), QualifyError> {
        let root = args
            .into
            .as_deref()
            .ok_or_else(|| QualifyError::new("--into is needed"))?;
        let endpoint = subject::endpoint(&args.endpoint)?;
        let subject = subject::meet(&endpoint, &args.endpoint).await?;
        let chosen = suites::choose(args, &subject)?;
        let directory = Directory::open(root, &describe(&chosen, args, subject))?;
        let server = Self {
            args,
            endpoint,
            directory,
        };
        Ok((server, chosen))
    }
}

/// A suite on one of the two.
struct Side {
    job: Arc<Job>,
    tasks: usize,
    answers: Answers,
    attempts: Vec<Attempt>,
    /// What has been asked, whether it was answered or not.
    done: HashSet<(String, u32)>,
}

impl Side {
    fn open(server: &Server<'_>, chosen: Chosen) -> Result<Self, QualifyError> {
        let asking = Asking::new(server.endpoint.clone(), server.args, &chosen.sampling);
        let tasks = task_count(chosen.suite.as_ref(), server.args);
        let job = Job::new(asking, Arc::from(chosen.suite));
        let (answers, mut attempts) = server.directory.answers(job.suite.name(), 1)?;
        attempts.retain(|attempt| attempt.outcome != Outcome::NoAnswer);
        let done = attempts.iter().map(key).collect();
        Ok(Self {
            job,
            tasks,
            answers,
            attempts,
            done,
        })
    }

    /// Asks what has not been asked of the tasks up to this one.
    async fn ask(&mut self, up_to: usize) -> Result<(), QualifyError> {
        let Self {
            job,
            tasks,
            answers,
            attempts,
            done,
        } = self;
        let before = attempts.len();
        let asked = runner::run(job, up_to.min(*tasks), done, |attempt| {
            answers.append(&attempt)?;
            attempts.push(attempt);
            Ok(())
        });
        let asked = asked.await;
        answers.sync()?;
        done.extend(attempts[before..].iter().map(key));
        asked
    }
}

fn key(attempt: &Attempt) -> (String, u32) {
    (attempt.task.clone(), attempt.sample)
}
