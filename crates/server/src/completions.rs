//! `POST /v1/completions`: text in, text out, without a chat template.

mod prompt;
mod writer;

use std::sync::Arc;

use axum::response::Response;
use backstop_protocol::{ApiError, CompletionChunks, StreamOptions, ValidCompletionRequest};

use self::prompt::{Encoded, Opening, encode};
use self::writer::{ChoiceWriter, CompletionWriter, Shape};
use crate::answer::Answer;
use crate::endpoint::{Endpoint, Task};
use crate::fim::Gap;
use crate::job::Job;
use crate::model::ServedModel;
use crate::server::Server;
use crate::{answer_stream, prepare, sampling, sse, stamp};

/// The field that holds the prompts.
const PARAM: &str = "prompt";

/// A completion request, ready for the engine.
pub(crate) struct Completion {
    pub(crate) job: Job,
    pub(crate) model_name: String,
    pub(crate) stream: Option<StreamOptions>,
    /// What the answers of each prompt begin with; empty unless it was asked for.
    openings: Vec<Opening>,
    /// Nothing is to be generated.
    only_prompt: bool,
}

/// A request that is answered with texts.
pub(crate) struct Completions {
    shape: Shape,
    stream: Option<StreamOptions>,
    /// One for each choice.
    writers: Vec<ChoiceWriter>,
}

impl Endpoint for Completions {
    fn prepare(server: &Server, model: &ServedModel, body: &[u8]) -> Result<Task<Self>, ApiError> {
        let request = ValidCompletionRequest::from_bytes(body)?;
        let completion = prepare(model, request)?;
        let (job, stream) = (completion.job, completion.stream);
        let per_prompt = job.sampling.choices as usize;
        let opening = |index| completion.openings.get(index / per_prompt).cloned();
        let endpoint = Self {
            writers: (0..job.sequences())
                .map(|index| ChoiceWriter::new(opening(index)))
                .collect(),
            shape: Shape {
                chunks: CompletionChunks::new(stamp::stamp(server, "cmpl", completion.model_name))
                    .announcing_usage(stream.is_some_and(|options| options.include_usage)),
                tokenizer: Arc::clone(&model.tokenizer),
                alternatives: job.sampling.logprobs.unwrap_or(0) as usize,
                skips_special_tokens: job.sampling.skip_special_tokens,
                only_prompt: completion.only_prompt,
            },
            stream,
        };
        Ok(Task::generate(job, endpoint))
    }

    async fn respond(self, answer: Answer) -> Result<Response, ApiError> {
        let Self {
            shape,
            stream,
            writers,
        } = self;
        match stream {
            Some(options) => {
                let writer = CompletionWriter {
                    shape,
                    options,
                    writers,
                };
                Ok(answer_stream::respond(answer, writer, sse::comment))
            }
            None => writer::whole(answer, shape, writers).await,
        }
    }
}

/// Everything up to the token ids, whatever endpoint the request came through.
pub(crate) fn prepare(
    model: &ServedModel,
    mut request: ValidCompletionRequest,
) -> Result<Completion, ApiError> {
    let model_name = prepare::resolve_model_name(model, request.model.take())?;
    sampling::check_token_ids(model, &request.sampling)?;
    let only_prompt = request.sampling.max_tokens == Some(0);
    if only_prompt {
        request.sampling.max_tokens = Some(1);
    }
    let gap = request.suffix.take();
    let gap = gap.map(|suffix| Gap::new(model, suffix)).transpose()?;
    let mut prompts = Vec::with_capacity(request.prompts.len());
    let mut openings = Vec::new();
    let mut together = 0;
    for prompt in std::mem::take(&mut request.prompts) {
        let Encoded { tokens, echo } = encode(model, &request, prompt, gap.as_ref())?;
        together += tokens.len();
        prepare::check_together(model, together, PARAM)?;
        let prompt = prepare::fit(model, &request.sampling, tokens, PARAM)?;
        if request.echo {
            let rated = request.sampling.prompt_logprobs.is_some();
            let tokens = &prompt.tokens;
            openings.push(Opening::new(&model.tokenizer, tokens, echo, rated));
        }
        let ends = gap.as_ref().map(|gap| gap.ends(&request.sampling));
        prompts.push(prompt.ending_at(ends.unwrap_or_default()));
    }
    Ok(Completion {
        job: Job::of_texts(prompts, request.sampling, request.priority, PARAM)?,
        model_name,
        stream: request.stream,
        openings,
        only_prompt,
    })
}
