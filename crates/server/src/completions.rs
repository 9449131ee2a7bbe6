//! `POST /v1/completions`: text in, text out, without a chat template. A stream's chunks have the
//! form of the whole, so both are here.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use backstop_protocol::{
    ApiError, CompletionChoice, CompletionChunks, CompletionPrompt, SSE_DONE, StreamOptions,
    TextCompletion, ValidCompletionRequest, sse_data, sse_error,
};
use backstop_text::{ParsedEvent, Tokenizer, chat_format};
use backstop_types::SampledToken;
use futures::stream::{self, Stream};

use crate::answer::{Admission, Answer};
use crate::choice::{End, Update};
use crate::logprobs::CompletionOffsets;
use crate::model::ServedModel;
use crate::prepare::{self, Job, Prompt};
use crate::reply::{self, ErrorReply};
use crate::server::Server;
use crate::{body, sampling, sse, stamp};

/// The field that holds the prompts.
const PARAM: &str = "prompt";

/// A completion request, ready for the engine.
struct Completion {
    job: Job,
    model_name: String,
    stream: Option<StreamOptions>,
    /// Text of each prompt, to begin its answers with; empty unless it was asked for.
    echoes: Vec<String>,
}

/// How the answer is written.
struct Shape {
    chunks: CompletionChunks,
    tokenizer: Arc<Tokenizer>,
    /// Text that each choice begins with.
    openings: Vec<String>,
    /// Alternatives to report for each token.
    alternatives: usize,
}

pub(crate) async fn handle(
    State(server): State<Server>,
    request: Request,
) -> Result<Response, ErrorReply> {
    let admission = Admission::new(&server)?;
    let body = body::read(&server, request).await?;
    let completion = prepare::run(&server, &admission.model, body, prepare_completion).await?;
    let job = &completion.job;
    let per_prompt = job.sampling.choices as usize;
    let shape = Shape {
        chunks: CompletionChunks::new(stamp::stamp("cmpl", completion.model_name)),
        tokenizer: Arc::clone(&admission.model.served.tokenizer),
        openings: (0..job.sequences())
            .map(|index| {
                completion
                    .echoes
                    .get(index / per_prompt)
                    .cloned()
                    .unwrap_or_default()
            })
            .collect(),
        alternatives: job.sampling.logprobs.unwrap_or(0) as usize,
    };
    let answer = admission.start(job).await?;
    match completion.stream {
        Some(options) => {
            let events = events(answer, shape, options);
            Ok(sse::response(
                events,
                server.config().keep_alive_interval,
                sse::comment,
            ))
        }
        None => Ok(whole(answer, shape).await?),
    }
}

fn prepare_completion(
    server: &Server,
    model: &ServedModel,
    body: &[u8],
) -> Result<Completion, ApiError> {
    let request = ValidCompletionRequest::from_bytes(body)?;
    let model_name = prepare::resolve_model_name(server, model, request.model)?;
    sampling::check_token_ids(model, &request.sampling)?;
    let mut prompts: Vec<Prompt> = Vec::with_capacity(request.prompts.len());
    let mut echoes = Vec::new();
    for prompt in request.prompts {
        let (tokens, text) = match prompt {
            CompletionPrompt::Text(text) => (
                prepare::encode(model, &text, request.add_special_tokens, PARAM)?,
                Some(text),
            ),
            CompletionPrompt::Tokens(tokens) => (tokens, None),
        };
        let prompt = prepare::fit(model, &request.sampling, tokens, PARAM)?;
        if request.echo {
            echoes.push(text.unwrap_or_else(|| decode(&model.tokenizer, &prompt)));
        }
        prompts.push(prompt);
    }
    let format = chat_format("plain").ok_or_else(ApiError::internal)?;
    Ok(Completion {
        job: Job {
            prompts,
            sampling: request.sampling,
            priority: request.priority,
            param: PARAM,
            format,
            starts_in_reasoning: false,
            parse_tools: false,
        },
        model_name,
        stream: request.stream,
        echoes,
    })
}

fn decode(tokenizer: &Tokenizer, prompt: &Prompt) -> String {
    // Every id was checked, so that decoding has no reason to fail.
    tokenizer.decode(&prompt.tokens, false).unwrap_or_default()
}

/// What is sent of one choice at a time.
#[derive(Clone, Default)]
struct Piece {
    text: String,
    tokens: Vec<SampledToken>,
    end: Option<End>,
}

