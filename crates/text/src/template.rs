//! Renders a chat as the model's prompt, with the semantics of Hugging Face's chat templates.
//!
//! Those are Jinja2 templates with `trim_blocks`, `lstrip_blocks`, loop controls, Python's methods
//! on strings and maps, a `tojson` like `json.dumps`, `raise_exception` and `strftime_now`.
//! `{% generation %}` blocks, which matter in training alone, are read as if they weren't there.

mod apart;
mod arguments;
mod budget;
mod clock;
mod filters;
mod formatting;
mod json;
mod messages;
mod methods;
mod named;
mod operations;
mod plainer;
mod program;
mod python_text;
mod slices;
mod survey;
mod texts;
mod views;

use std::collections::BTreeMap;

use backstop_input::ValueAllowance;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value as JinjaValue, ValueKind};
use minijinja::{Environment, Error, ErrorKind};
use serde_json::{Map, Value};

use self::arguments::ArgumentRules;
pub use self::messages::ContentFormat;
use self::messages::{ContentFormats, MessageRules, Role};
pub use self::named::{ChatTemplates, TemplateChoiceError};
pub use self::plainer::Plainness;
use self::program::Program;
use crate::deep_stack;

/// Instructions that one rendering may take, guards included: some seconds. Templates that number tool calls over
/// the whole chat take quadratic time, so that a chat of two thousand calls comes near to it.
const FUEL: u64 = 150_000_000;
/// The same, while a template is loaded: it renders two short messages then, several times.
const PROBE_FUEL: u64 = 5_000_000;
const RECURSION_LIMIT: usize = 200;
/// Values and keys of all arguments of calls that come as JSON text.
const ARGUMENT_VALUES_MAX: usize = 256 << 10;
/// Stack for what a source within its limits may need.
const STACK_BYTES: usize = 64 << 20;
/// Where `strftime_now` finds the time.
const NOW: &str = "__now_unix_seconds";

/// Why a chat could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template itself is broken; found when it is loaded.
    #[error("chat template cannot be parsed: {0}")]
    Syntax(String),
    /// The template asks for what is not there; found when it is loaded.
    #[error("chat template asks for what is not supported: {0}")]
    Unsupported(String),
    /// The template refuses this chat, in its author's words: the request is at fault.
    #[error("{0}")]
    Raised(String),
    /// A message has a content part of a kind that can't be given to the model.
    #[error("content part of type `{0}` is not supported by this model's chat template")]
    UnsupportedContent(String),
    /// The chat has more texts of control tokens than it may have, at least so many.
    #[error("{0} texts of control tokens")]
    ControlTexts(usize),
    /// Rendering took more time or memory than it may.
    #[error("chat template did not finish within its limits")]
    Limit,
    /// The template failed in another way.
    #[error("chat template failed: {0}")]
    Failed(String),
}

/// Everything that a template may look at.
#[derive(Clone, Debug, Default)]
pub struct ChatTemplateInput {
    /// The messages, as the OpenAI API writes them.
    pub messages: Vec<Value>,
    /// The tools on offer, as the OpenAI API writes them.
    pub tools: Option<Vec<Value>>,
    /// Documents to ground the answer in.
    pub documents: Option<Vec<Value>>,
    /// End with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Text of the beginning-of-sequence token.
    pub bos_token: Option<String>,
    /// Text of the end-of-sequence token.
    pub eos_token: Option<String>,
    /// Further variables (`reasoning_effort`, `chat_template_kwargs` …). They cannot replace the
    /// ones above, except the special tokens.
    pub extra: Map<String, Value>,
    /// The time that `strftime_now` shows, in UTC. Given, not read, so that a prompt can be
    /// reproduced.
    pub now_unix_seconds: i64,
}

/// A model's chat template.
pub struct ChatTemplate {
    source: String,
    program: Program,
    /// Bytes that a rendering may make.
    bytes_max: usize,
    environment: Environment<'static>,
    doubtful: Vec<String>,
    content_formats: ContentFormats,
    rules: MessageRules,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ChatTemplate")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// Compiles a template.
    pub fn from_source(source: &str) -> Result<Self, TemplateError> {
        Self::with_limits(source, FUEL, budget::BYTES_MAX)
    }

