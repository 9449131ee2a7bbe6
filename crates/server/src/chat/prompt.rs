//! From a conversation to the text of its prompt.

use std::time::{SystemTime, UNIX_EPOCH};

use backstop_protocol::{ApiError, ValidChatRequest};
use backstop_text::{ChatTemplateInput, Plainness, PromptText, TemplateError};
use serde_json::{Map, Value};

use crate::entropy::random_u128;
use crate::model::ServedModel;
use crate::prepare;
use crate::server::Server;

/// Renders the prompt; takes the conversation out of the request.
pub(super) fn render(
    server: &Server,
    model: &ServedModel,
    request: &mut ValidChatRequest,
    param: &'static str,
) -> Result<PromptText, ApiError> {
    let Some(template) = &model.template else {
        let explanation = "this model has no chat template; use the completions endpoint";
        return Err(ApiError::unsupported_field(param, explanation));
    };
    let mark = request
        .continue_final_message
        .then(|| mark_end(&mut request.messages));
    let input = input(model, request);
    let render = |input: &ChatTemplateInput| match server.config().allow_special_tokens_in_content {
        true => template.render(input).map(PromptText::raw),
        false => {
            let mark = format!("{:039}", random_u128());
            let marks_max = prepare::counted_tokens_max(model);
            template.render_apart(input, &model.control_texts, &mark, marks_max)
        }
    };
    let rendered = render_as_accepted(&input, render);
    let rendered = rendered.map_err(|error| refused(model, error, param))?;
    match mark {
        None => Ok(rendered),
        Some(mark) => cut_at(rendered, &mark),
    }
}

/// Renders the conversation as it is, or else in the first plainer form that the template accepts.
fn render_as_accepted(
    input: &ChatTemplateInput,
    render: impl Fn(&ChatTemplateInput) -> Result<PromptText, TemplateError>,
) -> Result<PromptText, TemplateError> {
    let mut rendered = render(input);
    for plainness in [Plainness::InTurns, Plainness::WithoutSystem] {
        let is_refused = matches!(
            rendered,
            Err(TemplateError::Raised(_) | TemplateError::Failed(_))
        );
        if !is_refused {
            break;
        }
        rendered = render(&input.plainer(plainness));
    }
    rendered
}

fn input(model: &ServedModel, request: &mut ValidChatRequest) -> ChatTemplateInput {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let non_empty = |items: Vec<Value>| Some(items).filter(|items| !items.is_empty());
    ChatTemplateInput {
        messages: std::mem::take(&mut request.messages),
        tools: non_empty(request.offered_tools().to_vec()),
        documents: non_empty(std::mem::take(&mut request.documents)),
        add_generation_prompt: request.add_generation_prompt,
        bos_token: Some(model.bos_token.clone()),
        eos_token: Some(model.eos_token.clone()),
        extra: variables(request),
        now_unix_seconds: i64::try_from(now).unwrap_or(i64::MAX),
    }
}

/// The template's further variables. What the request says in `chat_template_kwargs` counts more
/// than what follows from `reasoning_effort`.
fn variables(request: &mut ValidChatRequest) -> Map<String, Value> {
    let mut variables = Map::new();
    match request.reasoning_effort {
        None | Some("auto") => {}
        Some("none") => {
            // Templates disagree on the name; one that doesn't know a variable ignores it.
            variables.insert("reasoning_effort".to_owned(), Value::from("none"));
            variables.insert("reasoning".to_owned(), Value::from(false));
            variables.insert("enable_thinking".to_owned(), Value::from(false));
        }
        Some(effort) => {
            variables.insert("reasoning_effort".to_owned(), Value::from(effort));
        }
    }
    variables.extend(std::mem::take(&mut request.chat_template_kwargs));
    variables
}

/// The template's own words may repeat the conversation, so the client gets none of them.
fn refused(model: &ServedModel, error: TemplateError, param: &'static str) -> ApiError {
    match error {
        TemplateError::ControlTexts(tokens) => prepare::too_long(model, tokens, None, param),
        TemplateError::Raised(_) | TemplateError::UnsupportedContent(_) => ApiError::invalid_field(
            param,
            "is not a conversation that the chat template accepts",
        ),
        TemplateError::Limit => ApiError::invalid_field(
            param,
            "takes the chat template more time or memory than it may",
        ),
        TemplateError::Failed(reason) | TemplateError::Syntax(reason) => {
            tracing::warn!(%reason, "the chat template failed on a request");
            ApiError::invalid_field(param, "cannot be rendered by the chat template")
        }
    }
}

/// Puts a mark behind the final message's text. A template may trim or rearrange the text, but
/// where the mark comes out is where the model has to go on.
fn mark_end(messages: &mut [Value]) -> String {
    let mark = format!("{:032x}", random_u128());
    if let Some(Value::String(content)) = messages
        .last_mut()
        .and_then(|message| message.get_mut("content"))
    {
        content.push_str(&mark);
    }
    mark
}

fn cut_at(mut rendered: PromptText, mark: &str) -> Result<PromptText, ApiError> {
    let Some(end) = rendered.as_str().rfind(mark) else {
        let explanation = "the chat template does not let this message be continued";
        return Err(ApiError::unsupported_field(
            "continue_final_message",
            explanation,
        ));
    };
    rendered.truncate(end);
    // A template that writes the text twice has no one place to go on from.
    match rendered.as_str().contains(mark) {
        true => Err(ApiError::unsupported_field(
            "continue_final_message",
            "the chat template writes this message more than once",
        )),
        false => Ok(rendered),
    }
}
