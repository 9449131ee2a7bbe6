//! Chat formats: how a model family marks reasoning, answer text and tool calls in its output.
//!
//! Each format is one file and one line in [`FORMATS`].
//!
//! The crates `reasoning-parser` and `tool-parser` (1.10.0) were read and not taken. Their Cohere
//! parsers are two separate passes over the text. The one for tools drops an action whose JSON is
//! malformed, reports nothing of a call before `<|END_ACTION|>`, writes the arguments anew when it
//! doesn't stream, and shows `<|END_TEXT|>` where that is split over two pieces of text. Together
//! they bring about two hundred crates, among them a Python parser, an async runtime and a second
//! set of protocol types.

mod calls;
mod cohere_cmd4;
mod deepseek_v3;
mod detect;
mod event;
mod glm45;
mod harmony;
mod hermes;
mod json_calls;
mod json_prefix;
mod json_scanner;
mod kimi_k2;
mod layout;
mod llama3_json;
mod mistral;
mod parameters;
mod plain;
mod prose;
mod qwen3_coder;
mod tagged;
mod tags;
#[cfg(test)]
mod testing;

pub use calls::OfferedTools;
pub use detect::detect;
pub(crate) use event::push_merged;
pub use event::{ParsedEvent, ParsedMessage, ParsedToolCall, ToolCallIds};

use backstop_types::TokenId;
use llguidance::api::GrammarWithLexer;

use self::layout::{Layout, ParameterForm};
use crate::Tokenizer;
use crate::constraint::{
    AnswerShape, CallableTool, Fault, Omissions, Opening, json_arguments, parameter_grammars,
};

/// The formats that are known. Architectures, model manifests and users name them by id.
pub static FORMATS: &[ChatFormat] = &[
    cohere_cmd4::FORMAT,
    hermes::FORMAT,
    hermes::CHATML,
    llama3_json::FORMAT,
    mistral::FORMAT,
    qwen3_coder::FORMAT,
    harmony::FORMAT,
    deepseek_v3::FORMAT,
    deepseek_v3::V31,
    kimi_k2::FORMAT,
    glm45::FORMAT,
    glm45::GLM47,
    plain::FORMAT,
];

/// Finds a format by its id.
pub fn chat_format(id: &str) -> Option<&'static ChatFormat> {
    FORMATS.iter().find(|format| format.id == id)
}

/// One chat format.
#[derive(Debug)]
pub struct ChatFormat {
    /// Stable name, such as `cohere_cmd4`.
    pub id: &'static str,
    /// The models that are known to write it, for the manual.
    pub models: &'static str,
    /// How many tools an answer can call.
    pub calls: ToolCalls,
    reasoning_opener: Option<&'static str>,
    reasoning_closer: Option<&'static str>,
    /// What closes reasoning where the model is not left to: text, tags included.
    reasoning_end: Option<&'static str>,
    /// Text stands between tags of its own, so that a prompt that ends within it has opened it.
    marks_text: bool,
    tags: &'static [&'static str],
    build: fn(ParserOptions) -> Box<dyn OutputParser>,
    layout: fn(&AnswerShape, &Layout<'_>) -> Option<String>,
    /// How arguments are written, if not as JSON.
    parameters: Option<&'static ParameterForm>,
}

/// How many tools an answer in a format can call where calls are enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolCalls {
    /// The format has no calls.
    None,
    /// The chat template knows one in an answer.
    One,
    /// As many as the request allows.
    Several,
}

impl ChatFormat {
    /// Whether answers can call tools.
    pub fn calls_tools(&self) -> bool {
        self.calls != ToolCalls::None
    }

    /// Whether values of calls stand between tags, and not in JSON.
    pub fn tags_values(&self) -> bool {
        self.parameters.is_some()
    }

    /// Whether answers mark their reasoning.
    pub fn reasons(&self) -> bool {
        self.reasoning_opener.is_some()
    }

    /// Whether prompts of this chat template have reasoning in them, so that answers may begin with it.
    pub fn marks_reasoning(&self, template: &str) -> bool {
        let tags = [self.reasoning_opener, self.reasoning_closer];
        tags.into_iter().flatten().any(|tag| template.contains(tag))
    }

    /// Where in its turn an answer to this rendered prompt begins, by the tag that the prompt ends
    /// with.
    pub fn opening(&self, prompt: &str) -> Opening {
        let ends_with = |tag: Option<&str>| tag.is_some_and(|tag| prompt.trim_end().ends_with(tag));
        if ends_with(self.reasoning_opener) {
            Opening::Reasoning
        } else if ends_with(self.reasoning_closer) {
            Opening::ReasoningClosed
        } else {
            Opening::Turn
        }
    }

