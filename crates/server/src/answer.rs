//! All choices of one request: hands them to the engine together, and their updates on as they
//! come.

use std::pin::Pin;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use backstop_engine::GenerationRequest;
use backstop_protocol::{ApiError, Usage};
use backstop_text::constraint::{Opening, ReasoningBudget};
use backstop_text::{ParserOptions, StreamOptions, TextStream, ToolCallIds};
use backstop_types::{SharedConstraint, StopConditions};
use futures::future::try_join_all;
use futures::stream::{self, BoxStream, SelectAll, StreamExt};
use serde::Serialize;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use crate::body;
use crate::choice::{Choice, ChoiceRules, Counts, Update};
use crate::constraint;
use crate::entropy::random_u128;
use crate::gate::{Ask, Place};
use crate::keys::Ticket;
use crate::lane::Lane;
use crate::patience::BodyWatch;
use crate::prepare::{self, Job, Preparation, Prompt};
use crate::reply;
use crate::sampling;
use crate::server::{InstalledModel, RequestGuard, Server};
use crate::timer::{Arrival, ChoiceTimer};

/// Names what the answer's schemas say and no grammar can enforce.
const NOT_ENFORCED: HeaderName = HeaderName::from_static("x-backstop-not-enforced");

/// The choices of a request in progress. Dropping it aborts them.
pub(crate) struct Answer {
    updates: SelectAll<BoxStream<'static, Result<Update, ApiError>>>,
    /// One timer for all updates: to begin one for each would take a lock of the runtime's twice
    /// for every token.
    deadline: Pin<Box<Sleep>>,
    tally: Tally,
    /// What the request's schemas say and no grammar enforces.
    not_enforced: Option<String>,
    guard: RequestGuard,
}

/// A request that was let in, and since when.
pub(crate) struct Admission {
    pub(crate) server: Server,
    pub(crate) model: Arc<InstalledModel>,
    guard: RequestGuard,
    arrived: Instant,
}

/// What one sequence of a request needs to be submitted.
struct Submission {
    index: usize,
    rules: Arc<ChoiceRules>,
    place: Place,
}

impl Admission {
    /// Lets a request in, if the model is ready.
    fn new(server: &Server, request: &Request) -> Result<Self, ApiError> {
        let ticket = match request.extensions().get::<Ticket>() {
            Some(ticket) => ticket.clone(),
            // A route that does not count its requests: it has no limits either.
            None => server.anybody().begin()?,
        };
        let (model, guard) = server.admit(ticket)?;
        Ok(Self {
            server: server.clone(),
            model,
            guard,
            arrived: Instant::now(),
        })
    }

