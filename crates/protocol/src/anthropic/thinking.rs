//! Whether the model reasons, and how much of it the answer shows.

use serde_json::Value;

use crate::chat::ValidChatRequest;
use crate::error::ApiError;
use crate::fields::Fields;

const EFFORTS: [&str; 5] = ["low", "medium", "high", "xhigh", "max"];

/// How much of the reasoning an answer shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThinkingDisplay {
    /// The text.
    #[default]
    Full,
    /// Only that there was some: a block without text.
    Omitted,
}

/// What a request says about reasoning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thinking {
    on: bool,
    /// Tokens of reasoning at most.
    budget: Option<u32>,
    pub(super) display: ThinkingDisplay,
}

/// A request that does not mention thinking gets none: its client may well read the first block
/// of the answer as text. Anthropic's least `budget_tokens` is 1024, and less than `max_tokens`; here
/// it is any number, and `max_tokens` bounds reasoning and answer together all the same.
pub(super) fn parse_thinking(body: &Fields<'_>) -> Result<Thinking, ApiError> {
    let off = Thinking {
        on: false,
        budget: None,
        display: ThinkingDisplay::Full,
    };
    let Some(thinking) = body.object("thinking")? else {
        return Ok(off);
    };
    let display = match thinking.string("display")? {
        None | Some("summarized") => ThinkingDisplay::Full,
        Some("omitted") => ThinkingDisplay::Omitted,
        Some(_) => {
            return Err(thinking.invalid("display", "must be 'summarized' or 'omitted'"));
        }
    };
    match thinking.string("type")? {
        None => Err(thinking.missing("type")),
        Some("disabled") => Ok(off),
        Some("enabled") => {
            let budget = thinking.unsigned("budget_tokens", 0..=i32::MAX as u32)?;
            Ok(Thinking {
                on: true,
                budget: Some(budget.ok_or_else(|| thinking.missing("budget_tokens"))?),
                display,
            })
        }
        Some("adaptive") => Ok(Thinking {
            on: true,
            budget: thinking.unsigned("budget_tokens", 0..=i32::MAX as u32)?,
            display,
        }),
        Some("between_tools") => {
            Err(thinking.unsupported("type", "use 'enabled', 'adaptive' or 'disabled'"))
        }
        Some(_) => Err(thinking.invalid("type", "must be 'enabled', 'adaptive' or 'disabled'")),
    }
}

/// `output_config.effort`, a variable for the template.
pub(super) fn parse_effort(body: &Fields<'_>) -> Result<Option<&'static str>, ApiError> {
    let Some(config) = body.object("output_config")? else {
        return Ok(None);
    };
    let Some(asked) = config.string("effort")? else {
        return Ok(None);
    };
    match EFFORTS.into_iter().find(|effort| *effort == asked) {
        Some(effort) => Ok(Some(effort)),
        None => {
            let requirement = format!("must be one of {}", EFFORTS.join(", "));
            Err(config.invalid("effort", &requirement))
        }
    }
}

impl Thinking {
    /// Says it in the variables that templates read, which disagree on the name.
    pub(super) fn apply(self, effort: Option<&'static str>, chat: &mut ValidChatRequest) {
        chat.include_reasoning = self.on;
        chat.reasoning_budget = self.budget;
        chat.reasoning_effort = if self.on { effort } else { Some("none") };
        for name in ["reasoning", "enable_thinking"] {
            let on = self.on && self.budget != Some(0);
            chat.chat_template_kwargs
                .insert(name.to_owned(), Value::Bool(on));
        }
    }
}
