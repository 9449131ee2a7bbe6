//! Brings messages into the shape that chat templates expect.

use backstop_input::{JsonError, ValueAllowance};
use serde_json::{Map, Value, json};

use super::TemplateError;
use super::arguments::ArgumentRules;

/// How a template wants the content of a message that has several parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentFormat {
    /// As one string: the texts of the parts are joined by newlines.
    String,
    /// As it came: the template understands both strings and lists of parts.
    Parts,
    /// As a list of parts always: the template does not understand strings.
    PartsOnly,
}

/// Whose message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    System,
    User,
    Assistant,
    Tool,
}

impl Role {
    /// The role of a message; roles that are not known count as the user's.
    fn of(message: &Map<String, Value>) -> Self {
        match message.get("role").and_then(Value::as_str) {
            Some("system" | "developer") => Self::System,
            Some("assistant") => Self::Assistant,
            Some("tool") => Self::Tool,
            _ => Self::User,
        }
    }

    /// A conversation in which a message of this role has such a content.
    pub(super) fn conversation(self, content: &Value) -> Vec<Value> {
        let user = json!({"role": "user", "content": "a"});
        match self {
            Self::System => vec![json!({"role": "system", "content": content}), user],
            Self::User => vec![json!({"role": "user", "content": content})],
            Self::Assistant => vec![user, json!({"role": "assistant", "content": content})],
            Self::Tool => {
                let call = json!({"id": "probe4f1c", "type": "function",
                    "function": {"name": "probe", "arguments": {}}});
                vec![
                    user,
                    json!({"role": "assistant", "content": "", "tool_calls": [call]}),
                    json!({"role": "tool", "tool_call_id": "probe4f1c", "content": content}),
                ]
            }
        }
    }
}

/// How a template wants the content of each role's messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct ContentFormats([ContentFormat; 4]);

impl Default for ContentFormats {
    fn default() -> Self {
        Self([ContentFormat::Parts; 4])
    }
}

impl ContentFormats {
    pub(super) fn by(format: impl Fn(Role) -> ContentFormat) -> Self {
        Self([Role::System, Role::User, Role::Assistant, Role::Tool].map(format))
    }

    pub(super) fn of(self, role: Role) -> ContentFormat {
        self.0[role as usize]
    }
}

/// Longest id of a call that a template gets as it is. Some providers keep their own state in theirs,
/// and some templates write them.
const ID_BYTES_MAX: usize = 64;

/// What else a template wants of messages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MessageRules {
    /// What it understands as the arguments of a call.
    pub(super) arguments: ArgumentRules,
    /// It takes a message with calls for one if its content is null, not an empty string.
    pub(super) null_for_empty: bool,
    /// It accepts no ids of calls but those of nine letters and digits.
    pub(super) short_ids: bool,
    /// It refuses calls that have both text and reasoning.
    pub(super) text_or_thinking: bool,
}

impl MessageRules {
    /// What a template says in its refusals.
    pub(super) fn of_source(source: &str) -> Self {
        Self {
            arguments: ArgumentRules::default(),
            null_for_empty: false,
            short_ids: source.contains("alphanumeric strings with length 9"),
            text_or_thinking: source.contains("Cannot pass both content and thinking"),
        }
    }
}

/// Normalises one message in place. What is not an object is left for the template to refuse.
pub(super) fn normalize(
    message: &mut Value,
    formats: ContentFormats,
    rules: MessageRules,
    allowance: &ValueAllowance,
) -> Result<(), TemplateError> {
    let Some(message) = message.as_object_mut() else {
        return Ok(());
    };
    name_reasoning(message, rules);
    let calls = message.get("tool_calls").and_then(Value::as_array);
    let is_empty = message.get("content").and_then(Value::as_str) == Some("");
    if rules.null_for_empty && is_empty && calls.is_some_and(|calls| !calls.is_empty()) {
        message.insert("content".to_owned(), Value::Null);
    }
    if let Some(id) = message.get_mut("tool_call_id") {
        shorten_id(id, rules);
    }
    if let Some(calls) = message.get_mut("tool_calls").and_then(Value::as_array_mut) {
        for call in calls {
            if let Some(id) = call.get_mut("id") {
                shorten_id(id, rules);
            }
            if let Some(function) = call.get_mut("function").and_then(Value::as_object_mut) {
                normalize_arguments(function, rules.arguments, allowance)?;
            }
        }
    }
    let format = formats.of(Role::of(message));
    match message.get_mut("content") {
        Some(content) => normalize_content(content, format),
        None => Ok(()),
    }
}

