//! Ollama's API: `/api/chat`, `/api/generate`, and what its clients ask of models.

mod answer;
mod calls;
mod models;
mod prepare;
mod refused;

use axum::response::Response;
use backstop_protocol::ApiError;
use backstop_protocol::ollama::{AnswerForm, OllamaTask};

pub(crate) use self::models::{Show, running, tags, version};
use self::prepare::Asked;
pub(crate) use self::refused::refused;
pub use self::refused::{REFUSED_ROUTES, RefusedRoute};
use crate::answer::Answer;
use crate::endpoint::{Endpoint, Task};
use crate::model::ServedModel;
use crate::patience::Manner;
use crate::server::Server;

/// `POST /api/chat`.
pub(crate) struct Chat(Asked);

/// `POST /api/generate`.
pub(crate) struct Generate(Asked);

impl Endpoint for Chat {
    const MANNER: Manner = answer::manner(answer::chat_pause);

    fn prepare(server: &Server, model: &ServedModel, body: &[u8]) -> Result<Task<Self>, ApiError> {
        let task = OllamaTask::of_chat(body, server.config().unsupported_content)?;
        let task = prepare::prepare(server, model, task, AnswerForm::Chat)?;
        Ok(task.map(Self))
    }

    async fn respond(self, answer: Answer) -> Result<Response, ApiError> {
        self.0.respond(answer).await
    }
}

impl Endpoint for Generate {
    const MANNER: Manner = answer::manner(answer::generation_pause);

    fn prepare(server: &Server, model: &ServedModel, body: &[u8]) -> Result<Task<Self>, ApiError> {
        let task = OllamaTask::of_generation(body, server.config().unsupported_content)?;
        let task = prepare::prepare(server, model, task, AnswerForm::Generation)?;
        Ok(task.map(Self))
    }

    async fn respond(self, answer: Answer) -> Result<Response, ApiError> {
        self.0.respond(answer).await
    }
}
