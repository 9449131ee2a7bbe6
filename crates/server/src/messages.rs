//! `POST /v1/messages` and `POST /v1/messages/count_tokens`, in Anthropic's shape.

mod blocks;
mod stream;
mod whole;

use axum::response::Response;
use backstop_protocol::anthropic::{
    Event, MessageEnd, MessageUsage, MessagesStopReason, ThinkingDisplay, ValidMessagesRequest,
    ValidTokenCountRequest, sse_anthropic_error, sse_event,
};
use backstop_protocol::{ApiError, FinishReason, StopReason};
use serde_json::{Value, json};

use self::stream::MessageWriter;
use crate::answer::Answer;
use crate::chat::{self, Chat};
use crate::choice::End;
use crate::endpoint::{Endpoint, Found, Inquiry, Task};
use crate::entropy::random_u128;
use crate::model::ServedModel;
use crate::patience::Manner;
use crate::server::Server;
use crate::{answer_stream, prepare};

/// The field that holds the prompt.
const PARAM: &str = "messages";

/// `POST /v1/messages`.
pub(crate) struct Messages {
    shape: Shape,
    streamed: bool,
}

/// `POST /v1/messages/count_tokens`: counts a prompt without answering it.
pub(crate) struct CountTokens;

/// How an answer is written.
struct Shape {
    id: String,
    model: String,
    /// Show that there is reasoning.
    thinking: bool,
    display: ThinkingDisplay,
    parallel_tool_calls: bool,
    /// The context ends before `max_tokens` is reached.
    cut_by_context: bool,
}

impl Endpoint for Messages {
    const MANNER: Manner = Manner::events(ping, sse_anthropic_error);

    fn prepare(server: &Server, model: &ServedModel, body: &[u8]) -> Result<Task<Self>, ApiError> {
        let unsupported = server.config().unsupported_content;
        let request = ValidMessagesRequest::from_bytes(body, unsupported)?;
        let Chat {
            mut job,
            model_name,
            stream,
            include_reasoning,
            parallel_tool_calls,
            ..
        } = chat::prepare(server, model, request.chat, PARAM)?;
        let shape = Shape {
            id: format!("msg_{:032x}", random_u128()),
            model: model_name,
            thinking: include_reasoning,
            display: request.thinking_display,
            parallel_tool_calls,
            cut_by_context: job.limit_answers(request.max_tokens),
        };
        let streamed = stream.is_some();
        let endpoint = Self { shape, streamed };
        Ok(Task::generate(job, endpoint))
    }

    async fn respond(self, answer: Answer) -> Result<Response, ApiError> {
        match self.streamed {
            true => {
                let writer = MessageWriter::new(self.shape);
                Ok(answer_stream::respond(answer, writer, ping))
            }
            false => whole::respond(answer, &self.shape).await,
        }
    }
}

/// What keeps a stream of this API alive.
fn ping() -> String {
    sse_event(&Event::Ping)
}

impl Inquiry for CountTokens {
    type Reply = Value;
    const COUNTS_TOKENS: bool = true;

    fn inquire(server: &Server, body: &[u8]) -> Result<Found<Value>, ApiError> {
        let model = &server.generating_model()?.served;
        let unsupported = server.config().unsupported_content;
        let ValidTokenCountRequest { mut chat } =
            ValidTokenCountRequest::from_bytes(body, unsupported)?;
        prepare::resolve_model_name(model, chat.model.take())?;
        let tokens = chat::tokenize(server, model, &mut chat, false, PARAM)?.len();
        let reply = json!({"input_tokens": tokens});
        Ok(Found { reply, tokens })
    }
}

impl Shape {
    fn end<'a>(&self, end: &'a End) -> MessageEnd<'a> {
        let sequence = match &end.stop_reason {
            Some(StopReason::Text(text)) => Some(text.as_str()),
            Some(StopReason::Token(_)) | None => None,
        };
        let stop_reason = match end.reason {
            FinishReason::ToolCalls => MessagesStopReason::ToolUse,
            FinishReason::Stop if sequence.is_some() => MessagesStopReason::StopSequence,
            FinishReason::Stop => MessagesStopReason::EndTurn,
            FinishReason::Length if self.cut_by_context => {
                MessagesStopReason::ModelContextWindowExceeded
            }
            FinishReason::Length => MessagesStopReason::MaxTokens,
        };
        MessageEnd {
            stop_reason,
            stop_sequence: sequence.filter(|_| stop_reason == MessagesStopReason::StopSequence),
        }
    }
}

fn usage(answer: &Answer) -> MessageUsage {
    answer.usage().into()
}
