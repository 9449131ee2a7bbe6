//! The body of `POST /v1/chat/completions`, parsed once.

use serde_json::{Map, Value};

use crate::binding_format;
use crate::error::ApiError;
use crate::fields::{Fields, element, parse_chat_body};
use crate::foreign::UnsupportedContent;
use crate::limits::{MAX_DOCUMENTS, MAX_LABEL_BYTES, MAX_TEMPLATE_KWARGS, MAX_TOP_LOGPROBS};
use crate::messages::{Conversation, parse_messages};
use crate::output_format::{OutputFormat, parse_output_format};
use crate::reasoning;
use crate::sampling::{SamplingFields, StreamOptions, parse_priority, parse_stream};
use crate::tools::{ToolChoice, parse_tools};
use crate::unsupported;

const EFFORTS: [&str; 8] = [
    "none", "minimal", "low", "medium", "high", "xhigh", "max", "auto",
];

/// Variables of the chat template that the request's own fields set.
const RESERVED_KWARGS: [&str; 7] = [
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template",
    "tokenize",
];

/// A chat request that holds nothing the server would have to refuse, apart from what depends
/// on the model: its name, its vocabulary and its context length.
///
/// Accepted and ignored, among unknown fields: `prediction`, `store`, `service_tier`,
/// `metadata`, `prompt_cache_key`, `safety_identifier`, `verbosity`, `web_search_options`.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidChatRequest {
    /// The model that was asked for, if any.
    pub model: Option<String>,
    /// At least one message, each in the form that chat templates read: `role` is system, user,
    /// assistant or tool; `content` is a string or, where several came, a list of text parts (never
    /// the assistant's); assistant messages may have `reasoning` and
    /// `reasoning_content` (equal) and `tool_calls`, whose `arguments` are objects unless the model
    /// that wrote them wrote something else, and `quotes: true` if their text repeats what others
    /// wrote; tool messages have `tool_call_id`; any may have `name`.
    pub messages: Vec<Value>,
    /// The tools, each `{"type": "function", "function": {"name", "description",
    /// "parameters"}}`. See [`ValidChatRequest::offered_tools`].
    pub tools: Vec<Value>,
    /// Whether the model may call them.
    pub tool_choice: ToolChoice,
    /// The names of the tools that the choice is limited to; all others stay in the prompt.
    pub allowed_tools: Option<Vec<String>>,
    /// The names of the tools whose arguments must satisfy their schemas even where the model is
    /// free to call none.
    pub strict_tools: Vec<String>,
    /// If false, at most one call may be returned.
    pub parallel_tool_calls: bool,
    /// The request spoke of `functions`, and its answer does too.
    pub legacy_functions: bool,
    /// What the answer's text must look like.
    pub output_format: OutputFormat,
    /// The answer must satisfy all of its schema, not just what can be enforced.
    pub format_is_binding: bool,
    /// Which fields of the request hold what a constrained answer follows.
    pub constraint_paths: ConstraintPaths,
    /// How to sample and when to stop.
    pub sampling: SamplingFields,
    /// `Some` if the answer is to be streamed.
    pub stream: Option<StreamOptions>,
    /// The prompt ends with the opening of an assistant's turn.
    pub add_generation_prompt: bool,
    /// The prompt ends within the final message, which is the assistant's and holds text alone.
    /// Never true together with `add_generation_prompt`.
    pub continue_final_message: bool,
    /// The name of the chat template, unless the model's usual one is meant.
    pub chat_template: Option<String>,
    /// Further variables for the chat template; none that the request's own fields set.
    pub chat_template_kwargs: Map<String, Value>,
    /// One of none, minimal, low, medium, high, xhigh, max, auto: a variable for the template.
    pub reasoning_effort: Option<&'static str>,
    /// Tokens of reasoning at most.
    pub reasoning_budget: Option<u32>,
    /// Return the reasoning with the answer.
    pub include_reasoning: bool,
    /// Documents for the chat template; each is an object.
    pub documents: Vec<Value>,
    /// Report the ids of the tokens of prompt and answer.
    pub return_token_ids: bool,
    /// Lower runs earlier.
    pub priority: i32,
    /// Whom the client serves.
    pub user: Option<String>,
}

