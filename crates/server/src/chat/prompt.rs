//! From a conversation to the text of its prompt.

use std::time::{SystemTime, UNIX_EPOCH};

use backstop_protocol::{ApiError, ValidChatRequest};
use backstop_text::constraint::Opening;
use backstop_text::{
    ChatTemplate, ChatTemplateInput, Continuation, NoPlace, Plainness, PromptText, TemplateError,
};
use serde_json::{Map, Value};

use super::refusal;
use crate::entropy::random_u128;
use crate::model::ServedModel;
use crate::prepare;
use crate::server::Server;

/// A prompt, and where in the assistant's turn its answer begins.
pub(super) struct Rendered {
    pub(super) text: PromptText,
    pub(super) opening: Opening,
}

/// Renders the prompt; takes the conversation out of the request.
pub(super) fn render(
    server: &Server,
    model: &ServedModel,
    request: &mut ValidChatRequest,
    param: &'static str,
) -> Result<Rendered, ApiError> {
    let Some(templates) = &model.templates else {
        let explanation = "this model has no chat template; use the completions endpoint";
        return Err(ApiError::unsupported_field(param, explanation));
    };
    let format = model.chat_format;
    let continuation = request.continue_final_message.then(|| {
        let mark = format!("{:032x}", random_u128());
        Continuation::begin(&mut request.messages, format, mark)
    });
    let mut input = input(model, request);
    let template = templates
        .choose(request.chat_template.as_deref(), &input)
        .map_err(|error| ApiError::invalid_field("chat_template", &error.to_string()))?;
    let renderer = Renderer {
        server,
        model,
        template,
        param,
    };
    let Some(continuation) = continuation else {
        let text = renderer.text(&input)?;
        let opening = format.opening(text.as_str());
        return Ok(Rendered { text, opening });
    };
    let cut = continuation.cut(renderer.text(&input)?, format);
    let no_place = match cut {
        Ok((text, opening)) => return Ok(Rendered { text, opening }),
        Err(no_place) => no_place,
    };
    if continuation.is_within_reasoning() {
        // The template leaves reasoning out, or writes it otherwise than it came.
        input.messages.pop();
        input.add_generation_prompt = true;
        let begun = renderer.text(&input)?;
        let text = continuation.append_reasoning(begun, format, &model.control_texts);
        if let Some(text) = text {
            let opening = Opening::Reasoning;
            return Ok(Rendered { text, opening });
        }
    }
    Err(ApiError::unsupported_field(
        "continue_final_message",
        match no_place {
            NoPlace::Absent => "the chat template does not let this message be continued",
            NoPlace::Repeated => "the chat template writes this message more than once",
        },
    ))
}

struct Renderer<'a> {
    server: &'a Server,
    model: &'a ServedModel,
    template: &'a ChatTemplate,
    /// The field that held the conversation.
    param: &'static str,
}

impl Renderer<'_> {
    /// Renders the conversation as it is, or else in the first plainer form that the template
    /// accepts. What it says of the conversation as it is counts.
    fn text(&self, input: &ChatTemplateInput) -> Result<PromptText, ApiError> {
        let is_refused = |rendered: &Result<PromptText, TemplateError>| {
            let refusal = rendered.as_ref().err();
            refusal.is_some_and(|error| {
                matches!(error, TemplateError::Raised(_) | TemplateError::Failed(_))
            })
        };
        let mut rendered = self.render(input);
        for plainness in [Plainness::InTurns, Plainness::WithoutSystem] {
            if !is_refused(&rendered) {
                break;
            }
            let plainer = self.render(&input.plainer(plainness));
            if !is_refused(&plainer) {
                rendered = plainer;
            }
        }
        let Self {
            model, template, ..
        } = self;
        rendered.map_err(|error| refusal::of_template(model, template, error, self.param))
    }

    fn render(&self, input: &ChatTemplateInput) -> Result<PromptText, TemplateError> {
        let Self {
            model, template, ..
        } = self;
        match self.server.config().allow_special_tokens_in_content {
            true => template.render(input).map(PromptText::raw),
            false => {
                let mark = format!("{:039}", random_u128());
                let marks_max = prepare::counted_tokens_max(model);
                template.render_apart(input, &model.control_texts, &mark, marks_max)
            }
        }
    }
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
/// than what follows from `reasoning_effort`. A model that may not reason at all is asked not to.
fn variables(request: &mut ValidChatRequest) -> Map<String, Value> {
    let mut variables = Map::new();
    let effort = match (request.reasoning_effort, request.reasoning_budget) {
        (None | Some("auto"), Some(0)) => Some("none"),
        (effort, _) => effort,
    };
    match effort {
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
