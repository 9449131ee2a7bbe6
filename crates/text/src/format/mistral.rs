//! The output of Mistral's models: `[THINK]…[/THINK]`, text, and calls after `[TOOL_CALLS]`. Older
//! models write a list of `{"name": …, "arguments": …}`, newer ones `name[ARGS]{…}` after a tag of
//! its own for each call, perhaps with a `[CALL_ID]` in between.

use super::json_calls::{CallSyntax, JsonCalls};
use super::layout::{Layout, TextAndCalls};
use super::tagged::{CallReader, Markup, Tagged};
use super::{ChatFormat, ParsedEvent, ParserOptions, ToolCalls, push_merged};
use crate::constraint::{AnswerShape, CallShape, CallableTool, literal};

pub(super) const FORMAT: ChatFormat = ChatFormat {
    id: "mistral",
    models: "Mistral, both ways of calls",
    calls: ToolCalls::Several,
    reasoning_opener: Some(THINK),
    reasoning_closer: Some(END_THINK),
    reasoning_end: Some(END_THINK),
    marks_text: false,
    tags: TAGS,
    build: |options| Box::new(Tagged::new(&MARKUP, &options, Mistral::new(&options))),
    layout,
    parameters: None,
};

const THINK: &str = "[THINK]";
const END_THINK: &str = "[/THINK]";
const TOOL_CALLS: &str = "[TOOL_CALLS]";
const ARGS: &str = "[ARGS]";
const CALL_ID: &str = "[CALL_ID]";

const TAGS: &[&str] = &[THINK, END_THINK, TOOL_CALLS, ARGS, CALL_ID];

const MARKUP: Markup = Markup {
    reasoning: Some((THINK, END_THINK)),
    tags: TAGS,
    control_tokens: true,
    trims_lines: false,
};

const SYNTAX: CallSyntax = CallSyntax {
    name_key: "name",
    argument_keys: &["arguments"],
    objects_in_sequence: false,
    offered_tools_only: false,
    short_ids: true,
    tags_are_text: false,
};

/// Length of the ids that the templates accept.
const ID_LENGTH: usize = 9;

#[derive(Debug)]
enum State {
    Closed,
    /// After `[TOOL_CALLS]`: a list or a name.
    Undecided,
    Name(String),
    Id(String, String),
    Json,
}

struct Mistral {
    calls: JsonCalls,
    state: State,
}

impl Mistral {
    fn new(options: &ParserOptions) -> Self {
        Self {
            calls: JsonCalls::new(&SYNTAX, options),
            state: State::Closed,
        }
    }

    /// Ends what is under way: a name without arguments is text.
    fn end(&mut self, closed: bool, events: &mut Vec<ParsedEvent>) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Json => self.calls.end(closed, events),
            State::Name(name) | State::Id(name, _) if closed => {
                push_merged(events, ParsedEvent::ContentDelta(name));
            }
            _ => {}
        }
    }

    fn begin_arguments(&mut self, name: &str, id: &str) {
        let id = id.trim();
        let is_id = id.len() == ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let id = is_id.then(|| id.to_owned());
        self.calls.begin_arguments(name.trim().to_owned(), id);
        self.state = State::Json;
    }
}

impl CallReader for Mistral {
    fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed)
    }

    fn holds_data(&self) -> bool {
        self.calls.in_string()
    }

    fn tag(&mut self, tag: &'static str, events: &mut Vec<ParsedEvent>) -> bool {
        if matches!(self.state, State::Json) && self.calls.in_string() {
            self.calls.push_quoted_tag(tag);
            return true;
        }
        if tag == TOOL_CALLS {
            self.end(true, events);
            self.state = State::Undecided;
            return true;
        }
        match (std::mem::replace(&mut self.state, State::Closed), tag) {
            (State::Name(name), ARGS) => self.begin_arguments(&name, ""),
            (State::Id(name, id), ARGS) => self.begin_arguments(&name, &id),
            (State::Name(name), CALL_ID) => self.state = State::Id(name, String::new()),
            (state, _) => {
                self.state = state;
                return false;
            }
        }
        true
    }

    fn text<'a>(&mut self, text: &'a str, events: &mut Vec<ParsedEvent>) -> &'a str {
        match &mut self.state {
            State::Closed => return text,
            State::Json => self.calls.push(text, events),
            State::Id(_, id) => id.push_str(text),
            State::Undecided => {
                let text = text.trim_start();
                if text.starts_with(['[', '{']) {
                    self.calls.begin();
                    self.state = State::Json;
                    self.calls.push(text, events);
                } else if !text.is_empty() {
                    self.state = State::Name(String::new());
                    return self.text(text, events);
                }
            }
            // Some leave the tag before the arguments out.
            State::Name(name) => match text.split_once('{') {
                None => name.push_str(text),
                Some((rest, _)) => {
                    let name = format!("{name}{rest}");
                    self.begin_arguments(&name, "");
                    self.calls.push(&text[rest.len()..], events);
                }
            },
        }
        ""
    }

    fn finish(&mut self, events: &mut Vec<ParsedEvent>) {
        self.end(false, events);
    }
}

fn layout(shape: &AnswerShape, layout: &Layout<'_>) -> Option<String> {
    let form = TextAndCalls {
        reasoning: Some((THINK, END_THINK)),
        call_opener: TOOL_CALLS,
        calls: &|calls| match layout.has_token(ARGS) {
            true => named_calls(calls, layout),
            false => listed_calls(calls),
        },
    };
    form.rules(shape, layout)
}

/// `name[ARGS]{…}`, each with a tag in front.
fn named_calls(calls: &CallShape, layout: &Layout<'_>) -> String {
    let arguments = layout.tag(ARGS);
    let tool = |tool: &CallableTool| {
        let name = literal(&tool.name);
        format!("{name} {arguments} @{}", tool.grammar_name())
    };
    let tools: Vec<String> = calls.tools.iter().map(tool).collect();
    let more = match calls.parallel {
        true => format!("({} tool)*", layout.tag(TOOL_CALLS)),
        false => String::new(),
    };
    format!("calls: tool {more}\ntool: {}\n", tools.join("\n  | "))
}

/// `[{"name": …, "arguments": …}, …]`.
fn listed_calls(calls: &CallShape) -> String {
    let tool = |tool: &CallableTool| {
        let opening = format!("{}, \"arguments\": ", literal(&tool.name));
        format!("{} @{}", literal(&opening), tool.grammar_name())
    };
    let tools: Vec<String> = calls.tools.iter().map(tool).collect();
    let more = match calls.parallel {
        true => format!("({} call)*", literal(", ")),
        false => String::new(),
    };
    format!(
        "calls: OPEN call {more} {}\nOPEN: /\\x20?\\[/\ncall: {} tool CLOSE\n\
         CLOSE: /(, \"id\": \"[0-9A-Za-z]{{{ID_LENGTH}}}\")?\\}}/\ntool: {}\n",
        literal("]"),
        literal("{\"name\": "),
        tools.join("\n  | ")
    )
}

#[cfg(test)]
mod tests;