    fn with_limits(source: &str, fuel: u64, bytes_max: usize) -> Result<Self, TemplateError> {
        let syntax_error = |error: Error| TemplateError::Syntax(error.to_string());
        let environment = environment(fuel.min(PROBE_FUEL)).map_err(syntax_error)?;
        let text = without_generation_blocks(source);
        let (program, survey) =
            on_deep_stack(|| Program::compile(text, &environment).map_err(syntax_error))?;
        if !survey.unsupported.is_empty() {
            return Err(TemplateError::Unsupported(survey.unsupported.join(", ")));
        }
        let mut template = Self {
            source: source.to_owned(),
            program,
            bytes_max,
            environment,
            doubtful: survey.doubtful,
            content_formats: ContentFormats::default(),
            rules: MessageRules::of_source(source),
        };
        template.content_formats = ContentFormats::by(|role| template.probe_content_format(role));
        template.rules.null_for_empty = template.wants_null_content();
        template.rules.arguments = ArgumentRules::of_template(&template);
        template.environment.set_fuel(Some(fuel));
        Ok(template)
    }

    /// The template as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Names that neither the engine nor jinja2 has, each with its line. Where one is reached, rendering fails.
    pub fn doubtful(&self) -> &[String] {
        &self.doubtful
    }

    /// How the template wants the content of the user's messages.
    pub fn content_format(&self) -> ContentFormat {
        self.content_formats.of(Role::User)
    }

    /// Renders the prompt.
    ///
    /// Messages are first brought into the shape that templates expect: the arguments of tool
    /// calls become objects where they are JSON text, and content is given as the template
    /// wants it of each role. Reasoning goes by each of the names
    /// that templates know. Arguments that are no object stand under a name of their own where the
    /// template writes nothing but objects. Ids of calls that are long become short. Where a template would refuse or drop calls as they are (it accepts ids
    /// of nine letters and digits alone, or only null as the content beside calls), they are changed
    /// to what it accepts.
    pub fn render(&self, input: &ChatTemplateInput) -> Result<String, TemplateError> {
        self.render_messages(input, to_jinja_all(&self.normalized(input)?))
    }

    fn normalized(&self, input: &ChatTemplateInput) -> Result<Vec<Value>, TemplateError> {
        let allowance = ValueAllowance::new(ARGUMENT_VALUES_MAX);
        let messages = input.messages.iter().map(|message| {
            let mut message = message.clone();
            messages::normalize(&mut message, self.content_formats, self.rules, &allowance)?;
            Ok(message)
        });
        messages.collect()
    }

    fn render_messages(
        &self,
        input: &ChatTemplateInput,
        messages: Vec<JinjaValue>,
    ) -> Result<String, TemplateError> {
        on_deep_stack(|| {
            budget::begin(self.bytes_max);
            let variables = variables(input, messages);
            self.program
                .run(&self.environment, variables)
                .map_err(classify)
        })
    }

    /// Whether calls are left out of the prompt unless the content beside them is null.
    fn wants_null_content(&self) -> bool {
        const NAME: &str = "probe4f1c";
        let shows_call = |content: Value| {
            let call = serde_json::json!({"id": NAME, "type": "function",
                "function": {"name": NAME, "arguments": {}}});
            let messages = [
                serde_json::json!({"role": "user", "content": "a"}),
                serde_json::json!({"role": "assistant", "content": content, "tool_calls": [call]}),
            ];
            let rendered =
                self.render_messages(&ChatTemplateInput::default(), to_jinja_all(&messages));
            rendered.is_ok_and(|text| text.contains(NAME))
        };
        !shows_call(Value::from("")) && shows_call(Value::Null)
    }

    /// Renders a message both ways and looks at what the template makes of it.
    ///
    /// vLLM looks for a loop over `message.content` in the template's syntax tree instead; that
    /// misses loops in macros and over variables, and needs the engine's unstable interfaces.
    fn probe_content_format(&self, role: Role) -> ContentFormat {
        const NEEDLE: &str = "needle-4f1c";
        let probe = |content: Value| {
            let messages = role.conversation(&content);
            let input = ChatTemplateInput::default();
            self.render_messages(&input, to_jinja_all(&messages))
                .unwrap_or_default()
        };
        let string = probe(Value::from(NEEDLE));
        let parts = probe(serde_json::json!([{"type": "text", "text": NEEDLE}]));
        let parts_understood =
            parts.contains(NEEDLE) && !parts.contains("'type'") && !parts.contains("\"type\"");
        match (string.contains(NEEDLE), parts_understood) {
            (false, true) => ContentFormat::PartsOnly,
            (true, true) => ContentFormat::Parts,
            (_, false) => ContentFormat::String,
        }
    }
}

