//! What other providers wrote into a conversation and no chat template knows, as text.
//!
//! A history that another provider wrote is never a reason to refuse a request. Its words stay
//! words: what a search found, what a program printed, the text of a document. Where there are
//! none, a short note says what stood there, so that the model knows that it cannot see it. One
//! thing alone may be refused: what the user shows it now, in the [latest user
//! message](latest_user_message).

use std::fmt::Write;

use serde_json::Value;

use crate::error::ApiError;
use crate::fields::Fields;

/// What becomes of content in the latest user message that the model cannot read: images, audio,
/// files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnsupportedContent {
    /// The request is a 400 that names the content.
    #[default]
    Refuse,
    /// A note stands in its place, as everywhere else in a conversation.
    Note,
}

/// Whose turn an element of a conversation belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaker {
    /// The user alone.
    User,
    /// Nobody: instructions, definitions.
    Instructions,
    /// The assistant, or a tool that it called.
    Assistant,
}

/// What no longer says anything to anybody: bookkeeping of the provider that wrote it.
const PASSED_OVER: [&str; 4] = [
    "fallback",
    "mcp_list_tools",
    "mcp_tool_listing",
    "redacted_thinking",
];

/// Fields with what a call was given, of which a call has one.
const ARGUMENTS: [&str; 6] = [
    "input",
    "arguments",
    "action",
    "actions",
    "operation",
    "queries",
];

/// Fields that hold words, or hold what holds them, in the order in which they are shown.
const WORDS: [&str; 31] = [
    "title",
    "filename",
    "name",
    "tool_name",
    "context",
    "url",
    "source",
    "tool",
    "definition",
    "tool_references",
    "code",
    "text",
    "refusal",
    "summary",
    "transcript",
    "content",
    "stdout",
    "stderr",
    "lines",
    "logs",
    "output",
    "outputs",
    "result",
    "results",
    "sources",
    "revised_prompt",
    "error",
    "error_code",
    "error_message",
    "message",
    "reason",
];

/// Longest kind of content that a note repeats.
const KIND_BYTES_MAX: usize = 64;

/// Where the latest user message begins, as an index of `elements`: with the user's messages at
/// the end that no answer and no result of a tool follows. Instructions between them, and a final
/// message of the assistant, which is the beginning of the answer, are looked through. It is the
/// number of elements where there is none, as in an agent's request that ends with results:
/// whatever the user showed then, the assistant has begun to work on it.
pub(crate) fn latest_user_message(
    elements: &[Value],
    speaker: impl Fn(&Value) -> Speaker,
) -> usize {
    let mut latest = elements.len();
    for (index, element) in elements.iter().enumerate().rev() {
        match speaker(element) {
            Speaker::User => latest = index,
            Speaker::Instructions => {}
            Speaker::Assistant if index + 1 == elements.len() && is_message(element) => {}
            Speaker::Assistant => break,
        }
    }
    latest
}

/// Whether it is a message of the assistant, not a call or its result.
fn is_message(element: &Value) -> bool {
    element.get("role").is_some_and(|role| role == "assistant") && element["tool_calls"].is_null()
}

/// Stands for what the model cannot see.
pub(crate) fn note(kind: &str) -> String {
    format!("[{kind}: cannot be shown to this model]")
}

/// All words in a value.
pub(crate) fn words(value: &Value) -> String {
    let mut words = Text::default();
    words.add_words(value);
    words.text
}

/// What was said in a recording, if somebody wrote it down.
pub(crate) fn transcript(recording: &Value) -> &str {
    let transcript = recording.get("transcript").and_then(Value::as_str);
    transcript.unwrap_or_default()
}

/// A block, part or item of a kind that no chat template knows, as text; nothing if it is mere
/// bookkeeping. With [`UnsupportedContent::Refuse`], what cannot be shown is an error instead.
pub(crate) fn show(
    block: &Fields<'_>,
    unsupported: UnsupportedContent,
) -> Result<Option<String>, ApiError> {
    let kind = block.string("type")?.ok_or_else(|| block.missing("type"))?;
    if PASSED_OVER.contains(&kind) {
        return Ok(None);
    }
    let mut text = Text::default();
    if let Some(medium) = medium(block.entries()) {
        text.add_medium(medium, block.entries());
    } else {
        text.add_block(kind, block.entries());
    }
    if text.hides && unsupported == UnsupportedContent::Refuse {
        return Err(block.unsupported("type", "this model reads text only"));
    }
    Ok(Some(text.text).filter(|text| !text.is_empty()))
}