impl Piece {
    fn add(&mut self, update: Update) {
        for event in update.events {
            match event {
                ParsedEvent::ContentDelta(text) | ParsedEvent::ReasoningDelta(text) => {
                    self.text.push_str(&text);
                }
                // The plain format has no tool calls.
                ParsedEvent::ToolCallStart { .. } | ParsedEvent::ToolCallArgumentsDelta { .. } => {}
            }
        }
        self.tokens.extend(update.tokens);
        self.end = update.end.or(self.end.take());
    }

    fn into_choice(
        self,
        index: usize,
        offsets: &mut CompletionOffsets,
        shape: &Shape,
    ) -> CompletionChoice {
        let (finish_reason, stop_reason) =
            self.end.map(|end| (end.reason, end.stop_reason)).unzip();
        CompletionChoice {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            text: self.text,
            logprobs: offsets.report(&shape.tokenizer, &self.tokens, shape.alternatives),
            finish_reason,
            stop_reason: stop_reason.flatten(),
        }
    }
}

async fn whole(mut answer: Answer, shape: Shape) -> Result<Response, ApiError> {
    let mut pieces: Vec<Piece> = shape
        .openings
        .iter()
        .map(|opening| Piece {
            text: opening.clone(),
            ..Piece::default()
        })
        .collect();
    while let Some(update) = answer.next().await {
        let update = update?;
        pieces[update.index].add(update);
    }
    let choices = pieces
        .into_iter()
        .enumerate()
        .map(|(index, piece)| piece.into_choice(index, &mut CompletionOffsets::default(), &shape));
    let complete = shape.chunks.complete(choices.collect(), answer.usage());
    Ok(reply::json(StatusCode::OK, &complete))
}

/// Where a stream is.
enum Phase {
    Opening,
    Running,
    Over,
}

struct CompletionStream {
    answer: Answer,
    shape: Shape,
    options: StreamOptions,
    offsets: Vec<CompletionOffsets>,
    phase: Phase,
}

fn events(
    answer: Answer,
    shape: Shape,
    options: StreamOptions,
) -> impl Stream<Item = String> + Send + 'static {
    let offsets = vec![CompletionOffsets::default(); shape.openings.len()];
    let stream = CompletionStream {
        answer,
        shape,
        options,
        offsets,
        phase: Phase::Opening,
    };
    stream::unfold(stream, async |mut stream| {
        stream.next().await.map(|event| (event, stream))
    })
}

impl CompletionStream {
    async fn next(&mut self) -> Option<String> {
        if matches!(self.phase, Phase::Opening) {
            self.phase = Phase::Running;
            let opening = self.opening();
            if !opening.is_empty() {
                return Some(opening);
            }
        }
        if matches!(self.phase, Phase::Over) {
            return None;
        }
        match self.answer.next().await {
            Some(Ok(update)) => Some(self.update(update)),
            Some(Err(error)) => {
                self.phase = Phase::Over;
                Some(sse_error(&error))
            }
            None => {
                self.phase = Phase::Over;
                Some(self.closing())
            }
        }
    }

    /// The prompts, if they are to be repeated.
    fn opening(&mut self) -> String {
        let openings = std::mem::take(&mut self.shape.openings);
        let echoed = openings
            .into_iter()
            .enumerate()
            .filter(|(_, text)| !text.is_empty());
        let pieces: Vec<(usize, String)> = echoed.collect();
        pieces
            .into_iter()
            .map(|(index, text)| {
                self.event(
                    index,
                    Piece {
                        text,
                        ..Piece::default()
                    },
                )
            })
            .collect()
    }

    fn update(&mut self, update: Update) -> String {
        let index = update.index;
        let mut piece = Piece::default();
        piece.add(update);
        self.event(index, piece)
    }

    fn event(&mut self, index: usize, piece: Piece) -> String {
        let usage = self
            .options
            .continuous_usage_stats
            .then(|| self.answer.usage());
        let choice = piece.into_choice(index, &mut self.offsets[index], &self.shape);
        let chunk: TextCompletion<'_> = self.shape.chunks.chunk(choice);
        match usage {
            Some(usage) => sse_data(&chunk.with_usage(usage)),
            None => sse_data(&chunk),
        }
    }

    fn closing(&self) -> String {
        let mut text = String::new();
        if self.options.include_usage {
            text += &sse_data(&self.shape.chunks.usage(self.answer.usage()));
        }
        text + SSE_DONE
    }
}
