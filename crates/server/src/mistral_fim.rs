//! `POST /v1/fim/completions`, as Mistral's clients ask for what stands between two texts.

use axum::response::Response;
use backstop_protocol::{ApiError, ValidCompletionRequest};

use crate::answer::Answer;
use crate::chat::{Chat, ChatCompletions};
use crate::completions;
use crate::endpoint::{Endpoint, Task};
use crate::model::ServedModel;
use crate::server::Server;

/// Asks like a completion, and is answered like a chat.
pub(crate) struct FimCompletions(ChatCompletions);

impl Endpoint for FimCompletions {
    fn prepare(server: &Server, model: &ServedModel, body: &[u8]) -> Result<Task<Self>, ApiError> {
        let request = ValidCompletionRequest::from_fim_bytes(body)?;
        let completion = completions::prepare(model, request)?;
        let chat = Chat {
            job: completion.job,
            model_name: completion.model_name,
            stream: completion.stream,
            include_reasoning: false,
            parallel_tool_calls: true,
            legacy_functions: false,
            // As Mistral has it: clients look for a choice in every chunk.
            usage_at_end: true,
        };
        Ok(ChatCompletions::task(server, model, chat).map(Self))
    }

    async fn respond(self, answer: Answer) -> Result<Response, ApiError> {
        self.0.respond(answer).await
    }
}
