//! The answer to a chat in one piece.

use axum::response::Response;
use backstop_protocol::{ApiError, AssistantMessage, ChatChoice, ToolCall};
use backstop_text::{ParsedMessage, ParsedToolCall};
use backstop_types::{SampledToken, TokenId};

use super::Shape;
use crate::answer::Answer;
use crate::choice::{End, Update};
use crate::logprobs;

/// One choice as far as it is known.
#[derive(Default)]
struct Collected {
    message: ParsedMessage,
    tokens: Vec<SampledToken>,
    token_ids: Vec<TokenId>,
    end: Option<End>,
}

/// Waits for all choices.
pub(super) async fn respond(mut answer: Answer, shape: &Shape) -> Result<Response, ApiError> {
    let mut collected: Vec<Collected> = Vec::new();
    collected.resize_with(shape.choices, Collected::default);
    while let Some(update) = answer.next().await {
        let update = update?;
        collected[update.index].add(update, shape);
    }
    let choices: Option<Vec<ChatChoice>> = collected
        .into_iter()
        .enumerate()
        .map(|(index, choice)| choice.into_choice(index, shape))
        .collect();
    let choices = choices.ok_or_else(ApiError::internal)?;
    let mut completion = shape.chunks.complete(choices, answer.usage());
    if let Some(ids) = &shape.prompt_token_ids {
        completion = completion.with_prompt_token_ids(ids.to_vec());
    }
    Ok(answer.reply(&completion))
}

impl Collected {
    fn add(&mut self, update: Update, shape: &Shape) {
        for event in update.events.into_iter().filter(|event| shape.shows(event)) {
            self.message.apply(event);
        }
        self.tokens.extend(update.tokens);
        self.token_ids.extend(update.token_ids);
        self.end = update.end.or(self.end.take());
    }

    /// `None` if the choice has no end, which does not happen.
    fn into_choice(self, index: usize, shape: &Shape) -> Option<ChatChoice> {
        let end = self.end?;
        let ParsedMessage {
            reasoning,
            content,
            tool_calls,
        } = self.message;
        let tool_calls = tool_calls.into_iter().map(tool_call).collect();
        Some(ChatChoice {
            index: u32::try_from(index).ok()?,
            message: AssistantMessage::new(content, Some(reasoning), tool_calls)
                .with_calls_as(shape.calls),
            logprobs: logprobs::chat(&shape.tokenizer, &self.tokens, shape.alternatives),
            finish_reason: shape.calls.finish_reason(end.reason),
            stop_reason: end.stop_reason,
            token_ids: shape.prompt_token_ids.is_some().then_some(self.token_ids),
        })
    }
}

/// Clients parse the arguments, and a call without any is a call with none.
fn tool_call(call: ParsedToolCall) -> ToolCall {
    let arguments = if call.arguments.is_empty() {
        "{}".to_owned()
    } else {
        call.arguments
    };
    ToolCall::new(call.id, call.name, arguments)
}
