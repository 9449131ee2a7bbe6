//! What a request allows an answer to be, independent of how the model marks its parts.

use llguidance::api::GrammarWithLexer;
use llguidance::regex_to_lark;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::{ConstraintError, Fault, GrammarPart};
use super::lookaheads::Lookaheads;
use super::omissions::{LeftOut, Omissions};
use super::pattern::{self, Reach};
use super::schema;

/// What an answer may be. At least one of `text` and `calls` is there.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct AnswerShape {
    /// Where in its turn the answer begins.
    pub opening: Opening,
    /// The answer may be text of this form.
    pub text: Option<TextShape>,
    /// The answer may be calls of these tools.
    pub calls: Option<CallShape>,
}

/// Where in the assistant's turn an answer begins, as its prompt left off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Opening {
    /// At the turn's beginning.
    #[default]
    Turn,
    /// Inside a reasoning section.
    Reasoning,
    /// After a reasoning section.
    ReasoningClosed,
    /// Inside the text, which is to be continued.
    Text,
}

/// A form of text.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub enum TextShape {
    /// Any text.
    Any,
    /// Any JSON object.
    JsonObject,
    /// JSON that satisfies this schema.
    Json(Value),
    /// JSON that satisfies this schema as far as that can be enforced.
    JsonHint(Value),
    /// Text that matches this regular expression as a whole.
    Regex(String),
    /// One of these strings.
    Choice(Vec<String>),
    /// Text that this grammar, in llguidance's dialect of Lark, derives.
    Lark(String),
}

/// Calls of tools: at least one.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct CallShape {
    /// The tools that may be called; at least one.
    pub tools: Vec<CallableTool>,
    /// More than one call is allowed.
    pub parallel: bool,
}

/// A tool that may be called.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct CallableTool {
    /// Its place among the request's tools.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// What the arguments, an object, must satisfy; `None` if they may be any object.
    pub parameters: Option<Value>,
    /// They must satisfy all of it, not just what can be enforced.
    pub strict: bool,
}

/// A part of a shape and its grammars, the first of which may refer to the others.
pub(super) type Part = (GrammarPart, Vec<GrammarWithLexer>);

/// The name of the grammar of the text.
const TEXT_GRAMMAR: &str = "text";
/// The name of the grammar of arguments without a schema.
const ANY_ARGUMENTS_GRAMMAR: &str = "any_arguments";

/// White space that JSON in a text may have between its parts: one space, or a line break with an
/// indentation. A weak model would write white space without end where it may.
const TEXT_WHITESPACE: &str = r"\x20|\r?\n[\x20\t]{0,40}";

impl CallableTool {
    /// The name of the grammar of its arguments.
    pub(crate) fn grammar_name(&self) -> String {
        match self.parameters {
            Some(_) => format!("tool_{}", self.index),
            None => ANY_ARGUMENTS_GRAMMAR.to_owned(),
        }
    }
}

impl AnswerShape {
    /// The grammars that a format's layout refers to by name, without what is `left_out`.
    /// `arguments` makes those of a tool's arguments.
    pub(super) fn parts(
        &self,
        left_out: &[LeftOut],
        arguments: impl Fn(&CallableTool, &Omissions) -> Result<Vec<GrammarWithLexer>, Fault>,
    ) -> Result<Vec<Part>, ConstraintError> {
        let mut parts = Vec::new();
        let omitted = |part| Omissions::of(left_out, part);
        if let Some(text) = &self.text {
            let part = GrammarPart::Text;
            let grammar = text_grammar(text, &omitted(part)).map_err(|fault| fault.of(part))?;
            parts.extend(grammar.map(|grammar| (part, vec![grammar])));
        }
        let tools = self.calls.iter().flat_map(|calls| &calls.tools);
        let with_any_arguments = tools.clone().find(|tool| tool.parameters.is_none());
        let with_schema = tools.filter(|tool| tool.parameters.is_some());
        for tool in with_schema.chain(with_any_arguments) {
            let part = match tool.parameters {
                Some(_) => GrammarPart::Tool(tool.index),
                None => GrammarPart::Whole,
            };
            let grammars = arguments(tool, &omitted(part));
            parts.push((part, grammars.map_err(|fault| fault.of(part))?));
        }
        Ok(parts)
    }

