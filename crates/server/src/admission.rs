//! Hands the sequences of a job to the engine: first to the gate before it, then to its queue.

use std::sync::Arc;

use backstop_engine::GenerationRequest;
use backstop_protocol::ApiError;
use backstop_text::constraint::Opening;
use backstop_text::{ParserOptions, StreamOptions, TextStream, ToolCallIds};
use backstop_types::{SharedConstraint, StopConditions};
use futures::future::try_join_all;
use tokio::time::Instant;

use crate::choice::{Choice, ChoiceRules};
use crate::entropy::random_u128;
use crate::gate::{Ask, QueuePlace};
use crate::in_flight::InFlight;
use crate::job::{Job, Prompt};
use crate::keys::Ticket;
use crate::lane::Lane;
use crate::timer::{Arrival, ChoiceTimer};
use crate::{reply, sampling};

/// Places in the queue for all sequences of a job, before the engine is asked.
pub(crate) fn enter(request: &InFlight, job: &Job) -> Result<Vec<QueuePlace>, ApiError> {
    let server = &request.guard.server;
    let caller = request.guard.ticket.caller();
    let lengths = (0..job.sequences()).map(|index| job.prompt_of(index).length());
    let longest_answers = job.prompts.iter().map(|prompt| prompt.stop.max_tokens);
    let ask = Ask {
        tenant: caller.tenant().id,
        tenants: server.tenants(),
        lane: lane(&request.guard.ticket, job.priority),
        prompt_tokens: lengths.collect(),
        max_tokens: longest_answers.max().unwrap_or(0),
    };
    let engine = server.occupancy().ok_or_else(ApiError::internal)?;
    server.gate().enter(&ask, engine).map_err(|refusal| {
        request.model.metrics.rejected(refusal);
        reply::not_let_in(refusal, server.queue_retry_after_s())
    })
}

/// The lane of a request that asks for a priority.
pub(crate) fn lane(ticket: &Ticket, priority: i32) -> Lane {
    let settings = ticket.caller().settings();
    match settings.may_choose_priority {
        true => Lane::asked(priority, settings.lane),
        false => settings.lane,
    }
}

/// Hands all sequences of a job to the engine together, each with its place.
pub(crate) async fn submit(
    request: &InFlight,
    job: &Job,
    constraint: Option<SharedConstraint>,
    places: Vec<QueuePlace>,
) -> Result<Vec<Choice>, ApiError> {
    let rules = Arc::new(rules(request, job, constraint));
    let submission = Submission {
        request,
        job,
        rules,
    };
    let places = places.into_iter().enumerate();
    try_join_all(places.map(|(index, place)| submission.submit(index, place))).await
}

fn rules(request: &InFlight, job: &Job, constraint: Option<SharedConstraint>) -> ChoiceRules {
    let mut hidden_tokens = request.model.served.eos_token_ids.clone();
    let first = job.prompts.first();
    hidden_tokens.extend(first.iter().flat_map(|prompt| &prompt.stop.stop_token_ids));
    ChoiceRules {
        server: request.guard.server.clone(),
        named_stop_tokens: job.sampling.stop_token_ids.clone(),
        hidden_tokens,
        report_tokens: job.sampling.logprobs.is_some(),
        report_token_ids: job.return_token_ids,
        constraint,
        report_stop_tokens: job.sampling.stop_token_logprobs,
    }
}

/// What the sequences of a request have in common.
struct Submission<'a> {
    request: &'a InFlight,
    job: &'a Job,
    rules: Arc<ChoiceRules>,
}

impl Submission<'_> {
    /// Hands one sequence to the engine.
    async fn submit(&self, index: usize, place: QueuePlace) -> Result<Choice, ApiError> {
        let (request, job) = (self.request, self.job);
        let InFlight { guard, model, .. } = request;
        let wanted = self.wanted(index, &place);
        let submitted = Instant::now();
        let generation = model.served.engine.submit(wanted).await.map_err(|error| {
            reply::not_accepted(&error, job.param, guard.server.queue_retry_after_s())
        })?;
        let times = Arrival {
            arrived: request.arrived.into_std(),
            submitted: submitted.into_std(),
        };
        let timer = ChoiceTimer::new(model.metrics.clone(), guard, place, times);
        let rules = Arc::clone(&self.rules);
        Ok(Choice::new(index, generation, self.text(), rules, timer)
            .starting_in_reasoning(job.opening == Opening::Reasoning))
    }

    fn wanted(&self, index: usize, place: &QueuePlace) -> GenerationRequest {
        let (job, server) = (self.job, &self.request.guard.server);
        let prompt = job.prompt_of(index);
        let choice = (index % job.sampling.choices as usize) as u32;
        let constraint = prompt
            .forced
            .clone()
            .or_else(|| self.rules.constraint.clone());
        let defaults = &self.request.model.served.defaults;
        let chosen = server.config().allow_priority && server.keys().is_none();
        let tenant = self.request.guard.ticket.caller().tenant().id;
        let cache_salt = job.sampling.cache_salt.as_deref();
        GenerationRequest {
            prompt: Arc::clone(&prompt.tokens),
            sampling: sampling::params(&job.sampling, defaults, choice, constraint),
            stop: self.stop(prompt),
            priority: match chosen {
                true => job.priority,
                false => place.priority(),
            },
            tenant,
            cache_salt: server.cache_salts().salt(tenant, cache_salt),
            queue_timeout: Some(server.queue_timeout()),
        }
    }

    /// When an answer to `prompt` ends. In an outage those that leave it open may be cut short.
    fn stop(&self, prompt: &Prompt) -> Arc<StopConditions> {
        let limits = self.request.guard.server.gate().limits();
        let is_open = self.job.sampling.max_tokens.is_none();
        match limits.default_max_tokens {
            Some(most) if is_open && prompt.stop.max_tokens > most => {
                let mut stop = StopConditions::clone(&prompt.stop);
                stop.max_tokens = most.max(stop.min_tokens).max(1);
                Arc::new(stop)
            }
            _ => Arc::clone(&prompt.stop),
        }
    }

    /// What makes text of an answer's tokens.
    fn text(&self) -> TextStream {
        let (job, model) = (self.job, &self.request.model.served);
        let parser = job.format.parser(ParserOptions {
            opening: job.opening,
            parse_tools: job.parse_tools,
            tools: job.tools.clone(),
            tool_call_ids: ToolCallIds::from_seed(random_u128()),
        });
        let options = StreamOptions {
            stop: job.sampling.stop.clone(),
            min_tokens: job.sampling.min_tokens,
            include_stop: job.sampling.include_stop_str_in_output,
            skip_special_tokens: job.sampling.skip_special_tokens,
            hidden_tokens: self.rules.hidden_tokens.clone(),
            parser,
        };
        TextStream::new(Arc::clone(&model.tokenizer), options)
    }
}
