//! From a body to a job for the engine.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use backstop_protocol::ollama::{
    AnswerEnd, AnswerForm, AnswerLines, AnswerPart, DoneReason, OllamaChat, OllamaLoad, OllamaTask,
    OllamaText,
};
use backstop_protocol::{ApiError, SamplingFields};
use backstop_types::TokenId;

use super::answer::{LineWriter, Shape, now};
use super::models::{resolve_name, thinks};
use crate::answer::Answer;
use crate::endpoint::Task;
use crate::job::Job;
use crate::model::ServedModel;
use crate::server::Server;
use crate::{answer_stream, chat, completions, prepare, reply};

/// The field that holds a conversation.
const MESSAGES: &str = "messages";
/// The field that holds a prompt.
const PROMPT: &str = "prompt";
/// The field that holds the tokens before a prompt.
const CONTEXT: &str = "context";

/// How a request's answer is written.
pub(super) struct Asked {
    shape: Shape,
    streams: bool,
}

impl Asked {
    pub(super) async fn respond(self, answer: Answer) -> Result<Response, ApiError> {
        let writer = LineWriter::new(self.shape);
        if !self.streams {
            return writer.whole(answer).await;
        }
        let keep_alive = writer.keep_alive();
        Ok(answer_stream::respond(answer, writer, keep_alive))
    }
}

pub(super) fn prepare(
    server: &Server,
    model: &ServedModel,
    task: OllamaTask,
    form: AnswerForm,
) -> Result<Task<Asked>, ApiError> {
    match task {
        OllamaTask::Load(load) => Ok(Task::Reply(loaded(model, load, form)?)),
        OllamaTask::Chat(asked) => prepare_chat(server, model, *asked, form),
        OllamaTask::Text(asked) => prepare_text(model, *asked),
    }
}

/// The answer to who wants the model loaded, as it always is, or not to be any more.
fn loaded(model: &ServedModel, load: OllamaLoad, form: AnswerForm) -> Result<Response, ApiError> {
    let lines = AnswerLines {
        model: resolve_name(model, load.model)?,
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
    let nothing = AnswerPart::default();
    let line = lines.line(now(), &nothing, Some(&end));
    Ok(reply::json(StatusCode::OK, &line))
}

fn prepare_chat(
    server: &Server,
    model: &ServedModel,
    asked: OllamaChat,
    form: AnswerForm,
) -> Result<Task<Asked>, ApiError> {
    let OllamaChat {
        mut chat,
        max_tokens,
        must_think,
        context,
    } = asked;
    let lines = AnswerLines {
        model: resolve_name(model, chat.model.take())?,
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
    let endpoint = Asked {
        shape: Shape {
            context,
            ..shape(model, lines, &job.sampling, chat.include_reasoning)
        },
        streams: chat.stream.is_some(),
    };
    Ok(Task::generate(job, endpoint))
}

fn prepare_text(model: &ServedModel, asked: OllamaText) -> Result<Task<Asked>, ApiError> {
    let OllamaText {
        mut completion,
        max_tokens,
    } = asked;
    let lines = AnswerLines {
        model: resolve_name(model, completion.model.take())?,
        form: AnswerForm::Generation,
    };
    let streams = completion.stream.is_some();
    let mut job = completions::prepare(model, completion)?.job;
    limit(&mut job, max_tokens);
    let endpoint = Asked {
        shape: shape(model, lines, &job.sampling, true),
        streams,
    };
    Ok(Task::generate(job, endpoint))
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
