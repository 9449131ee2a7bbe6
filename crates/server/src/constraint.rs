//! Constrained answers: from what a request asks for to the grammar that its answers follow.

mod refusal;
mod request;

use std::sync::{Arc, OnceLock};

use backstop_protocol::ApiError;
use backstop_text::ConstraintFactory;
use backstop_text::constraint::{
    AnswerShape, Compiled, ConstraintError, ConstraintReason, GrammarPart, LeftOut, ReasoningBudget,
};
use backstop_types::SharedConstraint;

pub(crate) use self::request::{ConstraintRequest, of_chat};
use crate::in_flight::InFlight;
use crate::job::Job;
use crate::model::{InstalledModel, ServedModel};
use crate::trial::{GrammarWorker, TrialFailure, Trials};
use crate::work::{self, Cancelled};

/// Compiles grammars for a model, once its vocabulary has been sorted.
#[derive(Debug)]
pub(crate) struct Constraints {
    /// `None` if the vocabulary cannot be constrained.
    factory: OnceLock<Option<ConstraintFactory>>,
    trials: Trials,
}

/// Why there is no grammar.
enum Failure {
    /// The request is at fault.
    Refused(ConstraintError),
    /// The server is.
    Busy(std::io::Error),
}

impl Constraints {
    pub(crate) fn new(worker: Option<GrammarWorker>) -> Self {
        Self {
            factory: OnceLock::new(),
            trials: Trials::new(worker),
        }
    }

    /// Does what the first constrained request would have to wait for.
    pub(crate) fn warm_up(&self, model: &ServedModel) {
        if let Some(factory) = self.factory(model) {
            self.trials.warm_up(factory);
        }
    }

    /// Tries and compiles a grammar, as long as somebody is `waiting` for it. Blocks the thread.
    fn compile(
        &self,
        model: &ServedModel,
        shape: &AnswerShape,
        waiting: &dyn Fn() -> bool,
    ) -> Result<Compiled, Failure> {
        let whole = |reason| {
            Failure::Refused(ConstraintError {
                part: GrammarPart::Whole,
                reason,
                place: None,
            })
        };
        let factory = self.factory(model);
        let factory = factory.ok_or_else(|| whole(ConstraintReason::Unavailable))?;
        if let Some(found) = factory.find(shape) {
            return Ok(found);
        }
        ConstraintFactory::check(shape).map_err(Failure::Refused)?;
        if shape.is_foreign() {
            let tried = self.trials.run(factory, shape, waiting);
            tried.map_err(|failure| match failure {
                TrialFailure::TooMuch | TrialFailure::Abandoned => {
                    whole(ConstraintReason::TooComplex)
                }
                TrialFailure::Unavailable(error) => Failure::Busy(error),
            })?;
        }
        factory.compile_with_notes(shape).map_err(Failure::Refused)
    }

    /// The factory; whoever comes first makes it, and all others wait.
    fn factory(&self, model: &ServedModel) -> Option<&ConstraintFactory> {
        let make = || {
            let factory = ConstraintFactory::new(
                Arc::clone(&model.tokenizer),
                model.chat_format,
                &model.eos_token_ids,
                model.vocab_size as usize,
            );
            factory
                .inspect_err(|_| {
                    tracing::warn!("this vocabulary does not allow constrained output")
                })
                .ok()
        };
        self.factory.get_or_init(make).as_ref()
    }
}

/// What the answers of a job follow: the grammar that was asked for, within what the request allows of
/// reasoning.
pub(crate) async fn of_job(request: &InFlight, job: &Job) -> Result<Enforced, ApiError> {
    let mut enforced = match &job.constraint {
        Some(asked) => compile(request, asked).await?,
        None => Enforced::default(),
    };
    if let Some(tokens) = job.reasoning_budget {
        let budget = ReasoningBudget {
            tokens,
            tokenizer: Arc::clone(&request.model.served.tokenizer),
            format: job.format,
            opening: job.opening,
            grammar: enforced.constraint,
        };
        enforced.constraint = budget.into_constraint();
    }
    Ok(enforced)
}

/// Compiles a grammar, away from the threads that serve streams.
async fn compile(request: &InFlight, asked: &ConstraintRequest) -> Result<Enforced, ApiError> {
    let (model, shape) = (Arc::clone(&request.model), Arc::clone(&asked.shape));
    let compile = move |cancelled: &Cancelled| {
        let waiting = || !cancelled.is_set();
        let InstalledModel {
            served,
            constraints,
            ..
        } = &*model;
        constraints.compile(served, &shape, &waiting)
    };
    let compiled = work::grammar(&request.guard, compile).await?;
    let compiled = compiled.map_err(|failure| match failure {
        Failure::Refused(error) => refusal::of(asked, error),
        Failure::Busy(error) => {
            tracing::error!(%error, "no process can try grammars");
            request.guard.server.deadline_exceeded()
        }
    })?;
    let note = |left_out: &LeftOut| format!("{} {}", asked.path(left_out.part), left_out.keyword);
    let notes: Vec<String> = compiled.left_out.iter().map(note).collect();
    Ok(Enforced {
        constraint: Some(compiled.constraint),
        not_enforced: Some(notes.join(", ")).filter(|notes| !notes.is_empty()),
    })
}

/// What answers are held to, and what of the request they are not.
#[derive(Debug, Default)]
pub(crate) struct Enforced {
    /// Absent where anything may be said.
    pub(crate) constraint: Option<SharedConstraint>,
    /// Paths of schemas, each with a keyword. Nothing of it is the client's own words.
    pub(crate) not_enforced: Option<String>,
}
