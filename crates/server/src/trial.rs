//! Tries what requests wrote as grammars before this process compiles them. Compiling can recurse
//! without end, or take all memory, and nothing can stop it; so it happens first in a process that
//! may end by it, with limits that the operating system enforces.

mod worker;

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backstop_text::ConstraintFactory;
use backstop_text::constraint::AnswerShape;

use self::worker::Worker;

/// Processes at once, of which each has the vocabulary in memory: so many turns there are at trying
/// grammars (`work::grammar`).
pub(crate) const WORKERS_MAX: usize = 2;
/// How long a trial may take, on a machine that has better things to do. What it may compute is
/// limited by the worker itself.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Trials after which a worker is replaced: what the library leaves behind adds up.
const TRIALS_MAX: usize = 1000;

/// The program that tries grammars. It reads lines: first a [`Recipe`](backstop_text::constraint::Recipe) and then one
/// [`AnswerShape`] after the other, both as JSON, and answers each with a line when it is done with
/// it. What it makes of them does not matter, only that it lives.
#[derive(Clone, Debug)]
pub struct GrammarWorker {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// Why a grammar was not tried, or did not stand the trial.
#[derive(Debug)]
pub(crate) enum TrialFailure {
    /// It ended the process, or took too long.
    TooMuch,
    /// Nobody waits for it any more.
    Abandoned,
    /// There is no process to try it.
    Unavailable(io::Error),
}

/// The processes in which grammars are tried.
#[derive(Debug, Default)]
pub(crate) struct Trials {
    worker: Option<GrammarWorker>,
    idle: Mutex<Vec<Worker>>,
}

impl Trials {
    /// Without a worker, nothing is tried.
    pub(crate) fn new(worker: Option<GrammarWorker>) -> Self {
        Self {
            worker,
            ..Self::default()
        }
    }

    /// Starts a worker before anybody waits for it.
    pub(crate) fn warm_up(&self, factory: &ConstraintFactory) {
        let Some(program) = &self.worker else {
            return;
        };
        match Worker::start(program, factory, &|| true) {
            Ok(worker) => self.keep(worker),
            Err(failure) => tracing::warn!(?failure, "no process can try grammars"),
        }
    }

    /// Tries a grammar. Blocks the thread until it is clear whether it can be compiled within the
    /// limits, or until nobody is `waiting` any more.
    pub(crate) fn run(
        &self,
        factory: &ConstraintFactory,
        shape: &AnswerShape,
        waiting: &dyn Fn() -> bool,
    ) -> Result<(), TrialFailure> {
        let Some(program) = &self.worker else {
            return Ok(());
        };
        let idle = self.idle().pop();
        let mut worker = match idle {
            Some(worker) => worker,
            None => Worker::start(program, factory, waiting)?,
        };
        let line = serde_json::to_string(shape).map_err(io::Error::from)?;
        let tried = worker.answers(line, TRIAL_TIMEOUT, waiting);
        match &tried {
            Ok(()) => self.keep(worker),
            Err(failure) => {
                let end = worker.end();
                tracing::warn!(?failure, end, "a grammar was given up in its trial");
            }
        }
        tried
    }

    /// Keeps a worker for the next trial, unless it is worn out or one too many.
    fn keep(&self, worker: Worker) {
        let mut idle = self.idle();
        if worker.trials < TRIALS_MAX && idle.len() < WORKERS_MAX {
            idle.push(worker);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Worker>> {
        // Every change is complete before anything can panic.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<io::Error> for TrialFailure {
    fn from(error: io::Error) -> Self {
        Self::Unavailable(error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use backstop_text::constraint::{Opening, TextShape};
    use backstop_text::{Tokenizer, chat_format};

    use super::*;

    const DEMO: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../models/demo/tokenizer.json"
    );

    fn trials(script: &str) -> Trials {
        Trials::new(Some(GrammarWorker {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
        }))
    }

    fn factory() -> ConstraintFactory {
        let tokenizer = Arc::new(Tokenizer::from_file(DEMO).unwrap());
        ConstraintFactory::new(tokenizer, chat_format("plain").unwrap(), &[4084], 4096).unwrap()
    }

    fn shape(pattern: &str) -> AnswerShape {
        AnswerShape {
            opening: Opening::Turn,
            text: Some(TextShape::Regex(pattern.to_owned())),
            calls: None,
        }
    }

    #[test]
    fn a_worker_that_lives_is_used_again_and_one_that_dies_is_replaced() {
        let trials = trials(
            "read recipe; echo done; while read shape; do case $shape in *die*) exit 1;; esac; echo done; done",
        );
        let factory = factory();
        let run = |pattern: &str| trials.run(&factory, &shape(pattern), &|| true);
        let worker = || {
            let idle = trials.idle();
            idle.first().map(|worker| worker.child.id())
        };
        run("a").unwrap();
        let first = worker();
        run("b").unwrap();
        assert!(first.is_some() && worker() == first);
        assert!(matches!(run("die"), Err(TrialFailure::TooMuch)));
        assert_eq!(worker(), None);
        run("c").unwrap();
        assert_eq!(trials.idle().len(), 1);
    }

    #[test]
    fn a_trial_ends_when_nobody_waits_for_it() {
        let trials = trials("read recipe; echo done; read shape; exec sleep 600");
        let looks = AtomicUsize::new(0);
        let waiting = || looks.fetch_add(1, Ordering::Relaxed) < 3;
        let tried = trials.run(&factory(), &shape("a"), &waiting);
        assert!(matches!(tried, Err(TrialFailure::Abandoned)));
        assert!(trials.idle().is_empty());
    }

    #[test]
    fn without_a_process_nothing_is_said_of_the_grammar() {
        for trials in [
            trials("exit 1"),
            Trials::new(Some(GrammarWorker {
                program: "/nowhere/at/all".into(),
                arguments: Vec::new(),
            })),
        ] {
            let tried = trials.run(&factory(), &shape("a"), &|| true);
            assert!(
                matches!(tried, Err(TrialFailure::Unavailable(_))),
                "{tried:?}"
            );
        }
    }
}
