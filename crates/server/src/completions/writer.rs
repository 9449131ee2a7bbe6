//! Writes the answers to prompts. A stream's chunks have the form of the whole, so both are here.

use std::sync::Arc;

use axum::response::Response;
use backstop_protocol::{
    ApiError, CompletionChoice, CompletionChunks, FinishReason, SSE_DONE, StreamOptions,
    TextCompletion, Usage, sse_data,
};
use backstop_text::{ParsedEvent, Tokenizer};
use backstop_types::SampledToken;

use super::prompt::Opening;
use crate::answer::Answer;
use crate::answer_stream::EventWriter;
use crate::choice::{End, Update};
use crate::logprobs::{CompletionLogprobsWriter, RatedPrompt};

/// How the answer is written.
pub(super) struct Shape {
    pub(super) chunks: CompletionChunks,
    pub(super) tokenizer: Arc<Tokenizer>,
    /// Alternatives to report for each token.
    pub(super) alternatives: usize,
    /// Special tokens are not in the text.
    pub(super) skips_special_tokens: bool,
    /// The engine generates one token all the same, which nobody sees.
    pub(super) only_prompt: bool,
}

impl Shape {
    fn usage(&self, answer: &Answer) -> Usage {
        match self.only_prompt {
            true => answer.usage().of_prompt(),
            false => answer.usage(),
        }
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
pub(super) struct ChoiceWriter {
    /// What it begins with, until that has been written.
    opening: Option<Opening>,
    logprobs: CompletionLogprobsWriter,
}

impl ChoiceWriter {
    pub(super) fn new(opening: Option<Opening>) -> Self {
        Self {
            opening,
            logprobs: CompletionLogprobsWriter::default(),
        }
    }

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
        let skips = shape.skips_special_tokens;
        self.logprobs
            .add_generated(tokenizer, &piece.tokens, alternatives, skips);
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

/// Waits for the whole answer.
pub(super) async fn whole(
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
pub(super) struct CompletionWriter {
    pub(super) shape: Shape,
    pub(super) options: StreamOptions,
    pub(super) writers: Vec<ChoiceWriter>,
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
