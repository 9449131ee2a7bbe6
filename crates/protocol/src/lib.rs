//! Wire types of the OpenAI API, of Anthropic's Messages API and of Ollama's API, validation and
//! the error table.
//!
//! A request body is parsed once, into a `Valid*` type; every 400 that a body can earn is born
//! in that parse, and what comes after never looks at the wire form again. Responses are plain
//! serialisable types that a builder stamps with the request's id, time and model.
//!
//! Invariant: no HTTP library, no runtime, no clock. The server passes bytes in and writes the
//! returned status, headers and text out.
//!
//! Invariant: an error message never repeats a value from the request. Gateways search error
//! texts for phrases, and an echoed prompt can turn a plain 400 into something else.

pub mod anthropic;
mod base64;
mod binding_format;
mod calls;
mod chat;
mod chat_response;
mod completion_response;
mod completions;
mod decisions;
mod embeddings;
mod encoder_fields;
mod error;
mod fields;
mod fim;
mod foreign;
mod infill;
pub mod limits;
mod messages;
mod models;
pub mod ollama;
mod output_format;
mod reasoning;
mod rerank;
mod response;
pub mod responses;
mod sampling;
mod spaced_json;
mod sse;
mod tokens;
mod tools;
mod unsupported;

pub use chat::{ConstraintPaths, ValidChatRequest};
pub use chat_response::{
    AssistantMessage, CallForm, ChatChoice, ChatChunk, ChatChunkChoice, ChatChunks, ChatCompletion,
    ChatFinishReason, ChatLogprobs, Delta, FunctionCall, FunctionCallDelta, TokenLogprob, ToolCall,
    ToolCallDelta, TopLogprob,
};
pub use completion_response::{
    CompletionChoice, CompletionChunks, CompletionLogprobs, TextCompletion,
};
pub use completions::{CompletionPrompt, ValidCompletionRequest};
pub use decisions::{
    ChoiceOption, ChoiceProbability, ChoiceValue, Decision, DecisionAnswer, DecisionQuestion,
    LevelProbability, QuestionKind, ScoreLevel, ValidDecisionRequest,
};
pub use embeddings::{EmbeddingList, ValidEmbeddingRequest, VectorEncoding};
pub use encoder_fields::EncoderUsage;
pub use error::ApiError;
pub use foreign::UnsupportedContent;
pub use infill::{
    ContextFile, InfillAnswer, InfillChunk, InfillSettings, InfillTimings, TimedTokens,
    ValidInfillRequest, selected,
};
pub use models::{ModelCard, ModelList, ModelOrigin, ModelTask, rfc3339};
pub use output_format::OutputFormat;
pub use rerank::{RankedDocument, Ranking, ValidRerankRequest};
pub use response::{FinishReason, ResponseStamp, StopReason, Usage};
pub use sampling::{SamplingFields, StreamOptions};
pub use sse::{SSE_DONE, sse_data, sse_error, sse_event};
pub use tokens::{
    Detokenized, TokenizeInput, Tokenized, TokenizerInfo, ValidDetokenizeRequest,
    ValidTokenizeRequest,
};
pub use tools::ToolChoice;
pub use unsupported::{RefusedField, refused_fields};