    /// Lets a request in, and prepares what its body asks for.
    pub(crate) async fn of_body<T: Send + 'static>(
        server: &Server,
        request: Request,
        prepare: Preparation<T>,
    ) -> Result<(Self, T), ApiError> {
        let admission = Self::new(server, &request)?;
        let prepared = admission.prepare(request, prepare).await?;
        Ok((admission, prepared))
    }

    /// Answers a request that wants tokens counted and none computed. They are taken from its
    /// key's limit like a prompt's. That is known afterwards and may leave a debt, so that there
    /// must be something left of the limit beforehand.
    pub(crate) async fn count_body<T: Send + 'static>(
        server: &Server,
        request: Request,
        count: Preparation<(usize, T)>,
    ) -> Result<T, ApiError> {
        let admission = Self::new(server, &request)?;
        if let Err(error) = admission.guard.ticket.check_tokens() {
            body::discard(request, server.config().max_body_bytes).await;
            return Err(error);
        }
        let (tokens, answer) = admission.prepare(request, count).await?;
        admission.guard.ticket.charge_counted(length(tokens));
        Ok(answer)
    }

    async fn prepare<T: Send + 'static>(
        &self,
        request: Request,
        prepare: Preparation<T>,
    ) -> Result<T, ApiError> {
        let watch = request.extensions().get::<BodyWatch>().cloned();
        let mut body = body::read(&self.server, self.guard.asker(), request).await?;
        if let Some(watch) = watch {
            body = watch.look(body).await?;
        }
        prepare::run(&self.guard, &self.model, body, prepare).await
    }

    /// Hands a job to the engine and waits until its first sequence leaves the queue: until then
    /// a failure is an HTTP status, and gateways can go elsewhere, unless their patience made the
    /// head go out before.
    pub(crate) async fn start(self, job: &Job) -> Result<Answer, ApiError> {
        let deadline = self.arrived + self.server.config().request_timeout;
        let enforced = match &job.constraint {
            Some(request) => Some(constraint::compile(&self.guard, &self.model, request).await?),
            None => None,
        };
        let (grammar, not_enforced) = match enforced {
            Some(enforced) => (Some(enforced.constraint), enforced.not_enforced),
            None => (None, None),
        };
        let constraint = self.within_budget(job, grammar);
        let charge = self.guard.ticket.charge_prompt(job.prompt_tokens())?;
        let rules = Arc::new(rules(&self, job, constraint));
        let submissions = self.enter(job)?.into_iter().enumerate();
        let submissions = submissions.map(|(index, place)| {
            let rules = Arc::clone(&rules);
            self.submit(
                job,
                Submission {
                    index,
                    rules,
                    place,
                },
            )
        });
        let mut choices = try_join_all(submissions).await?;
        charge.keep();
        if let Some(first) = choices.first_mut() {
            match timeout_at(deadline, first.admitted()).await {
                Ok(admitted) => admitted?,
                Err(_) => return Err(self.server.deadline_exceeded()),
            }
        }
        let mut tally = Tally::new(job);
        if let (Some(counts), Some(first)) = (tally.choices.first_mut(), choices.first()) {
            *counts = first.counts();
        }
        let streams = choices.into_iter().map(|choice| {
            let next = async |mut choice: Choice| choice.next().await.map(|item| (item, choice));
            stream::unfold(choice, next).boxed()
        });
        Ok(Answer {
            updates: stream::select_all(streams),
            deadline: Box::pin(sleep_until(deadline)),
            tally,
            not_enforced,
            guard: self.guard,
        })
    }

    /// The grammar, or else nothing, within what the request allows of reasoning.
    fn within_budget(
        &self,
        job: &Job,
        grammar: Option<SharedConstraint>,
    ) -> Option<SharedConstraint> {
        let Some(tokens) = job.reasoning_budget else {
            return grammar;
        };
        let budget = ReasoningBudget {
            tokens,
            tokenizer: Arc::clone(&self.model.served.tokenizer),
            format: job.format,
            opening: job.opening,
            grammar,
        };
        budget.into_constraint()
    }

    /// Places in the queue for all sequences of a job, before the engine is asked.
    fn enter(&self, job: &Job) -> Result<Vec<Place>, ApiError> {
        let caller = self.guard.ticket.caller();
        let settings = caller.settings();
        let ask = Ask {
            tenant: caller.tenant().id,
            tenants: self.server.tenants(),
            lane: match settings.may_choose_priority {
                true => Lane::asked(job.priority, settings.lane),
                false => settings.lane,
            },
            prompt_tokens: (0..job.sequences())
                .map(|index| length(job.prompt_of(index).tokens.len()))
                .collect(),
            max_tokens: job
                .prompts
                .iter()
                .map(|prompt| prompt.stop.max_tokens)
                .max()
                .unwrap_or(0),
        };
        let engine = self.server.occupancy().ok_or_else(ApiError::internal)?;
        self.server.gate().enter(&ask, engine).map_err(|refusal| {
            self.model.metrics.rejected(refusal);
            reply::not_let_in(refusal, self.server.queue_retry_after_s())
        })
    }

    /// When an answer to `prompt` ends. In an outage those that leave it open may be cut short.
    fn stop(&self, job: &Job, prompt: &Prompt) -> Arc<StopConditions> {
        let limits = self.server.gate().limits();
        match limits.default_max_tokens {
            Some(most) if job.sampling.max_tokens.is_none() && prompt.stop.max_tokens > most => {
                let mut stop = StopConditions::clone(&prompt.stop);
                stop.max_tokens = most.max(stop.min_tokens).max(1);
                Arc::new(stop)
            }
            _ => Arc::clone(&prompt.stop),
        }
    }

    async fn submit(&self, job: &Job, submission: Submission) -> Result<Choice, ApiError> {
        let Submission {
            index,
            rules,
            place,
        } = submission;
        let model = &self.model.served;
        let chosen = self.server.config().allow_priority && self.server.keys().is_none();
        let prompt = job.prompt_of(index);
        let tenant = self.guard.ticket.caller().tenant().id;
        let cache_salt = job.sampling.cache_salt.as_deref();
        let choice = (index % job.sampling.choices as usize) as u32;
        let request = GenerationRequest {
            prompt: Arc::clone(&prompt.tokens),
            sampling: sampling::params(
                &job.sampling,
                &model.defaults,
                choice,
                prompt.forced.clone().or_else(|| rules.constraint.clone()),
            ),
            stop: self.stop(job, prompt),
            priority: if chosen {
                job.priority
            } else {
                place.priority()
            },
            tenant,
            cache_salt: self.server.cache_salts().salt(tenant, cache_salt),
            queue_timeout: Some(self.server.queue_timeout()),
        };
        let submitted = Instant::now();
        let generation = model.engine.submit(request).await.map_err(|error| {
            reply::not_accepted(&error, job.param, self.server.queue_retry_after_s())
        })?;
        let times = Arrival {
            arrived: self.arrived.into_std(),
            submitted: submitted.into_std(),
        };
        let tenant = Arc::clone(self.guard.ticket.caller().tenant());
        let timer = ChoiceTimer::new(self.model.metrics.clone(), tenant, place, times);
        let text = TextStream::new(Arc::clone(&model.tokenizer), stream_options(job, &rules));
        Ok(Choice::new(index, generation, text, rules, timer)
            .starting_in_reasoning(job.opening == Opening::Reasoning))
    }
}

