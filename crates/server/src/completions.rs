//! `POST /v1/completions`: text in, text out, without a chat template. A stream's chunks have the
//! form of the whole, so both are here.

use std::sync::Arc;

use axum::response::Response;
use backstop_protocol::{
    ApiError, CompletionChoice, CompletionChunks, CompletionPrompt, FinishReason, SSE_DONE,
    StreamOptions, TextCompletion, Usage, ValidCompletionRequest, sse_data, sse_error,
};
use backstop_text::{ParsedEvent, PromptText, Tokenizer};
use backstop_types::{SampledToken, TokenId};

use crate::answer::Answer;
use crate::answer_stream::EventWriter;
use crate::choice::{End, Update};
use crate::endpoint::{Endpoint, Task};
use crate::fim::Gap;
use crate::job::Job;
use crate::logprobs::{CompletionLogprobsWriter, RatedPrompt};
use crate::model::ServedModel;
use crate::patience::Manner;
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

/// What an answer begins with.
#[derive(Clone)]
struct Opening {
    /// The prompt.
    text: String,
    /// Present if its log-probabilities are wanted.
    rated: Option<RatedPrompt>,
}

/// How the answer is written.
struct Shape {
    chunks: CompletionChunks,
    tokenizer: Arc<Tokenizer>,
    /// Alternatives to report for each token.
    alternatives: usize,
    /// Special tokens are not in the text.
    skips_special_tokens: bool,
    /// The engine generates one token all the same, which nobody sees.
    only_prompt: bool,
}

impl Shape {
    fn usage(&self, answer: &Answer) -> Usage {
        match self.only_prompt {
            true => answer.usage().of_prompt(),
            false => answer.usage(),
        }
    }
}

/// A request that is answered with texts.
pub(crate) struct Completions {
    shape: Shape,
    stream: Option<StreamOptions>,
    /// One for each choice.
    writers: Vec<ChoiceWriter>,
}

impl Endpoint for Completions {
    const MANNER: Manner = Manner::events(sse::comment, sse_error);

    fn prepare(server: &Server, model: &ServedModel, body: &[u8]) -> Result<Task<Self>, ApiError> {
        let request = ValidCompletionRequest::from_bytes(body)?;
        let completion = prepare(server, model, request)?;
        let (job, stream) = (completion.job, completion.stream);
        let per_prompt = job.sampling.choices as usize;
        let writer = |index| ChoiceWriter {
            opening: completion.openings.get(index / per_prompt).cloned(),
            ..ChoiceWriter::default()
        };
        let endpoint = Self {
            writers: (0..job.sequences()).map(writer).collect(),
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
        Ok(Task::Generate { job, endpoint })
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
            None => whole(answer, shape, writers).await,
        }
    }
}