/// Gives reasoning the names by which templates look for it, as transformers does.
fn name_reasoning(message: &mut Map<String, Value>, rules: MessageRules) {
    let names = ["reasoning_content", "thinking", "reasoning"];
    let found = names
        .iter()
        .find_map(|name| message.get(*name).filter(|value| !value.is_null()));
    let Some(reasoning) = found.cloned() else {
        return;
    };
    let has_content = message
        .get("content")
        .is_some_and(|content| *content != "" && !content.is_null());
    let is_refused = rules.text_or_thinking && has_content && message.contains_key("tool_calls");
    if !is_refused && !message.contains_key("thinking") {
        message.insert("thinking".to_owned(), reasoning.clone());
    }
    message.insert("reasoning_content".to_owned(), reasoning);
}

/// Puts nine letters and digits in place of an id that is too long, or that is none such where the
/// template insists; always the same ones, so that a result still belongs to its call.
fn shorten_id(id: &mut Value, rules: MessageRules) {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let Some(text) = id.as_str() else {
        return;
    };
    let is_short = text.len() == 9 && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_short || (!rules.short_ids && text.len() <= ID_BYTES_MAX) {
        return;
    }
    // FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/
    let mut hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut digit = || {
        let digit = DIGITS[(hash % 36) as usize];
        hash /= 36;
        char::from(digit)
    };
    *id = Value::String((0..9).map(|_| digit()).collect());
}

/// Templates write arguments with `tojson`, so JSON text must be parsed or it is quoted twice.
/// Text that is no JSON (a client may well send back an answer that was cut off) stays a string.
fn normalize_arguments(
    function: &mut Map<String, Value>,
    rules: ArgumentRules,
    allowance: &ValueAllowance,
) -> Result<(), TemplateError> {
    let arguments = match function.get("arguments") {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(Value::String(text)) if text.trim().is_empty() => Value::Object(Map::new()),
        Some(Value::String(text)) => match allowance.parse(text.as_bytes()) {
            Ok(parsed @ (Value::Object(_) | Value::Array(_))) => parsed,
            Err(JsonError::TooManyValues) => return Err(TemplateError::Limit),
            Ok(_) | Err(JsonError::Syntax(_)) => Value::String(text.clone()),
        },
        Some(other) => other.clone(),
    };
    function.insert("arguments".to_owned(), rules.adapt(arguments));
    Ok(())
}

fn normalize_content(content: &mut Value, format: ContentFormat) -> Result<(), TemplateError> {
    match (format, &*content) {
        (ContentFormat::String, Value::Array(parts)) => *content = Value::String(join(parts)?),
        (ContentFormat::PartsOnly, Value::String(text)) => {
            *content = serde_json::json!([{"type": "text", "text": text}]);
        }
        _ => {}
    }
    Ok(())
}

fn join(parts: &[Value]) -> Result<String, TemplateError> {
    let mut texts = Vec::with_capacity(parts.len());
    for part in parts {
        let text = part
            .as_str()
            .or_else(|| part.get("text").and_then(Value::as_str));
        let Some(text) = text else {
            let kind = part
                .get("type")
                .and_then(Value::as_str)
                .unwrap_or("unknown");
            return Err(TemplateError::UnsupportedContent(kind.to_owned()));
        };
        texts.push(text);
    }
    Ok(texts.join("\n"))
}
