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
    AnswerShape, CallableTool, ConstraintReason, Opening, json_arguments, parameter_grammars,
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
    /// Whether answers can call tools.
    pub calls_tools: bool,
    reasoning_opener: Option<&'static str>,
    reasoning_closer: Option<&'static str>,
    tags: &'static [&'static str],
    build: fn(ParserOptions) -> Box<dyn OutputParser>,
    layout: fn(&AnswerShape, &Layout<'_>) -> Option<String>,
    /// How arguments are written, if not as JSON.
    parameters: Option<&'static ParameterForm>,
}

impl ChatFormat {
    /// Whether an answer to this rendered prompt begins inside a reasoning section, because the
    /// prompt ends by opening one.
    pub fn starts_in_reasoning(&self, prompt: &str) -> bool {
        self.reasoning_opener
            .is_some_and(|opener| prompt.trim_end().ends_with(opener))
    }

    /// Where in its turn an answer to this rendered prompt begins. `continues_text` if the prompt
    /// ends within the assistant's text.
    pub fn opening(&self, prompt: &str, continues_text: bool) -> Opening {
        let ends_with = |tag: Option<&str>| tag.is_some_and(|tag| prompt.trim_end().ends_with(tag));
        if continues_text {
            Opening::Text
        } else if ends_with(self.reasoning_opener) {
            Opening::Reasoning
        } else if ends_with(self.reasoning_closer) {
            Opening::ReasoningClosed
        } else {
            Opening::Turn
        }
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

    /// The grammars of a tool's arguments; the first of them is called as [`CallableTool`] says.
    pub(crate) fn arguments(
        &self,
        tool: &CallableTool,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<GrammarWithLexer>, ConstraintReason> {
        match self.parameters {
            Some(form) => parameter_grammars(tool, &Layout::new(tokenizer).parameters(form)),
            None => json_arguments(tool),
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
    /// The answer begins inside a reasoning section; see [`ChatFormat::starts_in_reasoning`].
    pub starts_in_reasoning: bool,
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

    /// Marks that this parser acts on. They must reach it even where the vocabulary counts them
    /// as special tokens, which are otherwise left out of the text.
    fn tags(&self) -> &'static [&'static str];
}

#[cfg(test)]
mod tests {
    use super::{FORMATS, chat_format};

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
        let cmd4 = chat_format("cohere_cmd4").unwrap();
        assert!(cmd4.starts_in_reasoning("<|CHATBOT_TOKEN|><|START_THINKING|>"));
        assert!(cmd4.starts_in_reasoning("<|START_THINKING|>\n"));
        assert!(!cmd4.starts_in_reasoning("<|START_THINKING|><|END_THINKING|>"));
        assert!(!cmd4.starts_in_reasoning(""));
        assert!(
            !chat_format("plain")
                .unwrap()
                .starts_in_reasoning("<|START_THINKING|>")
        );
    }
}
