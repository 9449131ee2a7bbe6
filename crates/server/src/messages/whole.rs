//! An answer in one piece.

use axum::response::Response;
use backstop_protocol::ApiError;
use backstop_protocol::anthropic::Message;

use super::blocks::{Blocks, Collected};
use super::{Shape, usage};
use crate::answer::Answer;
use crate::choice::End;

/// Waits for the end.
pub(super) async fn respond(mut answer: Answer, shape: &Shape) -> Result<Response, ApiError> {
    let mut blocks = Blocks::default();
    let mut collected = Collected::default();
    let mut end: Option<End> = None;
    while let Some(update) = answer.next().await {
        let update = update?;
        let mut events = Vec::new();
        for event in &update.events {
            blocks.apply(event, shape, &mut events);
        }
        events.into_iter().for_each(|event| collected.apply(event));
        end = update.end.or(end);
    }
    let mut events = Vec::new();
    blocks.close(&mut events);
    events.into_iter().for_each(|event| collected.apply(event));
    let end = end.ok_or_else(ApiError::internal)?;
    let end = shape.end(&end);
    let message = Message::beginning(&shape.id, &shape.model, usage(&answer)).ended(
        collected.blocks,
        end.stop_reason,
        end.stop_sequence,
    );
    Ok(answer.reply(&message))
}
