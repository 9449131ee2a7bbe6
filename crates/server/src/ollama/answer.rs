//! Answers as lines of JSON, or as one. A stream ends with a line that is `done`, or with an error
//! line and without it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::response::Response;
use backstop_protocol::ollama::{
    AnswerEnd, AnswerForm, AnswerLines, AnswerMetrics, AnswerPart, DoneReason, ndjson_error,
    ndjson_line,
};
use backstop_protocol::{ApiError, FinishReason};
use backstop_text::{ParsedEvent, Tokenizer};
use backstop_types::TokenId;

use super::calls::Calls;
use crate::answer::Answer;
use crate::answer_stream::EventWriter;
use crate::choice::{End, Update};
use crate::logprobs;
use crate::patience::Manner;
use crate::timer::Phases;

/// How an answer is written.
pub(super) struct Shape {
    pub(super) lines: AnswerLines,
    pub(super) tokenizer: Arc<Tokenizer>,
    /// Alternatives to report for each token.
    pub(super) alternatives: usize,
    pub(super) shows_thinking: bool,
    /// The prompt's tokens, if the answer's end repeats them with its own.
    pub(super) context: Option<Vec<TokenId>>,
}

/// Writes one answer.
pub(super) struct LineWriter {
    shape: Shape,
    calls: Calls,
    ended: Option<(End, Phases)>,
}

/// The time since 1970.
pub(super) fn now() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

/// Answers are streams unless the request says otherwise; `pause` fills the time before they begin.
pub(super) const fn manner(pause: fn() -> String) -> Manner {
    Manner {
        streams_by_default: true,
        stream_type: LineWriter::CONTENT_TYPE,
        sign: pause,
        failure: ndjson_error,
    }
}

/// A line of `/api/chat` that adds nothing, before it is known what the model is called.
pub(super) fn chat_pause() -> String {
    pause(&AnswerLines {
        model: String::new(),
        form: AnswerForm::Chat,
    })
}

/// The same of `/api/generate`.
pub(super) fn generation_pause() -> String {
    pause(&AnswerLines {
        model: String::new(),
        form: AnswerForm::Generation,
    })
}

/// What fills the pauses: the form has no comments, so it is a line that adds nothing.
fn pause(lines: &AnswerLines) -> String {
    ndjson_line(&lines.line(now(), &AnswerPart::default(), None))
}

impl LineWriter {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            calls: Calls::default(),
            ended: None,
        }
    }

    /// What fills the pauses.
    pub(super) fn keep_alive(&self) -> impl FnMut() -> String + Send + 'static {
        let lines = self.shape.lines.clone();
        move || pause(&lines)
    }

    /// Waits for the end.
    pub(super) async fn whole(mut self, mut answer: Answer) -> Result<Response, ApiError> {
        let mut whole = AnswerPart::default();
        while let Some(update) = answer.next().await {
            whole.append(self.part(update?));
        }
        let end = self.end(&answer).ok_or_else(ApiError::internal)?;
        let line = self.shape.lines.line(now(), &whole, Some(&end));
        Ok(answer.reply(&line))
    }

    /// What an update adds.
    fn part(&mut self, update: Update) -> AnswerPart {
        let shape = &mut self.shape;
        let logprobs = logprobs::chat(&shape.tokenizer, &update.tokens, shape.alternatives);
        let mut part = AnswerPart {
            logprobs: logprobs.unwrap_or_default().content,
            ..AnswerPart::default()
        };
        if let Some(context) = &mut shape.context {
            context.extend_from_slice(&update.token_ids);
        }
        let is_shown = |event: &ParsedEvent| {
            shape.shows_thinking || !matches!(event, ParsedEvent::ReasoningDelta(_))
        };
        for event in update.events.into_iter().filter(is_shown) {
            self.calls.apply(event, &mut part);
        }
        if let Some((end, phases)) = update.end.zip(update.phases) {
            self.calls.end(end.reason, &mut part);
            self.ended = Some((end, phases));
        }
        part
    }

    /// `None` if the answer has no end, which does not happen.
    fn end(&mut self, answer: &Answer) -> Option<AnswerEnd> {
        let (end, phases) = self.ended.take()?;
        let usage = answer.usage();
        Some(AnswerEnd {
            reason: match end.reason {
                FinishReason::Stop | FinishReason::ToolCalls => DoneReason::Stop,
                FinishReason::Length => DoneReason::Length,
            },
            metrics: Some(AnswerMetrics {
                total_duration: nanoseconds(phases.total),
                load_duration: nanoseconds(phases.queued),
                prompt_eval_count: usage.prompt_tokens(),
                prompt_eval_duration: nanoseconds(phases.prompt),
                eval_count: usage.completion_tokens(),
                eval_duration: nanoseconds(phases.decoding),
            }),
            context: self.shape.context.take(),
        })
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl EventWriter for LineWriter {
    const CONTENT_TYPE: &'static str = "application/x-ndjson";

    fn opening(&mut self, _: &Answer) -> String {
        String::new()
    }

    fn update(&mut self, update: Update, _: &Answer) -> String {
        let part = self.part(update);
        match part.is_empty() {
            true => String::new(),
            false => ndjson_line(&self.shape.lines.line(now(), &part, None)),
        }
    }

    fn closing(&mut self, answer: &Answer) -> String {
        match self.end(answer) {
            Some(end) => {
                let nothing = AnswerPart::default();
                ndjson_line(&self.shape.lines.line(now(), &nothing, Some(&end)))
            }
            None => Self::broken(),
        }
    }

    fn failure(&mut self, error: &ApiError) -> String {
        ndjson_error(error)
    }

    fn broken() -> String {
        ndjson_error(&ApiError::internal())
    }
}