impl ValidChatRequest {
    /// A request that answers `messages` and leaves everything else at its default.
    pub fn new(messages: Vec<Value>) -> Self {
        Self {
            model: None,
            messages,
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            allowed_tools: None,
            strict_tools: Vec::new(),
            parallel_tool_calls: true,
            legacy_functions: false,
            output_format: OutputFormat::Text,
            format_is_binding: true,
            constraint_paths: ConstraintPaths::default(),
            sampling: SamplingFields::default(),
            stream: None,
            add_generation_prompt: true,
            continue_final_message: false,
            chat_template: None,
            chat_template_kwargs: Map::new(),
            reasoning_effort: None,
            reasoning_budget: None,
            include_reasoning: true,
            documents: Vec::new(),
            return_token_ids: false,
            priority: 0,
            user: None,
        }
    }

    /// Parses a body; every error is a 400 that names the field. `unsupported` says what becomes of
    /// images and the like in the latest user message.
    pub fn from_bytes(body: &[u8], unsupported: UnsupportedContent) -> Result<Self, ApiError> {
        Self::from_value(&parse_chat_body(body)?, unsupported)
    }

    /// As [`ValidChatRequest::from_bytes`], from JSON that is parsed already.
    pub fn from_value(body: &Value, unsupported: UnsupportedContent) -> Result<Self, ApiError> {
        let body = &Fields::of_body(body)?;
        let conversation = parse_messages(body, unsupported)?;
        unsupported::check(body)?;
        check_chat_only(body)?;
        let ending = parse_ending(body, &conversation)?;
        let offer = parse_tools(body)?;
        let asked = parse_output_format(body)?;
        let reasoning = reasoning::parse(body)?;
        let mut chat = Self {
            model: body.label("model", MAX_LABEL_BYTES)?.map(str::to_owned),
            constraint_paths: ConstraintPaths {
                tools: if offer.legacy { "functions" } else { "tools" },
                tool_schema: if offer.legacy {
                    "parameters"
                } else {
                    "function.parameters"
                },
                tool_choice: if offer.legacy {
                    "function_call"
                } else {
                    "tool_choice"
                },
                output_format: asked.path,
            },
            // The legacy form has room for one call.
            parallel_tool_calls: body.flag("parallel_tool_calls", true)? && !offer.legacy,
            legacy_functions: offer.legacy,
            tools: offer.tools,
            tool_choice: offer.choice,
            allowed_tools: offer.allowed,
            strict_tools: offer.strict,
            output_format: asked.format,
            format_is_binding: binding_format::of_chat(body),
            sampling: SamplingFields::parse(body, parse_logprobs(body)?)?,
            stream: parse_stream(body)?,
            add_generation_prompt: ending.add_generation_prompt,
            continue_final_message: ending.continue_final_message,
            chat_template: parse_template_name(body)?,
            chat_template_kwargs: parse_template_kwargs(body)?,
            reasoning_effort: parse_effort(body, "reasoning_effort")?,
            reasoning_budget: None,
            include_reasoning: parse_include_reasoning(body)?,
            documents: parse_documents(body)?,
            return_token_ids: body.flag("return_token_ids", false)?,
            priority: parse_priority(body)?,
            user: body.label("user", MAX_LABEL_BYTES)?.map(str::to_owned),
            messages: conversation.messages,
        };
        reasoning.apply(&mut chat);
        Ok(chat)
    }

    /// The tools that the model may call, for the template and for the parser of its answer:
    /// none at all if `tool_choice` forbids calls.
    pub fn offered_tools(&self) -> &[Value] {
        match self.tool_choice {
            ToolChoice::None => &[],
            _ => &self.tools,
        }
    }
}

/// Names of request fields for the errors of constrained answers, which are found after parsing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConstraintPaths {
    /// The array of tools.
    pub tools: &'static str,
    /// The schema of the arguments, within a tool.
    pub tool_schema: &'static str,
    /// The choice between tools.
    pub tool_choice: &'static str,
    /// The form of the text.
    pub output_format: &'static str,
}

impl Default for ConstraintPaths {
    /// The names that `POST /v1/chat/completions` has.
    fn default() -> Self {
        Self {
            tools: "tools",
            tool_schema: "function.parameters",
            tool_choice: "tool_choice",
            output_format: "response_format",
        }
    }
}

impl ConstraintPaths {
    /// The path of the schema of the tool with this index.
    pub fn tool_schema(&self, index: usize) -> String {
        format!("{}.{index}.{}", self.tools, self.tool_schema)
    }
}

struct Ending {
    add_generation_prompt: bool,
    continue_final_message: bool,
}

