//! Text in, text out: the tokenizer and the chat template turn a request into token ids; the
//! incremental detokenizer, the stop matcher and the output parsers turn sampled tokens back into
//! what the client sees. [`constraint`] says which tokens may be sampled at all.
//!
//! [`TextStream`] ties the way back together and is what a server uses per answer; the parts are
//! public because they are useful and testable on their own.
//!
//! Invariant: nothing here reads a clock, makes a random number or panics, whatever the input.
//! The current time and the seed of tool call ids come in as values.

pub mod constraint;
mod continuation;
mod control_texts;
mod deep_stack;
mod detokenize;
mod fim;
pub mod format;
mod json_types;
mod prompt_text;
mod stop;
mod stream;
mod template;
#[cfg(test)]
mod test_vocabulary;
mod tokenizer;

pub use constraint::{AnswerShape, ConstraintFactory};
pub use continuation::{Continuation, NoPlace};
pub use control_texts::ControlTexts;
pub use detokenize::IncrementalDetokenizer;
pub use fim::{FIM_FAMILIES, FimFamily, FimIds, FimOrder, FimParts, FimTokens};
pub use format::{
    ChatFormat, OfferedTools, OutputParser, ParsedEvent, ParsedMessage, ParsedToolCall,
    ParserOptions, ToolCallIds, ToolCalls, chat_format, detect,
};
pub use prompt_text::PromptText;
pub use stop::{StopMatch, StopMatcher};
pub use stream::{StreamDelta, StreamOptions, TextStream};
pub use template::{
    ChatTemplate, ChatTemplateInput, ChatTemplates, ContentFormat, Plainness, TemplateChoiceError,
    TemplateError,
};
pub use tokenizer::{
    BytePairVocabulary, SentencePieceVocabulary, Tokenizer, TokenizerError, VOCABULARY_FILES,
    Vocabulary,
};