    /// Whether what cannot be enforced of a part may be left out.
    pub(super) fn is_hint(&self, part: GrammarPart) -> bool {
        let mut tools = self.calls.iter().flat_map(|calls| &calls.tools);
        match part {
            GrammarPart::Text => matches!(self.text, Some(TextShape::JsonHint(_))),
            GrammarPart::Tool(index) => tools.any(|tool| tool.index == index && !tool.strict),
            GrammarPart::Whole => false,
        }
    }

    /// Whether it holds anything that a request wrote: a schema, an expression, a grammar.
    pub fn is_foreign(&self) -> bool {
        let free_text = matches!(
            self.text,
            None | Some(TextShape::Any | TextShape::JsonObject)
        );
        let mut tools = self.calls.iter().flat_map(|calls| &calls.tools);
        !free_text || tools.any(|tool| tool.parameters.is_some())
    }
}

/// The grammar of a text, if it is not just any text.
fn text_grammar(text: &TextShape, omitted: &Omissions) -> Result<Option<GrammarWithLexer>, Fault> {
    let grammar = match text {
        TextShape::Any => return Ok(None),
        TextShape::JsonObject => text_json(json!({"type": "object"})),
        TextShape::Json(schema) | TextShape::JsonHint(schema) => {
            text_json(schema::of_text(schema, omitted)?)
        }
        TextShape::Regex(pattern) => lark(match pattern::language(pattern, Reach::Whole)? {
            Some(language) => format!("start: TEXT\nTEXT: {}", language.lark()),
            None => format!("start: /(?:{})/", regex_to_lark(pattern, "")),
        }),
        TextShape::Choice(choices) => {
            let choices: Vec<String> = choices.iter().map(|choice| literal(choice)).collect();
            lark(format!("start: {}", choices.join(" | ")))
        }
        TextShape::Lark(source) => lark(source.clone()),
    };
    Ok(Some(grammar))
}

fn lark(source: String) -> GrammarWithLexer {
    let mut grammar = GrammarWithLexer::from_lark(source);
    grammar.name = Some(TEXT_GRAMMAR.to_owned());
    grammar
}

fn text_json(schema: Value) -> GrammarWithLexer {
    let options = json!({
        "item_separator": ",",
        "key_separator": ":",
        "whitespace_flexible": true,
        "whitespace_pattern": TEXT_WHITESPACE,
    });
    json_grammar(TEXT_GRAMMAR, schema, options)
}

/// The grammar of a tool's arguments where they are one JSON object.
pub(crate) fn json_arguments(
    tool: &CallableTool,
    omitted: &Omissions,
) -> Result<Vec<GrammarWithLexer>, Fault> {
    let schema = match &tool.parameters {
        Some(parameters) => schema::of_arguments(parameters, omitted, Lookaheads::WrittenOut)?,
        None => json!({"type": "object"}),
    };
    Ok(vec![arguments_grammar(&tool.grammar_name(), schema)])
}

/// Arguments are written as chat templates write those of earlier calls: with one space after
/// every comma and colon, and nowhere else.
pub(super) fn arguments_grammar(name: &str, schema: Value) -> GrammarWithLexer {
    let options = json!({
        "item_separator": ", ",
        "key_separator": ": ",
        "whitespace_flexible": false,
    });
    json_grammar(name, schema, options)
}

fn json_grammar(name: &str, mut schema: Value, options: Value) -> GrammarWithLexer {
    if let Some(entries) = schema.as_object_mut() {
        entries.insert("x-guidance".to_owned(), options);
    }
    let mut grammar = GrammarWithLexer::from_json_schema(schema);
    grammar.name = Some(name.to_owned());
    grammar
}

/// A string as Lark writes it: as JSON does, but no control character stands for itself, and JSON
/// has U+007F for none.
pub(crate) fn literal(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}
