//! Every bound on what a request may contain, in one place.
//!
//! The size of the whole body is bounded by the server before anything here runs, and the JSON
//! parser bounds the nesting depth at 128. Values are counted because one of two bytes takes up
//! to a hundred when it is parsed. What depends on the model (vocabulary, context
//! length) is checked by the server.

/// Values and keys of a body that may hold token ids, each of which is one.
pub const MAX_JSON_VALUES: usize = MAX_PROMPT_TOKENS + (64 << 10);
/// Values and keys of a body that holds a conversation. Beside arrays of token ids nothing
/// needs as many.
pub const MAX_CHAT_JSON_VALUES: usize = 256 << 10;
/// Values and keys of all JSON texts within the strings of a conversation: arguments of calls.
pub const MAX_JSON_VALUES_IN_STRINGS: usize = 256 << 10;
/// Memory of those settings of a request that its answer repeats.
pub const MAX_ECHO_BYTES: usize = 8 << 20;
/// Messages of one conversation.
pub const MAX_MESSAGES: usize = 10_000;
/// Parts of one message's content.
pub const MAX_CONTENT_PARTS: usize = 4_096;
/// Tools that one request may define.
pub const MAX_TOOLS: usize = 1_024;
/// Calls that one assistant message may hold.
pub const MAX_TOOL_CALLS: usize = 1_024;
/// Bytes of a tool's name. OpenAI allows 64; names that a gateway prefixes get longer.
pub const MAX_TOOL_NAME_BYTES: usize = 256;
/// Bytes of a short label: model, user.
pub const MAX_LABEL_BYTES: usize = 1_024;
/// Bytes of a name or an id in a conversation: of a call, of a tool that is no longer offered, of a
/// participant. Some providers keep their own state in the ids that they give.
pub const MAX_OPAQUE_BYTES: usize = 64 << 10;
/// Questions of one request for decisions, as OpenAI has it.
pub const MAX_DECISION_QUESTIONS: usize = 400;
/// Options of one question, as OpenAI has it.
pub const MAX_DECISION_CHOICES: usize = 255;
/// Levels of one score, as OpenAI has it.
pub const MAX_DECISION_LEVELS: usize = 10;
/// Other files that a request to fill in the middle may bring.
pub const MAX_CONTEXT_FILES: usize = 1_024;
/// Fields of an answer that a request to fill in the middle may name.
pub const MAX_RESPONSE_FIELDS: usize = 64;
/// Documents that one request may attach.
pub const MAX_DOCUMENTS: usize = 1_024;
/// Entries of `chat_template_kwargs`.
pub const MAX_TEMPLATE_KWARGS: usize = 64;
/// Stop strings. OpenAI allows 4.
pub const MAX_STOP_STRINGS: usize = 16;
/// Bytes of one stop string.
pub const MAX_STOP_STRING_BYTES: usize = 1_024;
/// Stop token ids.
pub const MAX_STOP_TOKEN_IDS: usize = 1_024;
/// Bytes of a regular expression or grammar that an answer must follow.
pub const MAX_GRAMMAR_BYTES: usize = 256 << 10;
/// Strings that an answer may be one of.
pub const MAX_GUIDED_CHOICES: usize = 1_024;
/// Entries of `logit_bias`.
pub const MAX_LOGIT_BIAS: usize = 1_024;
/// Alternatives reported for each position.
pub const MAX_TOP_LOGPROBS: u32 = 20;
/// Choices per prompt.
pub const MAX_CHOICES: u32 = 128;
/// Prompts of one completion request.
pub const MAX_PROMPTS: usize = 128;
/// Prompts times choices of one request: the sequences that it puts into the queue at once.
pub const MAX_SEQUENCES: usize = 256;
/// Token ids of one prompt. The model's context is the real bound and is far lower.
pub const MAX_PROMPT_TOKENS: usize = 1 << 20;
/// Texts of one request for embeddings, as OpenAI has it, and documents that one request may have ranked.
pub const MAX_ENCODER_INPUTS: usize = 2_048;
/// Entries of `metadata`. Its limits are OpenAI's, with four bytes for a character.
pub const MAX_METADATA_ENTRIES: usize = 16;
/// Bytes of a metadata key.
pub const MAX_METADATA_KEY_BYTES: usize = 256;
/// Bytes of a metadata value.
pub const MAX_METADATA_VALUE_BYTES: usize = 2_048;
/// The highest token id, and the highest number of tokens, that the wire format carries.
pub const MAX_TOKEN_NUMBER: i64 = i32::MAX as i64;
/// The longest `Retry-After`, in seconds, that gateways honour.
pub const MAX_RETRY_AFTER_S: u32 = 60;
