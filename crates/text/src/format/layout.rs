//! Pieces of the grammars in which chat formats write down what an answer may be.

use crate::Tokenizer;
use crate::constraint::{
    AnswerShape, CallShape, CallableTool, Opening, ParameterLayout, TextShape, literal,
};

/// The rule of any text, for grammars that refer to it.
pub(super) const ANY_TEXT: &str = "ANY_TEXT: /(?s:.*)/\n";
/// The rule of the line breaks between reasoning and what follows it.
const GAP: &str = "GAP: /\\n{0,2}/\n";

/// Writes tags as the vocabulary has them.
pub(super) struct Layout<'a> {
    tokenizer: &'a Tokenizer,
}

impl<'a> Layout<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer }
    }

    pub(super) fn has_token(&self, tag: &str) -> bool {
        self.tokenizer.token_to_id(tag).is_some()
    }

    /// A tag: its token, or its text where the vocabulary has no token for it.
    pub(super) fn tag(&self, tag: &str) -> String {
        match self.tokenizer.token_to_id(tag) {
            Some(token) => format!("<[{token}]>"),
            None => literal(tag),
        }
    }

    /// The rule `name`: any text up to and including the first `tag`.
    pub(super) fn any_text_until(&self, name: &str, tag: &str) -> String {
        match self.has_token(tag) {
            true => format!("{name}: ANY_TEXT {}\n", self.tag(tag)),
            false => format!("{name}[suffix={}]: /(?s:.*)/\n", literal(tag)),
        }
    }

    /// The rule `tool`: a tool's name, what stands `between`, its arguments, and what stands `after`.
    pub(super) fn tool_rule(calls: &CallShape, between: &str, after: &str) -> String {
        let tool = |tool: &CallableTool| {
            let name = literal(&tool.name);
            format!("{name} {between} @{} {after}", tool.grammar_name())
        };
        let tools: Vec<String> = calls.tools.iter().map(tool).collect();
        format!("tool: {}\n", tools.join("\n  | "))
    }

    /// The rule `TEXT`: any text that does not contain `tag`.
    pub(super) fn any_text_without(&self, tag: &str) -> String {
        match self.has_token(tag) {
            true => "TEXT: /(?s:.*)/\n".to_owned(),
            false => {
                let pattern = format!("(?s:.*){}(?s:.*)", escape(tag));
                format!("TEXT: /(?s:.*)/ & ~/{pattern}/\n")
            }
        }
    }
}

/// How a format writes a parameter of a call.
#[derive(Debug)]
pub(super) struct ParameterForm {
    /// The tag before the name.
    pub(super) opener: &'static str,
    /// What stands between name and value: tags and text.
    pub(super) after_name: &'static [&'static str],
    /// Text before the tag that ends the value.
    pub(super) before_end: &'static str,
    /// The tag that ends the value.
    pub(super) end: &'static str,
    /// Text after it.
    pub(super) after_end: &'static str,
    /// Whether a parameter of this name can be written.
    pub(super) can_write: fn(&str) -> bool,
    /// Some of those names, as a regular expression.
    pub(super) names: &'static str,
}

impl Layout<'_> {
    /// The form in the words of a grammar.
    pub(super) fn parameters(&self, form: &ParameterForm) -> ParameterLayout {
        let (before, end, after) = (form.before_end, self.tag(form.end), literal(form.after_end));
        let marks = form.after_name.iter().map(|mark| self.tag(mark));
        let (end_of_terminal, after_terminal) = match self.has_token(form.end) {
            true => (before.to_owned(), format!("{end} {after}")),
            false => (
                format!("{before}{}{}", form.end, form.after_end),
                String::new(),
            ),
        };
        ParameterLayout {
            before_name: self.tag(form.opener),
            after_name: marks.collect::<Vec<_>>().join(" "),
            end_tag: form.end,
            end: format!("{} {end} {after}", literal(before)),
            end_of_terminal,
            after_terminal,
            can_write: form.can_write,
            names: form.names,
        }
    }
}

/// A tag as a regular expression between slashes.
fn escape(tag: &str) -> String {
    let mut pattern = String::with_capacity(2 * tag.len());
    for character in tag.chars() {
        if r"\.+*?()|[]{}^$/".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

/// The layout of answers that are bare text, with calls between tags, after reasoning.
pub(super) struct TextAndCalls<'a> {
    /// The tags around reasoning, if the model reasons.
    pub(super) reasoning: Option<(&'static str, &'static str)>,
    /// The tag that begins the first call, and that free text cannot contain.
    pub(super) call_opener: &'static str,
    /// The rule `calls`, and those it refers to: what follows the opener.
    pub(super) calls: &'a dyn Fn(&CallShape) -> String,
}

impl TextAndCalls<'_> {
    /// The whole grammar.
    pub(super) fn rules(&self, shape: &AnswerShape, layout: &Layout<'_>) -> Option<String> {
        // A text of some form that is continued is all that follows; any text may end with calls.
        let calls = shape.calls.as_ref();
        let may_call = shape.opening != Opening::Text || shape.text == Some(TextShape::Any);
        let calls = calls.filter(|_| may_call);
        let mut rules = self.start(shape.opening, layout);
        let open = layout.tag(self.call_opener);
        let answer = match (&shape.text, calls) {
            (None, None) => return None,
            (None, Some(_)) => format!("{open} calls"),
            (Some(TextShape::Any), None) => "ANY_TEXT".to_owned(),
            (Some(_), None) => "@text".to_owned(),
            (Some(TextShape::Any), Some(_)) => {
                rules += &layout.any_text_until("text_until_calls", self.call_opener);
                rules += &layout.any_text_without(self.call_opener);
                "TEXT | text_until_calls calls".to_owned()
            }
            (Some(_), Some(_)) => format!("@text | {open} calls"),
        };
        rules += &format!("answer: {answer}\n{ANY_TEXT}");
        if let Some(calls) = calls {
            rules += &(self.calls)(calls);
        }
        Some(rules)
    }

    fn start(&self, opening: Opening, layout: &Layout<'_>) -> String {
        // A model whose vocabulary lacks the tag does not think, unless the prompt made it.
        let thinks = |tag: &str| layout.has_token(tag) || opening == Opening::Reasoning;
        let reasoning = self.reasoning.filter(|(open, _)| thinks(open));
        let Some((open, close)) = reasoning.filter(|_| opening != Opening::Text) else {
            return "start: answer\n".to_owned();
        };
        let rules = match opening {
            Opening::Reasoning => "start: reasoning GAP answer\n".to_owned(),
            Opening::ReasoningClosed => return format!("start: GAP answer\n{GAP}"),
            Opening::Turn | Opening::Text => {
                format!(
                    "start: answer | {} reasoning GAP answer\n",
                    layout.tag(open)
                )
            }
        };
        rules + GAP + &layout.any_text_until("reasoning", close)
    }
}