    /// The text that opens reasoning.
    pub(crate) fn reasoning_opener(&self) -> Option<&'static str> {
        self.reasoning_opener
    }

    /// The tag that closes reasoning, if there is one for nothing else.
    pub(crate) fn reasoning_closer(&self) -> Option<&'static str> {
        self.reasoning_closer
    }

    /// What closes reasoning where the model is not left to.
    pub(crate) fn reasoning_end(&self) -> Option<&'static str> {
        self.reasoning_end
    }

    /// Whether text stands between tags of its own.
    pub(crate) fn marks_text(&self) -> bool {
        self.marks_text
    }

    /// The format's marks.
    pub(crate) fn tags(&self) -> &'static [&'static str] {
        self.tags
    }

    /// Whether this text opens or closes a reasoning section.
    pub(crate) fn is_reasoning_tag(&self, text: &str) -> bool {
        [self.reasoning_opener, self.reasoning_closer].contains(&Some(text))
    }

    /// The grammar of a raw answer of this shape, in llguidance's dialect of Lark. It refers to
    /// the grammars of text and arguments by name. `None` if the format cannot say it.
    pub(crate) fn layout(&self, shape: &AnswerShape, tokenizer: &Tokenizer) -> Option<String> {
        (self.layout)(shape, &Layout::new(tokenizer))
    }

    /// The grammars of a tool's arguments, without what is `omitted`; the first of them is called as
    /// [`CallableTool`] says.
    pub(crate) fn arguments(
        &self,
        tool: &CallableTool,
        omitted: &Omissions,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<GrammarWithLexer>, Fault> {
        match self.parameters {
            Some(form) => {
                parameter_grammars(tool, &Layout::new(tokenizer).parameters(form), omitted)
            }
            None => json_arguments(tool, omitted),
        }
    }

    /// The tokens of this vocabulary that are the format's tags.
    pub(crate) fn tag_tokens(&self, tokenizer: &Tokenizer) -> Vec<TokenId> {
        let tags = self.tags.iter();
        tags.filter_map(|tag| tokenizer.token_to_id(tag)).collect()
    }

    /// Makes the parser for one answer.
    pub fn parser(&self, options: ParserOptions) -> Box<dyn OutputParser> {
        (self.build)(options)
    }
}

/// What a parser needs to know about the request.
#[derive(Clone, Debug, Default)]
pub struct ParserOptions {
    /// Where in its turn the answer begins; see [`ChatFormat::opening`].
    pub opening: Opening,
    /// Report tool calls. Without it the text of a tool call is content, without its tags where
    /// those are control tokens.
    pub parse_tools: bool,
    /// The tools on offer: some formats write values without quotes, so that only the schema tells
    /// a number from a string, and some call tools without any tag.
    pub tools: OfferedTools,
    /// Where ids of tool calls come from.
    pub tool_call_ids: ToolCallIds,
}

/// Splits one answer into reasoning, content and tool calls.
///
/// What the events of an answer add up to depends on the text alone, never on how it was cut into
/// pieces; a server that doesn't stream pushes the whole text and gets the same.
pub trait OutputParser: Send {
    /// Adds text and returns what is now certain.
    fn push(&mut self, text: &str) -> Vec<ParsedEvent>;

    /// Ends the answer, complete or cut off, and returns what was held back.
    fn finish(&mut self) -> Vec<ParsedEvent>;

    /// Whether the text so far ends inside a reasoning section.
    fn in_reasoning(&self) -> bool;

    /// Marks that this parser acts on. They must reach it even where the vocabulary counts them
    /// as special tokens, which are otherwise left out of the text.
    fn tags(&self) -> &'static [&'static str];
}

#[cfg(test)]
mod tests {
    use super::{FORMATS, Opening, chat_format};

    #[test]
    fn ids_are_unique_and_found() {
        for (index, format) in FORMATS.iter().enumerate() {
            assert!(FORMATS[..index].iter().all(|other| other.id != format.id));
            assert_eq!(chat_format(format.id).unwrap().id, format.id);
        }
        assert!(chat_format("nonsense").is_none());
    }

    #[test]
    fn the_end_of_the_prompt_tells_where_the_answer_begins() {
        let opening = |format: &str, prompt| chat_format(format).unwrap().opening(prompt);
        let cases = [
            (
                "cohere_cmd4",
                "<|CHATBOT_TOKEN|><|START_THINKING|>",
                Opening::Reasoning,
            ),
            ("cohere_cmd4", "<|START_THINKING|>\n", Opening::Reasoning),
            (
                "cohere_cmd4",
                "<|START_THINKING|><|END_THINKING|>",
                Opening::ReasoningClosed,
            ),
            ("cohere_cmd4", "", Opening::Turn),
            ("plain", "<|START_THINKING|>", Opening::Turn),
        ];
        for (format, prompt, expected) in cases {
            assert_eq!(opening(format, prompt), expected, "{format}: {prompt}");
        }
    }
}
