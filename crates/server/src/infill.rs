//! `POST /infill`: the middle of a file, as llama.cpp's server writes it for editors.

mod lines;
mod middle;
mod prompt;

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::response::Response;
use backstop_protocol::{
    ApiError, InfillSettings, SamplingFields, ValidInfillRequest, selected, sse_data,
};

use self::lines::Lines;
use self::middle::Middle;
use crate::answer::Answer;
use crate::answer_stream::{self, EventWriter};
use crate::choice::Update;
use crate::endpoint::{Endpoint, Task};
use crate::job::Job;
use crate::model::ServedModel;
use crate::server::Server;
use crate::{fim, prepare, reply, sampling, sse};

/// A request for a middle.
pub(crate) struct Infill {
    shape: Shape,
    middles: Vec<Middle>,
    stream: bool,
}

/// How an answer is written.
struct Shape {
    model_name: String,
    /// The prompt, as text.
    prompt: String,
    prompt_tokens: u32,
    is_cut: bool,
    /// Nothing is to be generated; the engine generates one token all the same, which nobody sees.
    only_prompt: bool,
    settings: InfillSettings,
    response_fields: Vec<String>,
}

/// Writes answers, streamed or not.
struct InfillWriter {
    shape: Shape,
    middles: Vec<Middle>,
    started: Instant,
}

impl Endpoint for Infill {
    fn prepare(_: &Server, model: &ServedModel, body: &[u8]) -> Result<Task<Self>, ApiError> {
        let mut request = ValidInfillRequest::from_bytes(body)?;
        let model_name = prepare::resolve_model_name(model, request.model.take())?;
        sampling::check_token_ids(model, &request.sampling)?;
        let fim = fim::tokens_of(model, prompt::PARAM)?;
        let trimmed = prompt::build(model, fim, &request)?;
        let settings = settings(model, &request);
        let only_prompt = request.sampling.max_tokens == Some(0);
        if only_prompt {
            request.sampling.max_tokens = Some(1);
        }
        let prompt = prepare::fit(model, &request.sampling, trimmed.tokens, prompt::PARAM)?;
        let prompt = prompt.ending_at(fim::ends(model, fim, &request.sampling));
        let shape = Shape {
            model_name,
            // Every token is of the vocabulary, so that decoding has no reason to fail.
            prompt: model
                .tokenizer
                .decode(&prompt.tokens, false)
                .unwrap_or_default(),
            prompt_tokens: prompt.length(),
            is_cut: trimmed.is_cut,
            only_prompt,
            settings,
            response_fields: request.response_fields,
        };
        let max_time = request
            .max_predict_ms
            .map(u64::from)
            .map(Duration::from_millis);
        let mut job = Job::of_texts(
            vec![prompt],
            request.sampling,
            request.priority,
            prompt::PARAM,
        )?;
        job.return_token_ids = request.return_tokens;
        let lines = Lines::new(request.min_indent, max_time);
        let endpoint = Self {
            shape,
            middles: vec![Middle::new(lines); job.sequences()],
            stream: request.stream,
        };
        Ok(Task::generate(job, endpoint))
    }

    async fn respond(self, answer: Answer) -> Result<Response, ApiError> {
        let writer = InfillWriter {
            shape: self.shape,
            middles: self.middles,
            started: Instant::now(),
        };
        match self.stream {
            true => Ok(answer_stream::respond(answer, writer, sse::comment)),
            false => writer.whole(answer).await,
        }
    }
}

fn settings(model: &ServedModel, request: &ValidInfillRequest) -> InfillSettings {
    let fields: &SamplingFields = &request.sampling;
    let params = sampling::params(fields, &model.defaults, 0, None);
    InfillSettings {
        n_ctx: model.max_model_len,
        n_predict: fields.max_tokens.map_or(-1, i64::from),
        seed: fields.seed.unwrap_or(-1),
        temperature: params.temperature,
        top_k: params.top_k,
        top_p: params.top_p,
        min_p: params.min_p,
        repeat_penalty: params.repetition_penalty,
        presence_penalty: params.presence_penalty,
        frequency_penalty: params.frequency_penalty,
        stop: fields.stop.clone(),
        n_indent: request.min_indent,
        t_max_predict_ms: request.max_predict_ms.unwrap_or(0),
        ignore_eos: fields.ignore_eos,
    }
}

impl InfillWriter {
    /// One object, or, of several answers, a list of them.
    async fn whole(mut self, mut answer: Answer) -> Result<Response, ApiError> {
        while !self.is_over() {
            let Some(update) = answer.next().await else {
                break;
            };
            self.absorb(update?);
        }
        let answers = self.middles.iter().enumerate();
        let mut answers = answers.map(|(index, middle)| {
            selected(
                middle.written(index, &self.shape),
                &self.shape.response_fields,
            )
        });
        match (answers.next(), self.middles.len()) {
            (Some(only), 1) => Ok(reply::json(StatusCode::OK, &only)),
            (first, _) => {
                let all: Vec<_> = first.into_iter().chain(answers).collect();
                Ok(reply::json(StatusCode::OK, &all))
            }
        }
    }

    fn absorb(&mut self, update: Update) -> usize {
        let index = update.index;
        let at = self.started.elapsed();
        self.middles[index].absorb(update, at, self.shape.only_prompt);
        index
    }
}

impl EventWriter for InfillWriter {
    fn opening(&mut self, _: &Answer) -> String {
        String::new()
    }

    fn update(&mut self, update: Update, _: &Answer) -> String {
        if self.middles[update.index].is_over() {
            return String::new();
        }
        let index = self.absorb(update);
        let (middle, shape) = (&mut self.middles[index], &self.shape);
        let mut text = match middle.take_news(index, shape) {
            Some(news) => sse_data(&news),
            None => String::new(),
        };
        if middle.is_over() {
            let last = selected(middle.written(index, shape), &shape.response_fields);
            text += &sse_data(&last);
        }
        text
    }

    fn is_over(&self) -> bool {
        self.middles.iter().all(Middle::is_over)
    }

    fn closing(&mut self, _: &Answer) -> String {
        String::new()
    }
}
