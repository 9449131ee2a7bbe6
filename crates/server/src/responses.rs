//! `POST /v1/responses`, without memory: every request brings its whole conversation.

mod output;
mod stream;
mod whole;

use axum::response::Response;
use backstop_protocol::responses::{ResponseBuilder, ValidResponsesRequest, sse_failure};
use backstop_protocol::{ApiError, ResponseStamp};

use self::output::Output;
use crate::answer::Answer;
use crate::endpoint::{Endpoint, Task};
use crate::entropy::random_u128;
use crate::model::ServedModel;
use crate::patience::Manner;
use crate::server::Server;
use crate::{answer_stream, chat, sse, stamp};

/// The field that holds the prompt.
const PARAM: &str = "input";

/// A request, and what its answer is made of.
pub(crate) struct Responses {
    builder: ResponseBuilder,
    output: Output,
    streamed: bool,
}

impl Endpoint for Responses {
    const MANNER: Manner = Manner::events(sse::comment, sse_failure);

    fn prepare(server: &Server, model: &ServedModel, body: &[u8]) -> Result<Task<Self>, ApiError> {
        let unsupported = server.config().unsupported_content;
        let request = ValidResponsesRequest::from_bytes(body, unsupported)?;
        let chat = chat::prepare(server, model, request.chat, PARAM)?;
        let suffix = format!("{:032x}", random_u128());
        let stamp = ResponseStamp {
            id: format!("resp_{suffix}"),
            ..stamp::stamp(server, "resp", chat.model_name)
        };
        let calls_max = match chat.parallel_tool_calls {
            true => usize::MAX,
            false => 1,
        };
        let endpoint = Self {
            builder: ResponseBuilder::new(stamp, request.echo),
            output: Output::new(suffix, request.tools, request.reasoning, calls_max),
            streamed: chat.stream.is_some(),
        };
        let job = chat.job;
        Ok(Task::generate(job, endpoint))
    }

    async fn respond(self, answer: Answer) -> Result<Response, ApiError> {
        let Self {
            builder,
            output,
            streamed,
        } = self;
        if !streamed {
            return whole::respond(answer, &builder, output).await;
        }
        let (writer, keep_alive) = stream::writer(builder, output);
        Ok(answer_stream::respond(answer, writer, keep_alive))
    }
}