/// How the prompt ends: with a new assistant's turn, within the final message, or neither.
fn parse_ending(body: &Fields<'_>, conversation: &Conversation) -> Result<Ending, ApiError> {
    let generation_prompt = body.boolean("add_generation_prompt")?;
    let asked = body.flag("continue_final_message", false)?;
    if asked && generation_prompt == Some(true) {
        let requirement = "must not be set together with add_generation_prompt";
        return Err(body.invalid("continue_final_message", requirement));
    }
    let continue_final_message = asked || conversation.final_is_prefix;
    if continue_final_message && !conversation.final_is_open {
        let requirement = "needs a final assistant message without tool calls";
        let last = conversation.messages.len() - 1;
        return Err(match asked {
            true => body.invalid("continue_final_message", requirement),
            false => ApiError::invalid_field(format!("messages.{last}.prefix"), requirement),
        });
    }
    let add_generation_prompt = !continue_final_message && generation_prompt.unwrap_or(true);
    Ok(Ending {
        add_generation_prompt,
        continue_final_message,
    })
}

/// Fields of the chat endpoint that ask for what a text model cannot do.
fn check_chat_only(body: &Fields<'_>) -> Result<(), ApiError> {
    if body.get("audio").is_some_and(unsupported::is_set) {
        return Err(body.unsupported("audio", "this model writes text only"));
    }
    let modalities = body.array("modalities", 16)?.unwrap_or_default();
    if modalities.iter().any(|modality| modality != "text") {
        return Err(body.unsupported("modalities", "only ['text'] is available"));
    }
    if body.flag("echo", false)? {
        return Err(body.unsupported("echo", "it is available for completions only"));
    }
    Ok(())
}

/// vLLM's field, and that of Groq and llama.cpp, in which reasoning can be hidden as well.
fn parse_include_reasoning(body: &Fields<'_>) -> Result<bool, ApiError> {
    let include = body.flag("include_reasoning", true)?;
    match body.string("reasoning_format")? {
        None | Some("parsed" | "auto" | "deepseek") => Ok(include),
        Some("hidden") => Ok(false),
        Some(_) => {
            let explanation = "only 'parsed' and 'hidden' are available";
            Err(body.unsupported("reasoning_format", explanation))
        }
    }
}

fn parse_logprobs(body: &Fields<'_>) -> Result<Option<u32>, ApiError> {
    let wanted = body.flag("logprobs", false)?;
    let alternatives = body
        .unsigned("top_logprobs", 0..=MAX_TOP_LOGPROBS)?
        .unwrap_or(0);
    if alternatives > 0 && !wanted {
        return Err(body.invalid("top_logprobs", "needs logprobs to be true"));
    }
    Ok(wanted.then_some(alternatives))
}

/// The effort in field `name`.
pub(crate) fn parse_effort(
    fields: &Fields<'_>,
    name: &str,
) -> Result<Option<&'static str>, ApiError> {
    let Some(asked) = fields.string(name)? else {
        return Ok(None);
    };
    match EFFORTS.into_iter().find(|effort| *effort == asked) {
        Some(effort) => Ok(Some(effort)),
        None => {
            let requirement = format!("must be one of {}", EFFORTS.join(", "));
            Err(fields.invalid(name, &requirement))
        }
    }
}

/// In vLLM's requests the text of a template; here the name of one that the model has.
fn parse_template_name(body: &Fields<'_>) -> Result<Option<String>, ApiError> {
    let Some(name) = body
        .string("chat_template")?
        .filter(|name| !name.is_empty())
    else {
        return Ok(None);
    };
    if name.contains(['{', '\n']) {
        let explanation = "it is the name of one of the model's own templates; a template's text \
                           is not taken from requests";
        return Err(body.unsupported("chat_template", explanation));
    }
    Ok(body
        .label("chat_template", MAX_LABEL_BYTES)?
        .map(str::to_owned))
}

fn parse_template_kwargs(body: &Fields<'_>) -> Result<Map<String, Value>, ApiError> {
    let Some(kwargs) = body.object("chat_template_kwargs")? else {
        return Ok(Map::new());
    };
    let entries = kwargs.entries();
    if entries.len() > MAX_TEMPLATE_KWARGS {
        let requirement = format!("must have at most {MAX_TEMPLATE_KWARGS} entries");
        return Err(body.invalid("chat_template_kwargs", &requirement));
    }
    if let Some(reserved) = RESERVED_KWARGS
        .iter()
        .find(|name| entries.contains_key(**name))
    {
        return Err(kwargs.invalid(reserved, "is set by the request's own fields"));
    }
    Ok(entries.clone())
}

fn parse_documents(body: &Fields<'_>) -> Result<Vec<Value>, ApiError> {
    let elements = body.array("documents", MAX_DOCUMENTS)?.unwrap_or_default();
    for (index, value) in elements.iter().enumerate() {
        Fields::of_value(value, element("documents", index))?;
    }
    Ok(elements.to_vec())
}
