//! Ollama's API: its requests as chats and completions, its answers, whole and as lines of JSON,
//! its lists of models and its errors.
//!
//! Accepted and ignored, among unknown fields: `keep_alive` (the model stays), `truncate` and
//! `shift` (a conversation that does not fit is refused, and none is cut), and those of `options`
//! that say how to load a model (`num_ctx`, `num_gpu`, …) or merely tune (`penalize_newline`, a
//! `repeat_last_n` above 0).

mod conversation;
mod error;
mod models;
mod options;
mod request;
mod response;
mod settings;

pub use models::{ModelDetails, ModelEntry, ModelEntryList, Never, RunningModel, ShownModel};
pub use request::{OllamaChat, OllamaLoad, OllamaTask, OllamaText, ValidShowRequest};
pub use response::{
    AnswerEnd, AnswerForm, AnswerLine, AnswerLines, AnswerMetrics, AnswerPart, CalledTool,
    DoneReason, ndjson_error, ndjson_line,
};
