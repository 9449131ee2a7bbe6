//! `POST /v1/responses`, without memory: every request brings its whole conversation.

mod output;
mod stream;
mod whole;

use axum::extract::{Request, State};
use axum::response::Response;
use backstop_protocol::responses::{
    ReasoningForm, ResponseBuilder, ToolTable, ValidResponsesRequest,
};
use backstop_protocol::{ApiError, ResponseStamp};

use self::output::Output;
use crate::answer::Admission;
use crate::chat::{self, Chat};
use crate::entropy::random_u128;
use crate::model::ServedModel;
use crate::reply::ErrorReply;
use crate::server::Server;
use crate::{answer_stream, stamp};

/// The field that holds the prompt.
const PARAM: &str = "input";

/// A request, ready for the engine, and what its answer depends on.
struct Prepared {
    chat: Chat,
    tools: ToolTable,
    reasoning: ReasoningForm,
    builder: ResponseBuilder,
    /// Makes the ids of the answer and of its items.
    suffix: String,
}

pub(crate) async fn handle(
    State(server): State<Server>,
    request: Request,
) -> Result<Response, ErrorReply> {
    let (admission, prepared) = Admission::of_body(&server, request, prepare).await?;
    let answer = admission.start(&prepared.chat.job).await?;
    let streamed = prepared.chat.stream.is_some();
    let (builder, output) = prepared.into_parts();
    if !streamed {
        return Ok(whole::respond(answer, &builder, output).await?);
    }
    let (writer, keep_alive) = stream::writer(builder, output);
    Ok(answer_stream::respond(answer, writer, keep_alive))
}

fn prepare(server: &Server, model: &ServedModel, body: &[u8]) -> Result<Prepared, ApiError> {
    let unsupported = server.config().unsupported_content;
    let request = ValidResponsesRequest::from_bytes(body, unsupported)?;
    let chat = chat::prepare(server, model, request.chat, PARAM)?;
    let suffix = format!("{:032x}", random_u128());
    let stamp = ResponseStamp {
        id: format!("resp_{suffix}"),
        ..stamp::stamp(server, "resp", chat.model_name.clone())
    };
    Ok(Prepared {
        chat,
        tools: request.tools,
        reasoning: request.reasoning,
        builder: ResponseBuilder::new(stamp, request.echo),
        suffix,
    })
}

impl Prepared {
    fn into_parts(self) -> (ResponseBuilder, Output) {
        let calls_max = match self.chat.parallel_tool_calls {
            true => usize::MAX,
            false => 1,
        };
        let output = Output::new(self.suffix, self.tools, self.reasoning, calls_max);
        (self.builder, output)
    }
}
