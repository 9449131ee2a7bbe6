//! From a body to a job for the engine.

use std::sync::Arc;

use backstop_protocol::ollama::{
    AnswerEnd, AnswerForm, AnswerLines, DoneReason, OllamaChat, OllamaLoad, OllamaTask, OllamaText,
};
use backstop_protocol::{ApiError, SamplingFields};
use backstop_types::TokenId;

use super::answer::Shape;
use super::models::{resolve_name, thinks};
use crate::chat;
use crate::completions;
use crate::model::ServedModel;
use crate::prepare::{self, Job};
use crate::server::Server;

/// The field that holds a conversation.
const MESSAGES: &str = "messages";
/// The field that holds a prompt.
const PROMPT: &str = "prompt";
/// The field that holds the tokens before a prompt.
const CONTEXT: &str = "context";

/// A request, ready to be answered.
pub(super) enum Prepared {
    /// There is nothing to compute.
    Loaded {
        lines: AnswerLines,
        end: AnswerEnd,
    },
    Answer(Box<Asked>),
}

/// A request, ready for the engine.
pub(super) struct Asked {
    pub(super) job: Job,
    pub(super) shape: Shape,
    pub(super) streams: bool,
}

pub(super) fn prepare(
    server: &Server,
    model: &ServedModel,
    task: OllamaTask,
    form: AnswerForm,
) -> Result<Prepared, ApiError> {
    let asked = match task {
        OllamaTask::Load(load) => return loaded(server, model, load, form),
        OllamaTask::Chat(asked) => prepare_chat(server, model, *asked, form)?,
        OllamaTask::Text(asked) => prepare_text(server, model, *asked)?,
    };
    Ok(Prepared::Answer(Box::new(asked)))
}

fn loaded(
    server: &Server,
    model: &ServedModel,
    load: OllamaLoad,
    form: AnswerForm,
) -> Result<Prepared, ApiError> {
    let lines = AnswerLines {
        model: resolve_name(server, model, load.model)?,
        form,
    };
    let end = AnswerEnd {
        reason: match load.unload {
            true => DoneReason::Unload,
            false => DoneReason::Load,
        },
        metrics: None,
        context: None,
    };
    Ok(Prepared::Loaded { lines, end })
}

fn prepare_chat(
    server: &Server,
    model: &ServedModel,
    asked: OllamaChat,
    form: AnswerForm,
) -> Result<Asked, ApiError> {
    let OllamaChat {
        mut chat,
        max_tokens,
        must_think,
        context,
    } = asked;
    let lines = AnswerLines {
        model: resolve_name(server, model, chat.model.take())?,
        form,
    };
    if must_think && !thinks(model) {
        let explanation = "this model does not support thinking";
        return Err(ApiError::unsupported_field("think", explanation));
    }
    let param = match form {
        AnswerForm::Chat => MESSAGES,
        AnswerForm::Generation => PROMPT,
    };
    let chat = chat::prepare(server, model, chat, param)?;
    let mut job = chat.job;
    if !context.is_empty() {
        follow(model, &mut job, context)?;
    }
    let repeats_tokens = form == AnswerForm::Generation;
    job.return_token_ids = repeats_tokens;
    let context = job.prompts.first().filter(|_| repeats_tokens);
    let context = context.map(|prompt| prompt.tokens.to_vec());
    limit(&mut job, max_tokens);
    Ok(Asked {
        shape: Shape {
            context,
            ..shape(model, lines, &job.sampling, chat.include_reasoning)
        },
        streams: chat.stream.is_some(),
        job,
    })
}

fn prepare_text(
    server: &Server,
    model: &ServedModel,
    asked: OllamaText,
) -> Result<Asked, ApiError> {
    let OllamaText {
        mut completion,
        max_tokens,
    } = asked;
    let lines = AnswerLines {
        model: resolve_name(server, model, completion.model.take())?,
        form: AnswerForm::Generation,
    };
    let streams = completion.stream.is_some();
    let mut job = completions::prepare_valid(server, model, completion)?.job;
    limit(&mut job, max_tokens);
    Ok(Asked {
        shape: shape(model, lines, &job.sampling, true),
        streams,
        job,
    })
}

/// Puts tokens before those of the prompt, which begins no sequence then.
fn follow(model: &ServedModel, job: &mut Job, context: Vec<TokenId>) -> Result<(), ApiError> {
    let begin = model.tokenizer.token_to_id(&model.bos_token);
    for prompt in &mut job.prompts {
        let tokens = &prompt.tokens[..];
        let rest = match tokens.split_first() {
            Some((first, rest)) if Some(*first) == begin => rest,
            _ => tokens,
        };
        let tokens = [&context[..], rest].concat();
        *prompt = prepare::fit(model, &job.sampling, tokens, CONTEXT)?;
    }
    Ok(())
}

/// More than the context leaves is no error, as it is not at Ollama's.
fn limit(job: &mut Job, max_tokens: Option<u32>) {
    if let Some(max_tokens) = max_tokens {
        job.limit_answers(max_tokens);
    }
}

fn shape(
    model: &ServedModel,
    lines: AnswerLines,
    sampling: &SamplingFields,
    shows_thinking: bool,
) -> Shape {
    Shape {
        lines,
        tokenizer: Arc::clone(&model.tokenizer),
        alternatives: sampling.logprobs.unwrap_or(0) as usize,
        shows_thinking,
        context: None,
    }
}
