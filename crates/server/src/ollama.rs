//! Ollama's API: `/api/chat`, `/api/generate`, and what its clients ask of models.

mod answer;
mod calls;
mod envelope;
mod models;
mod prepare;
mod refused;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use backstop_protocol::ollama::{AnswerForm, AnswerPart, OllamaTask};

use self::answer::LineWriter;
pub(crate) use self::answer::{chat_pause, generation_pause, manner};
pub(crate) use self::envelope::{is_ollama, reshape};
pub(crate) use self::models::{running, show, tags, version};
use self::prepare::Prepared;
pub(crate) use self::refused::refused;
use crate::answer::Admission;
use crate::answer_stream;
use crate::prepare::Preparation;
use crate::reply::{self, ErrorReply};
use crate::server::Server;

/// `POST /api/chat`.
pub(crate) async fn chat(
    State(server): State<Server>,
    request: Request,
) -> Result<Response, ErrorReply> {
    respond(&server, request, |server, model, body| {
        let task = OllamaTask::of_chat(body, server.config().unsupported_content)?;
        prepare::prepare(server, model, task, AnswerForm::Chat)
    })
    .await
}

/// `POST /api/generate`.
pub(crate) async fn generate(
    State(server): State<Server>,
    request: Request,
) -> Result<Response, ErrorReply> {
    respond(&server, request, |server, model, body| {
        let task = OllamaTask::of_generation(body, server.config().unsupported_content)?;
        prepare::prepare(server, model, task, AnswerForm::Generation)
    })
    .await
}

async fn respond(
    server: &Server,
    request: Request,
    prepare: Preparation<Prepared>,
) -> Result<Response, ErrorReply> {
    let (admission, prepared) = Admission::of_body(server, request, prepare).await?;
    let asked = match prepared {
        Prepared::Answer(asked) => asked,
        Prepared::Loaded { lines, end } => {
            let nothing = AnswerPart::default();
            let line = lines.line(answer::now(), &nothing, Some(&end));
            return Ok(reply::json(StatusCode::OK, &line));
        }
    };
    let writer = LineWriter::new(asked.shape);
    let answer = admission.start(&asked.job).await?;
    if !asked.streams {
        return Ok(writer.whole(answer).await?);
    }
    let keep_alive = writer.keep_alive();
    Ok(answer_stream::respond(answer, writer, keep_alive))
}
