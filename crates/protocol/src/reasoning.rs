//! Whether a chat's answer reasons, how long, and whether the client sees it: the fields that
//! different providers have for that, beside `reasoning_effort` and `include_reasoning`.
//!
//! - vLLM: `thinking_token_budget`. DashScope: `thinking_budget`.
//! - OpenRouter: `reasoning` with `max_tokens`, `effort`, `enabled` and `exclude`.
//! - Anthropic, Z.ai, DeepSeek: `thinking` with `type` and `budget_tokens`.
//! - Google: `thinking_budget` in `thinking_config` in `google`, perhaps in `extra_body`.
//! - Templates: `thinking_budget` and `thinking_token_budget` in `chat_template_kwargs`, which they
//!   still get.

use crate::chat::{ValidChatRequest, parse_effort};
use crate::error::ApiError;
use crate::fields::{Fields, as_integer};

/// The names of a budget in a body and among a template's variables.
const NAMES: [&str; 2] = ["thinking_token_budget", "thinking_budget"];

/// What a request says about reasoning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reasoning {
    budget: Option<u32>,
    effort: Option<&'static str>,
    hidden: bool,
}

/// The fields of a chat.
pub(crate) fn parse(body: &Fields<'_>) -> Result<Reasoning, ApiError> {
    let mut reasoning = Reasoning::default();
    for name in NAMES {
        reasoning.limit(budget(body, name)?);
    }
    if let Some(settings) = object(body, "reasoning") {
        reasoning.limit(budget(&settings, "max_tokens")?);
        reasoning.effort = parse_effort(&settings, "effort")?;
        reasoning.hidden = settings.flag("exclude", false)?;
        if !settings.flag("enabled", true)? {
            reasoning.effort = Some("none");
        }
    }
    if let Some(thinking) = object(body, "thinking") {
        reasoning.limit(budget(&thinking, "budget_tokens")?);
        if thinking.string("type")? == Some("disabled") {
            reasoning.effort = Some("none");
        }
    }
    let extra = object(body, "extra_body");
    let google = object(extra.as_ref().unwrap_or(body), "google");
    if let Some(config) = google.and_then(|google| object(&google, "thinking_config")) {
        reasoning.limit(budget(&config, "thinking_budget")?);
    }
    if let Some(variables) = object(body, "chat_template_kwargs") {
        // What is no number is for the template to understand.
        let numbers = NAMES.into_iter().filter(|name| {
            let value = variables.get(name);
            value.is_some_and(|value| as_integer(value).is_some())
        });
        for name in numbers {
            reasoning.limit(budget(&variables, name)?);
        }
    }
    Ok(reasoning)
}

/// An object among the fields. Other providers have other things of these names.
fn object<'a>(fields: &Fields<'a>, name: &str) -> Option<Fields<'a>> {
    Fields::of_value(fields.get(name)?, fields.path(name)).ok()
}

/// Tokens of reasoning at most. -1 leaves them open.
pub(crate) fn budget(fields: &Fields<'_>, name: &str) -> Result<Option<u32>, ApiError> {
    let budget = fields.integer(name, -1..=i64::from(i32::MAX))?;
    Ok(budget.and_then(|budget| u32::try_from(budget).ok()))
}

impl Reasoning {
    /// The smallest budget binds.
    fn limit(&mut self, budget: Option<u32>) {
        self.budget = self.budget.into_iter().chain(budget).min();
    }

    /// What the chat's own fields say counts more.
    pub(crate) fn apply(self, chat: &mut ValidChatRequest) {
        chat.reasoning_budget = self.budget;
        chat.reasoning_effort = chat.reasoning_effort.or(self.effort);
        chat.include_reasoning &= !self.hidden;
    }
}