/// Everything up to the token ids, whatever endpoint the request came through.
pub(crate) fn prepare(
    server: &Server,
    model: &ServedModel,
    mut request: ValidCompletionRequest,
) -> Result<Completion, ApiError> {
    let model_name = prepare::resolve_model_name(server, model, request.model.take())?;
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
            openings.push(opening(&model.tokenizer, &prompt.tokens, echo, rated));
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

/// A prompt for the model.
struct Encoded {
    tokens: Vec<TokenId>,
    /// What of it is repeated, if that is not what the tokens say.
    echo: Option<String>,
}

/// Encodes a prompt, or what stands before a gap.
fn encode(
    model: &ServedModel,
    request: &ValidCompletionRequest,
    prompt: CompletionPrompt,
    gap: Option<&Gap<'_>>,
) -> Result<Encoded, ApiError> {
    let special = request.add_special_tokens;
    match (prompt, gap) {
        (CompletionPrompt::Text(text), None) => {
            let text = PromptText::raw(text);
            Ok(Encoded {
                tokens: prepare::encode(model, &text, special, PARAM)?,
                echo: Some(text.into_string()),
            })
        }
        (CompletionPrompt::Tokens(tokens), None) => Ok(Encoded { tokens, echo: None }),
        (CompletionPrompt::Text(text), Some(gap)) => {
            let text = model.control_texts.as_text(text);
            let prefix = prepare::encode(model, &text, false, PARAM)?;
            Ok(Encoded {
                tokens: gap.prompt_behind(prefix, special)?,
                echo: Some(text.into_string()),
            })
        }
        (CompletionPrompt::Tokens(prefix), Some(gap)) => {
            prepare::check_known(model, &prefix, PARAM)?;
            Ok(Encoded {
                // Every id was checked, so that decoding has no reason to fail.
                echo: Some(model.tokenizer.decode(&prefix, false).unwrap_or_default()),
                tokens: gap.prompt_behind(prefix, special)?,
            })
        }
    }
}

/// The prompt as it was sent, or as its tokens say.
fn opening(
    tokenizer: &Tokenizer,
    tokens: &Arc<[TokenId]>,
    sent: Option<String>,
    rated: bool,
) -> Opening {
    let is_added = |text: &String, token| {
        tokenizer.is_special(token) && !text.starts_with(&tokenizer.token_text(token))
    };
    let added = sent.as_ref().zip(tokens.first());
    let first_is_added = added.is_some_and(|(text, &first)| is_added(text, first));
    Opening {
        // Every id was checked, so that decoding has no reason to fail.
        text: sent.unwrap_or_else(|| tokenizer.decode(tokens, false).unwrap_or_default()),
        rated: rated.then(|| RatedPrompt {
            tokens: Arc::clone(tokens),
            first_is_added,
            logprobs: Vec::new(),
        }),
    }
}

/// What is sent of one choice at a time.
#[derive(Default)]
struct Piece {
    text: String,
    prompt: Option<RatedPrompt>,
    tokens: Vec<SampledToken>,
    end: Option<End>,
}

impl Piece {
    fn is_empty(&self) -> bool {
        let Self {
            text,
            prompt,
            tokens,
            end,
        } = self;
        text.is_empty() && prompt.is_none() && tokens.is_empty() && end.is_none()
    }

    fn add_answer(&mut self, update: Update) {
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
}

/// How far one choice is written.
#[derive(Clone, Default)]
struct ChoiceWriter {
    /// What it begins with, until that has been written.
    opening: Option<Opening>,
    logprobs: CompletionLogprobsWriter,
}

impl ChoiceWriter {
    /// Adds the prompt to a piece, once all that is to be said of it is known.
    fn open(&mut self, piece: &mut Piece) {
        let is_known = |opening: &mut Opening| {
            let rated = opening.rated.as_ref();
            rated.is_none_or(RatedPrompt::is_complete)
        };
        if let Some(opening) = self.opening.take_if(is_known) {
            piece.text.push_str(&opening.text);
            piece.prompt = opening.rated;
        }
    }

    fn add(&mut self, mut update: Update, piece: &mut Piece, shape: &Shape) {
        if let Some(rated) = self.opening.as_mut().and_then(|it| it.rated.as_mut()) {
            rated.logprobs.append(&mut update.prompt_logprobs);
        }
        self.open(piece);
        if !shape.only_prompt {
            piece.add_answer(update);
        } else if update.end.is_some() {
            piece.end = Some(End {
                reason: FinishReason::Length,
                stop_reason: None,
            });
        }
    }

    fn write(&mut self, index: usize, piece: Piece, shape: &Shape) -> CompletionChoice {
        let (tokenizer, alternatives) = (&shape.tokenizer, shape.alternatives);
        if let Some(prompt) = &piece.prompt {
            self.logprobs.add_prompt(tokenizer, prompt, alternatives);
        }
        let how = (alternatives, shape.skips_special_tokens);
        self.logprobs.add_generated(tokenizer, &piece.tokens, how);
        let (finish_reason, stop_reason) =
            piece.end.map(|end| (end.reason, end.stop_reason)).unzip();
        CompletionChoice {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            text: piece.text,
            logprobs: self.logprobs.take(),
            finish_reason,
            stop_reason: stop_reason.flatten(),
        }
    }
}

async fn whole(
    mut answer: Answer,
    shape: Shape,
    mut writers: Vec<ChoiceWriter>,
) -> Result<Response, ApiError> {
    let mut pieces: Vec<Piece> = writers.iter().map(|_| Piece::default()).collect();
    while let Some(update) = answer.next().await {
        let update = update?;
        let index = update.index;
        writers[index].add(update, &mut pieces[index], &shape);
    }
    let choices = writers.iter_mut().zip(pieces).enumerate();
    let choices = choices.map(|(index, (writer, piece))| writer.write(index, piece, &shape));
    let complete = shape
        .chunks
        .complete(choices.collect(), shape.usage(&answer));
    Ok(answer.reply(&complete))
}

/// Writes a stream. It ends with `[DONE]`, or with an error event and without it.
struct CompletionWriter {
    shape: Shape,
    options: StreamOptions,
    writers: Vec<ChoiceWriter>,
}

impl EventWriter for CompletionWriter {
    /// The prompts that are to be repeated and of which nothing else is to be said.
    fn opening(&mut self, answer: &Answer) -> String {
        let mut text = String::new();
        for index in 0..self.writers.len() {
            let mut piece = Piece::default();
            self.writers[index].open(&mut piece);
            text += &self.event(index, piece, answer);
        }
        text
    }

    fn update(&mut self, update: Update, answer: &Answer) -> String {
        let (index, mut piece) = (update.index, Piece::default());
        self.writers[index].add(update, &mut piece, &self.shape);
        self.event(index, piece, answer)
    }

    fn closing(&mut self, answer: &Answer) -> String {
        let mut text = String::new();
        if self.options.include_usage {
            let usage = self.shape.usage(answer);
            text += &sse_data(&self.shape.chunks.usage(usage));
        }
        text + SSE_DONE
    }
}

impl CompletionWriter {
    fn event(&mut self, index: usize, piece: Piece, answer: &Answer) -> String {
        if piece.is_empty() {
            return String::new();
        }
        let choice = self.writers[index].write(index, piece, &self.shape);
        let chunk: TextCompletion<'_> = self.shape.chunks.chunk(choice);
        match self.options.continuous_usage_stats {
            true => sse_data(&chunk.with_usage(self.shape.usage(answer))),
            false => sse_data(&chunk),
        }
    }
}