fn length(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

fn rules(admission: &Admission, job: &Job, constraint: Option<SharedConstraint>) -> ChoiceRules {
    let (server, model) = (&admission.server, &admission.model);
    let named = job.sampling.stop_token_ids.clone();
    let mut hidden_tokens = model.served.eos_token_ids.clone();
    let ends = job
        .prompts
        .first()
        .map(|prompt| &prompt.stop.stop_token_ids);
    hidden_tokens.extend(ends.into_iter().flatten());
    ChoiceRules {
        server: server.clone(),
        named_stop_tokens: named,
        hidden_tokens,
        report_tokens: job.sampling.logprobs.is_some(),
        report_token_ids: job.return_token_ids,
        constraint,
        report_stop_tokens: job.sampling.stop_token_logprobs,
    }
}

fn stream_options(job: &Job, rules: &ChoiceRules) -> StreamOptions {
    let parser = job.format.parser(ParserOptions {
        opening: job.opening,
        parse_tools: job.parse_tools,
        tools: job.tools.clone(),
        tool_call_ids: ToolCallIds::from_seed(random_u128()),
    });
    StreamOptions {
        stop: job.sampling.stop.clone(),
        min_tokens: job.sampling.min_tokens,
        include_stop: job.sampling.include_stop_str_in_output,
        skip_special_tokens: job.sampling.skip_special_tokens,
        hidden_tokens: rules.hidden_tokens.clone(),
        parser,
    }
}

impl Answer {
    /// The next update of any choice; `None` after the last one of all.
    pub(crate) async fn next(&mut self) -> Option<Result<Update, ApiError>> {
        let next = tokio::select! {
            biased;
            next = self.updates.next() => next,
            () = &mut self.deadline => return Some(Err(self.guard.server.deadline_exceeded())),
        };
        if let Some(Ok(update)) = &next {
            self.tally.choices[update.index] = update.counts;
        }
        next
    }

    /// The server that gives it.
    pub(crate) fn server(&self) -> &Server {
        &self.guard.server
    }

    /// Says in a response what the answer is not held to.
    pub(crate) fn annotation(&self) -> impl FnOnce(Response) -> Response + use<> {
        let note = self.not_enforced.as_deref().map(HeaderValue::from_str);
        move |mut response| {
            if let Some(Ok(note)) = note {
                response.headers_mut().insert(NOT_ENFORCED, note);
            }
            response
        }
    }

    /// The response that gives all of it.
    pub(crate) fn reply(&self, whole: &impl Serialize) -> Response {
        self.annotation()(reply::json(StatusCode::OK, whole))
    }

    /// Token counts over all choices so far.
    pub(crate) fn usage(&self) -> Usage {
        self.tally.usage()
    }
}

/// Adds up token counts.
#[derive(Debug)]
struct Tally {
    /// Tokens of each prompt.
    prompts: Vec<u32>,
    /// Counts of each choice, by index.
    choices: Vec<Counts>,
}

impl Tally {
    fn new(job: &Job) -> Self {
        Self {
            prompts: job
                .prompts
                .iter()
                .map(|prompt| length(prompt.tokens.len()))
                .collect(),
            choices: vec![Counts::default(); job.sequences()],
        }
    }

    /// A prompt counts once, however many choices answer it.
    fn usage(&self) -> Usage {
        let choices_per_prompt = (self.choices.len() / self.prompts.len().max(1)).max(1);
        let parts = self.choices.iter().enumerate().map(|(index, counts)| {
            let first = index % choices_per_prompt == 0;
            let prompt = if first {
                self.prompts[index / choices_per_prompt]
            } else {
                0
            };
            let cached = if first { counts.cached } else { 0 };
            Usage::new(prompt, cached, counts.generated, counts.reasoning)
        });
        parts.reduce(Usage::plus).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_counts_once_and_choices_each() {
        let counts = |cached, generated, reasoning| Counts {
            cached,
            generated,
            reasoning,
        };
        let tally = Tally {
            prompts: vec![10, 20],
            choices: vec![
                counts(4, 1, 0),
                counts(9, 2, 1),
                counts(5, 3, 0),
                counts(9, 4, 2),
            ],
        };
        assert_eq!(tally.usage(), Usage::new(30, 9, 10, 3));
    }
}