/// Everything that the template may look at, by name.
fn variables(input: &ChatTemplateInput, messages: Vec<JinjaValue>) -> JinjaValue {
    let mut context: BTreeMap<&str, JinjaValue> = BTreeMap::new();
    for (name, token) in [
        ("bos_token", &input.bos_token),
        ("eos_token", &input.eos_token),
    ] {
        if let Some(token) = token {
            context.insert(name, token.as_str().into());
        }
    }
    context.extend(
        input
            .extra
            .iter()
            .map(|(name, value)| (name.as_str(), to_jinja(value))),
    );
    let list = |items: &[Value]| items.iter().map(to_jinja).collect::<JinjaValue>();
    let optional_list = |items: &Option<Vec<Value>>| match items {
        Some(items) => list(items),
        None => JinjaValue::from(()),
    };
    context.insert("messages", messages.into());
    context.insert("tools", optional_list(&input.tools));
    context.insert("documents", optional_list(&input.documents));
    context.insert("add_generation_prompt", input.add_generation_prompt.into());
    context.insert(NOW, input.now_unix_seconds.into());
    JinjaValue::from_pairs(context)
}

/// Does work with the engine, which goes down its stack for each level of an expression, and for
/// each level of a value that it writes or drops.
fn on_deep_stack<T: Send>(
    work: impl FnOnce() -> Result<T, TemplateError> + Send,
) -> Result<T, TemplateError> {
    deep_stack::with_stack("chat-template", STACK_BYTES, work)
        .unwrap_or_else(|error| Err(TemplateError::Failed(format!("no thread: {error}"))))
}

/// Marks an error as made by the template's author.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct RaisedException(String);

fn environment(fuel: u64) -> Result<Environment<'static>, Error> {
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(fuel));
    environment.set_recursion_limit(RECURSION_LIMIT);
    operations::install(&mut environment);
    environment.add_filter("tojson", json::tojson);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    // In Jinja2 strings and maps count as sequences, and none is not iterable.
    environment.add_test("sequence", |value: &JinjaValue| {
        matches!(
            value.kind(),
            ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Undefined
        )
    });
    environment.add_test("callable", views::is_callable);
    environment.add_test("iterable", |value: &JinjaValue| {
        let kind = value.kind();
        matches!(
            kind,
            ValueKind::Seq
                | ValueKind::Iterable
                | ValueKind::Map
                | ValueKind::String
                | ValueKind::Undefined
        )
    });
    Ok(environment)
}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone())
        .with_source(RaisedException(message)))
}

fn strftime_now(state: &minijinja::State<'_, '_>, format: &str) -> Result<String, Error> {
    let now = state
        .lookup(NOW)
        .and_then(|now| now.as_i64())
        .unwrap_or_default();
    clock::strftime(now, format)
        .map_err(|unknown| Error::new(ErrorKind::InvalidOperation, unknown.to_string()))
}

fn classify(error: Error) -> TemplateError {
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        let kind = error.downcast_ref().map(Error::kind);
        if kind == Some(ErrorKind::OutOfFuel) {
            return TemplateError::Limit;
        }
        if let Some(RaisedException(message)) = error.downcast_ref() {
            return TemplateError::Raised(message.clone());
        }
        cause = error.source();
    }
    TemplateError::Failed(describe(&error))
}

/// What went wrong and where, without the template's variables, which hold the request.
fn describe(error: &Error) -> String {
    let line = error
        .line()
        .map(|line| format!(" (line {line})"))
        .unwrap_or_default();
    format!("{}{line}", error.kind())
}

fn to_jinja_all(values: &[Value]) -> Vec<JinjaValue> {
    values.iter().map(to_jinja).collect()
}

/// Converts a JSON value, keeping the order of keys.
fn to_jinja(value: &Value) -> JinjaValue {
    match value {
        Value::Null => JinjaValue::from(()),
        Value::Bool(value) => JinjaValue::from(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => JinjaValue::from(integer),
            (None, Some(integer)) => JinjaValue::from(integer),
            (None, None) => large_number(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => JinjaValue::from(text.as_str()),
        Value::Array(items) => items.iter().map(to_jinja).collect(),
        Value::Object(map) => JinjaValue::from_pairs(
            map.iter()
                .map(|(key, value)| (key.as_str(), to_jinja(value))),
        ),
    }
}

/// A number that the JSON parser could only keep as a float. Those that were written without an
/// exponent are integers to Python; below 1e21 that is how JavaScript writes all of them.
fn large_number(number: f64) -> JinjaValue {
    const BEYOND_64_BITS: std::ops::Range<f64> = 18_446_744_073_709_551_616.0..1e21;
    if BEYOND_64_BITS.contains(&number.abs()) {
        JinjaValue::from(number as i128)
    } else {
        JinjaValue::from(number)
    }
}

/// Turns `{% generation %}` into `{% if true %}`, which keeps every rule about white space.
fn without_generation_blocks(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        result.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end + 2);
        let word = tag[2..end].trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        match word {
            "generation" => result.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => result.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => result.push_str(tag),
        }
        rest = after;
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests;
