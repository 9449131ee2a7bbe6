//! `POST /v1/decisions`: how likely the model is to answer questions with each of the labels that it is
//! offered. Nothing is sampled: each label is a sequence of its own whose tokens are known, and of which
//! the engine reports the log-probabilities.

mod forced;
mod question;

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use backstop_protocol::{
    ApiError, Decision, DecisionQuestion, SamplingFields, Usage, ValidChatRequest,
    ValidDecisionRequest,
};
use backstop_types::{StopConditions, TokenId};
use serde_json::json;

use crate::answer::Answer;
use crate::endpoint::{Endpoint, Task};
use crate::job::{Job, Prompt};
use crate::model::ServedModel;
use crate::server::Server;
use crate::{chat, prepare, reply};

/// The field that errors name.
const PARAM: &str = "input";

/// Questions that are put to the model.
pub(crate) struct Decisions {
    model_name: String,
    questions: Vec<Asked>,
    /// Labels of all questions.
    labels: usize,
}

/// A question, whose labels follow those of the questions before it.
struct Asked {
    question: DecisionQuestion,
    prompt_tokens: u32,
    /// How many tokens each label has.
    label_lengths: Vec<usize>,
}

/// What is known of a label.
#[derive(Clone, Debug, Default)]
struct Label {
    tokens: usize,
    /// The sum over its tokens.
    likelihood: f64,
    cached: u32,
}

impl Endpoint for Decisions {
    fn prepare(server: &Server, model: &ServedModel, body: &[u8]) -> Result<Task<Self>, ApiError> {
        prepare(server, model, ValidDecisionRequest::from_bytes(body)?)
    }

    async fn respond(self, answer: Answer) -> Result<Response, ApiError> {
        let labels = rate(answer, self.labels).await?;
        self.decide(&labels)
    }
}

async fn rate(mut answer: Answer, count: usize) -> Result<Vec<Label>, ApiError> {
    let mut labels = vec![Label::default(); count];
    while let Some(update) = answer.next().await {
        let update = update?;
        let label = &mut labels[update.index];
        label.cached = update.counts.cached;
        for logprobs in update
            .tokens
            .iter()
            .filter_map(|token| token.logprobs.as_ref())
        {
            label.tokens += 1;
            label.likelihood += f64::from(logprobs.logprob);
        }
    }
    Ok(labels)
}

impl Decisions {
    fn decide(self, labels: &[Label]) -> Result<Response, ApiError> {
        let mut rest = labels;
        let mut usage = Usage::default();
        let mut answers = Vec::with_capacity(self.questions.len());
        for asked in self.questions {
            let own;
            (own, rest) = rest.split_at(asked.label_lengths.len());
            let lengths = own.iter().map(|label| label.tokens);
            if !lengths.eq(asked.label_lengths) {
                tracing::error!("the engine left tokens of a known answer without a rating");
                return Err(ApiError::internal());
            }
            let cached = own.first().map_or(0, |label| label.cached);
            usage = usage.plus(Usage::new(asked.prompt_tokens, cached, 0, 0));
            let likelihoods: Vec<f64> = own.iter().map(|label| label.likelihood).collect();
            answers.push(question::answer(asked.question, &likelihoods));
        }
        let decision = Decision::new(&self.model_name, answers, usage);
        Ok(reply::json(StatusCode::OK, &decision))
    }
}

fn prepare(
    server: &Server,
    model: &ServedModel,
    mut request: ValidDecisionRequest,
) -> Result<Task<Decisions>, ApiError> {
    let model_name = prepare::resolve_model_name(model, request.model.take())?;
    let sampling = SamplingFields {
        temperature: Some(0.0),
        logprobs: Some(0),
        stop_token_logprobs: true,
        cache_salt: request.cache_salt.take(),
        ..SamplingFields::default()
    };
    let (mut prompts, mut questions, mut together) = (Vec::new(), Vec::new(), 0);
    for question in request.questions {
        let tokens = prompt_tokens(server, model, &question::prompt(&request.input, &question))?;
        together += tokens.len();
        prepare::check_together(model, together, PARAM)?;
        let labels = question::labels(&question.kind).into_iter();
        let labels = labels.map(|label| label_tokens(model, &label));
        let labels = labels.collect::<Result<Vec<_>, ApiError>>()?;
        let longest = labels.iter().map(Vec::len).max().unwrap_or(1);
        let fields = SamplingFields {
            max_tokens: u32::try_from(longest).ok(),
            ..SamplingFields::default()
        };
        let prompt = prepare::fit(model, &fields, tokens, PARAM)?;
        questions.push(Asked {
            question,
            prompt_tokens: prompt.length(),
            label_lengths: labels.iter().map(Vec::len).collect(),
        });
        prompts.extend(labels.into_iter().map(|label| answered(&prompt, label)));
    }
    let job = Job::of_texts(prompts, sampling, request.priority, PARAM)?;
    let endpoint = Decisions {
        model_name,
        questions,
        labels: job.sequences(),
    };
    Ok(Task::generate(job, endpoint))
}

/// The prompt behind which the model's answer begins, without reasoning.
fn prompt_tokens(
    server: &Server,
    model: &ServedModel,
    text: &str,
) -> Result<Vec<TokenId>, ApiError> {
    let messages = vec![
        json!({"role": "user", "content": text}),
        json!({"role": "assistant", "content": ""}),
    ];
    let mut chat = ValidChatRequest {
        add_generation_prompt: false,
        continue_final_message: true,
        reasoning_effort: Some("none"),
        ..ValidChatRequest::new(messages)
    };
    let tokens = chat::tokenize(server, model, &mut chat, false, PARAM);
    tokens.map_err(|error| match error.param.as_deref() {
        Some("continue_final_message") => {
            let explanation = "the model's chat template does not show where an answer begins";
            ApiError::unsupported_field(PARAM, explanation)
        }
        _ => error,
    })
}

/// The tokens of a label, as those of a text of its own.
fn label_tokens(model: &ServedModel, label: &str) -> Result<Vec<TokenId>, ApiError> {
    let tokens = model.tokenizer.encode(label, false);
    let tokens = tokens.ok().filter(|tokens| !tokens.is_empty());
    tokens.ok_or_else(ApiError::internal)
}

/// A prompt whose answer is known.
fn answered(prompt: &Prompt, label: Vec<TokenId>) -> Prompt {
    Prompt {
        tokens: Arc::clone(&prompt.tokens),
        stop: Arc::new(StopConditions {
            max_tokens: u32::try_from(label.len()).unwrap_or(u32::MAX),
            min_tokens: 0,
            stop_token_ids: Vec::new(),
        }),
        forced: Some(forced::forced(label)),
    }
}