/// What contents that are not text are called, if this is one.
fn medium(entries: &Entries) -> Option<&'static str> {
    let kind = entries.get("type").and_then(Value::as_str)?;
    let is = |part: &str| kind.contains(part);
    match kind {
        "document" if has_words(entries) => None,
        "document" | "document_url" => Some("document"),
        "file"
        | "input_file"
        | "container_upload"
        | "code_execution_output"
        | "bash_code_execution_output" => Some("file"),
        _ if is("image") || is("screenshot") => Some("image"),
        _ if is("audio") => Some("audio"),
        _ if is("video") => Some("video"),
        _ => None,
    }
}

/// Whether the source of a document is text, or made of blocks.
fn has_words(document: &Entries) -> bool {
    let source = document.get("source");
    let kind = source.and_then(|source| source.get("type"));
    kind.is_some_and(|kind| kind == "text" || kind == "content")
}

type Entries = serde_json::Map<String, Value>;

/// Lines of text, as they are collected.
#[derive(Default)]
struct Text {
    text: String,
    /// Something was left out that a note stands for.
    hides: bool,
}

impl Text {
    fn add_line(&mut self, line: &str) {
        if line.is_empty() {
            return;
        }
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(line);
    }

    /// A note that names the medium, and what is known of it in words.
    fn add_medium(&mut self, medium: &str, entries: &Entries) {
        self.hides = true;
        let nested = entries.get("file").and_then(Value::as_object);
        let title = ["title", "filename", "name"].into_iter().find_map(|name| {
            let own = entries.get(name).and_then(Value::as_str);
            own.or_else(|| nested?.get(name)?.as_str())
        });
        self.add_line(&match title {
            Some(title) => note(&format!("{medium} {title}")),
            None => note(medium),
        });
        for name in ["transcript", "revised_prompt"] {
            let words = entries.get(name).and_then(Value::as_str);
            self.add_line(words.unwrap_or_default());
        }
    }

    /// A line that says what it is, then its words.
    fn add_block(&mut self, kind: &str, entries: &Entries) {
        let mut head = readable(kind);
        for name in ["server_name", "server_label", "name"] {
            if let Some(name) = entries.get(name).and_then(Value::as_str) {
                let _ = write!(head, " {name}");
            }
        }
        let arguments = ARGUMENTS.into_iter().find_map(|name| entries.get(name));
        if let Some(arguments) = arguments.filter(|value| !value.is_null()) {
            let _ = match arguments {
                Value::String(text) => write!(head, ": {text}"),
                other => write!(head, ": {other}"),
            };
        }
        let mut words = Self::default();
        if entries.get("is_error") == Some(&Value::Bool(true)) {
            words.add_line("Error:");
        }
        for name in WORDS.into_iter().filter(|name| *name != "name") {
            words.add_field(name, entries);
        }
        self.hides |= words.hides;
        if arguments.is_none() && words.text.is_empty() {
            self.hides = true;
            self.add_line(&note(&head));
            return;
        }
        self.add_line(&format!("[{head}]"));
        self.add_line(&words.text);
    }

    /// All words in a value.
    fn add_words(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.add_line(text),
            Value::Array(elements) => elements.iter().for_each(|value| self.add_words(value)),
            Value::Object(entries) => self.add_words_of(entries),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn add_field(&mut self, name: &str, entries: &Entries) {
        // Data in a URL is none that can be read.
        let is_data = |value: &Value| value.as_str().is_some_and(|text| text.starts_with("data:"));
        match entries.get(name) {
            Some(value) if name != "url" || !is_data(value) => self.add_words(value),
            _ => {}
        }
    }

    fn add_words_of(&mut self, entries: &Entries) {
        if let Some(medium) = medium(entries) {
            self.add_medium(medium, entries);
            return;
        }
        // What a plain document calls its text; all other data is none.
        if entries.get("type").is_some_and(|kind| kind == "text")
            && let Some(data) = entries.get("data").and_then(Value::as_str)
        {
            self.add_line(data);
        }
        for name in WORDS {
            self.add_field(name, entries);
        }
        if let Some(code) = entries.get("return_code").and_then(Value::as_i64)
            && code != 0
        {
            self.add_line(&format!("return code {code}"));
        }
    }
}

/// A kind of block in words: it comes from a request and may be anything.
fn readable(kind: &str) -> String {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    match kind.len() <= KIND_BYTES_MAX && kind.bytes().all(is_name) {
        true => kind.replace('_', " "),
        false => "content".to_owned(),
    }
}
