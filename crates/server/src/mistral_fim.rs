//! `POST /v1/fim/completions`, as Mistral's clients ask for what stands between two texts.

use axum::extract::{Request, State};
use axum::response::Response;
use backstop_protocol::{ApiError, ValidCompletionRequest};

use crate::answer::Admission;
use crate::chat::{self, Chat};
use crate::completions;
use crate::model::ServedModel;
use crate::reply::ErrorReply;
use crate::server::Server;

pub(crate) async fn handle(
    State(server): State<Server>,
    request: Request,
) -> Result<Response, ErrorReply> {
    let (admission, chat) = Admission::of_body(&server, request, prepare).await?;
    chat::respond(admission, chat).await
}

fn prepare(server: &Server, model: &ServedModel, body: &[u8]) -> Result<Chat, ApiError> {
    let request = ValidCompletionRequest::from_fim_bytes(body)?;
    let completion = completions::prepare_valid(server, model, request)?;
    Ok(Chat {
        job: completion.job,
        model_name: completion.model_name,
        stream: completion.stream,
        include_reasoning: false,
        parallel_tool_calls: true,
        legacy_functions: false,
        // As Mistral has it: clients look for a choice in every chunk.
        usage_at_end: true,
    })
}
