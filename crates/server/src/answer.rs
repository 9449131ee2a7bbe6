//! All choices of one request: hands them to the engine together, and their updates on as they
//! come.

use std::sync::Arc;

use backstop_engine::GenerationRequest;
use backstop_protocol::{ApiError, Usage};
use backstop_text::{ParserOptions, StreamOptions, TextStream, ToolCallIds};
use futures::future::try_join_all;
use futures::stream::{self, BoxStream, SelectAll, StreamExt};
use tokio::time::{Instant, timeout_at};

use crate::choice::{Choice, ChoiceRules, Counts, Update};
use crate::entropy::random_u128;
use crate::prepare::Job;
use crate::reply;
use crate::sampling;
use crate::server::{InstalledModel, RequestGuard, Server};
use crate::timer::{Arrival, ChoiceTimer};

/// The choices of a request in progress. Dropping it aborts them.
pub(crate) struct Answer {
    updates: SelectAll<BoxStream<'static, Result<Update, ApiError>>>,
    deadline: Instant,
    tally: Tally,
    _guard: RequestGuard,
}

/// A request that was let in, and since when.
pub(crate) struct Admission {
    pub(crate) server: Server,
    pub(crate) model: Arc<InstalledModel>,
    guard: RequestGuard,
    arrived: Instant,
}

impl Admission {
    /// Lets a request in, if the model is ready.
    pub(crate) fn new(server: &Server) -> Result<Self, ApiError> {
        let (model, guard) = server.admit()?;
        Ok(Self {
            server: server.clone(),
            model,
            guard,
            arrived: Instant::now(),
        })
    }

    /// Hands a job to the engine and waits until its first sequence leaves the queue: until then
    /// a failure is an HTTP status, and gateways can go elsewhere.
    pub(crate) async fn start(self, job: &Job) -> Result<Answer, ApiError> {
        let deadline = self.arrived + self.server.config().request_timeout;
        let rules = Arc::new(rules(&self.model, job));
        let submissions =
            (0..job.sequences()).map(|index| self.submit(job, index, Arc::clone(&rules)));
        let mut choices = try_join_all(submissions).await?;
        if let Some(first) = choices.first_mut() {
            match timeout_at(deadline, first.admitted()).await {
                Ok(admitted) => admitted?,
                Err(_) => return Err(reply::deadline_exceeded()),
            }
        }
        let streams = choices.into_iter().map(|choice| {
            let next = async |mut choice: Choice| choice.next().await.map(|item| (item, choice));
            stream::unfold(choice, next).boxed()
        });
        Ok(Answer {
            updates: stream::select_all(streams),
            deadline,
            tally: Tally::new(job),
            _guard: self.guard,
        })
    }

    async fn submit(
        &self,
        job: &Job,
        index: usize,
        rules: Arc<ChoiceRules>,
    ) -> Result<Choice, ApiError> {
        let model = &self.model.served;
        let config = self.server.config();
        let prompt = job.prompt_of(index);
        let choice = (index % job.sampling.choices as usize) as u32;
        let request = GenerationRequest {
            prompt: Arc::clone(&prompt.tokens),
            sampling: sampling::params(&job.sampling, &model.defaults, choice),
            stop: Arc::clone(&prompt.stop),
            priority: if config.allow_priority {
                job.priority
            } else {
                0
            },
            cache_salt: 0,
            queue_timeout: Some(config.queue_timeout),
        };
        let submitted = Instant::now();
        let generation = model
            .engine
            .submit(request)
            .await
            .map_err(|error| reply::not_accepted(&error, job.param))?;
        let times = Arrival {
            arrived: self.arrived.into_std(),
            submitted: submitted.into_std(),
        };
        let timer = ChoiceTimer::new(self.model.metrics.clone(), prompt.tokens.len(), times);
        let text = TextStream::new(Arc::clone(&model.tokenizer), stream_options(job, &rules));
        Ok(Choice::new(index, generation, text, rules, timer)
            .starting_in_reasoning(job.starts_in_reasoning))
    }
}

fn rules(model: &InstalledModel, job: &Job) -> ChoiceRules {
    let named = job.sampling.stop_token_ids.clone();
    let mut hidden_tokens = model.served.eos_token_ids.clone();
    hidden_tokens.extend_from_slice(&named);
    ChoiceRules {
        named_stop_tokens: named,
        hidden_tokens,
        report_tokens: job.sampling.logprobs.is_some(),
        report_stop_tokens: job.sampling.stop_token_logprobs,
    }
}

fn stream_options(job: &Job, rules: &ChoiceRules) -> StreamOptions {
    let parser = job.format.parser(ParserOptions {
        starts_in_reasoning: job.starts_in_reasoning,
        parse_tools: job.parse_tools,
        tool_call_ids: ToolCallIds::from_seed(random_u128()),
    });
    StreamOptions {
        stop: job.sampling.stop.clone(),
        include_stop: job.sampling.include_stop_str_in_output,
        skip_special_tokens: job.sampling.skip_special_tokens,
        hidden_tokens: rules.hidden_tokens.clone(),
        parser,
    }
}

impl Answer {
    /// The next update of any choice; `None` after the last one of all.
    pub(crate) async fn next(&mut self) -> Option<Result<Update, ApiError>> {
        let next = timeout_at(self.deadline, self.updates.next()).await;
        let Ok(next) = next else {
            return Some(Err(reply::deadline_exceeded()));
        };
        if let Some(Ok(update)) = &next {
            self.tally.choices[update.index] = update.counts;
        }
        next
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
        let length = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX);
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
