//! The answer in one piece.

use axum::response::Response;
use backstop_protocol::ApiError;
use backstop_protocol::responses::ResponseBuilder;

use super::output::Output;
use crate::answer::Answer;

/// Waits for the whole answer.
pub(super) async fn respond(
    mut answer: Answer,
    builder: &ResponseBuilder,
    mut output: Output,
) -> Result<Response, ApiError> {
    while let Some(update) = answer.next().await {
        let update = update?;
        for event in update.events {
            output.add(event, &mut ());
        }
        if let Some(end) = update.end {
            let status = output.end(end.reason, &mut ());
            let response = builder.ended(status, output.items(), answer.usage());
            return Ok(answer.reply(&response));
        }
    }
    // An answer ends with an update that says so.
    Err(ApiError::internal())
}
