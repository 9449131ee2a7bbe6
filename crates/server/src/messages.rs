//! `POST /v1/messages` and `POST /v1/messages/count_tokens`, in Anthropic's shape.

mod blocks;
mod envelope;
mod stream;
mod whole;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use backstop_protocol::anthropic::{
    Event, MessageEnd, MessageUsage, MessagesStopReason, ThinkingDisplay, ValidMessagesRequest,
    ValidTokenCountRequest, sse_event,
};
use backstop_protocol::{ApiError, FinishReason, StopReason};

pub(crate) use self::envelope::{is_anthropic, reshape};
use self::stream::MessageWriter;
use crate::answer::{Admission, Answer};
use crate::answer_stream;
use crate::chat::{self, Chat};
use crate::choice::End;
use crate::entropy::random_u128;
use crate::model::ServedModel;
use crate::prepare;
use crate::reply::{self, ErrorReply};
use crate::server::Server;

/// The field that holds the prompt.
const PARAM: &str = "messages";

/// A request, ready for the engine, and how its answer is written.
struct Prepared {
    chat: Chat,
    shape: Shape,
}

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

pub(crate) async fn handle(
    State(server): State<Server>,
    request: Request,
) -> Result<Response, ErrorReply> {
    let (admission, prepared) = Admission::of_body(&server, request, prepare).await?;
    let answer = admission.start(&prepared.chat.job).await?;
    match prepared.chat.stream {
        Some(_) => {
            let writer = MessageWriter::new(prepared.shape);
            Ok(answer_stream::respond(answer, writer, ping))
        }
        None => Ok(whole::respond(answer, &prepared.shape).await?),
    }
}

/// What keeps a stream of this API alive.
pub(crate) fn ping() -> String {
    sse_event(&Event::Ping)
}

/// Counts a prompt without answering it.
pub(crate) async fn count_tokens(
    State(server): State<Server>,
    request: Request,
) -> Result<Response, ErrorReply> {
    let answer = Admission::count_body(&server, request, count).await?;
    Ok(reply::json(StatusCode::OK, &answer))
}

fn count(
    server: &Server,
    model: &ServedModel,
    body: &[u8],
) -> Result<(usize, serde_json::Value), ApiError> {
    let unsupported = server.config().unsupported_content;
    let ValidTokenCountRequest { mut chat } =
        ValidTokenCountRequest::from_bytes(body, unsupported)?;
    prepare::resolve_model_name(server, model, chat.model.take())?;
    let count = chat::tokenize(server, model, &mut chat, false, PARAM)?.len();
    Ok((count, serde_json::json!({"input_tokens": count})))
}

fn prepare(server: &Server, model: &ServedModel, body: &[u8]) -> Result<Prepared, ApiError> {
    let unsupported = server.config().unsupported_content;
    let request = ValidMessagesRequest::from_bytes(body, unsupported)?;
    let mut chat = chat::prepare(server, model, request.chat, PARAM)?;
    let cut_by_context = chat.job.limit_answers(request.max_tokens);
    let shape = Shape {
        id: format!("msg_{:032x}", random_u128()),
        model: std::mem::take(&mut chat.model_name),
        thinking: chat.include_reasoning,
        display: request.thinking_display,
        parallel_tool_calls: chat.parallel_tool_calls,
        cut_by_context,
    };
    Ok(Prepared { chat, shape })
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
