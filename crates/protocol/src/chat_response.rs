//! Answers of `POST /v1/chat/completions`: the whole, and the chunks of a stream.
//!
//! Chunks borrow from the request's stamp and from the text at hand, so that a token costs one
//! serialisation and no copies before it.

use serde::Serialize;

use crate::response::{FinishReason, ResponseStamp, StopReason, Usage, serialize_logprob};

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChatCompletion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_fingerprint: Option<&'a str>,
    choices: Vec<ChatChoice>,
    usage: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<u32>>,
}

/// One choice of a whole answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChatChoice {
    /// Its place among the choices.
    pub index: u32,
    /// What the model said.
    pub message: AssistantMessage,
    /// Log-probabilities, if they were asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended.
    pub finish_reason: ChatFinishReason,
    /// What stopped it, if the request named it.
    pub stop_reason: Option<StopReason>,
    /// The ids of its tokens, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
}

/// How calls are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallForm {
    /// As `tool_calls`.
    #[default]
    Tools,
    /// As the one `function_call` that requests with `functions` understand.
    Function,
}

/// Why a choice of a chat ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChatFinishReason {
    /// The model ended it, or a stop string or stop token did.
    Stop,
    /// It reached `max_tokens` or the model's maximum length.
    Length,
    /// The model called tools, by itself or because it had to. OpenAI says `stop` where the
    /// request named the tool; but clients that go by the reason, as agents do, would then take
    /// the call for a final answer, and none is known to mind.
    ToolCalls,
    /// The model called a function of the legacy form.
    FunctionCall,
}

impl CallForm {
    /// The reason as this form names it.
    pub fn finish_reason(self, reason: FinishReason) -> ChatFinishReason {
        match (reason, self) {
            (FinishReason::Stop, _) => ChatFinishReason::Stop,
            (FinishReason::Length, _) => ChatFinishReason::Length,
            (FinishReason::ToolCalls, Self::Tools) => ChatFinishReason::ToolCalls,
            (FinishReason::ToolCalls, Self::Function) => ChatFinishReason::FunctionCall,
        }
    }
}

/// What the model said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AssistantMessage {
    role: &'static str,
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_call: Option<FunctionCall>,
}

impl AssistantMessage {
    /// A message. Empty content is null beside tool calls, and an empty string otherwise: a
    /// reasoning model that ran out of tokens has answered with nothing, not with null.
    pub fn new(content: String, reasoning: Option<String>, tool_calls: Vec<ToolCall>) -> Self {
        let content = Some(content).filter(|text| !text.is_empty() || tool_calls.is_empty());
        let reasoning = reasoning.filter(|text| !text.is_empty());
        Self {
            role: "assistant",
            content,
            reasoning: reasoning.clone(),
            reasoning_content: reasoning,
            tool_calls,
            function_call: None,
        }
    }

    /// The same message with its calls in this form.
    #[must_use]
    pub fn with_calls_as(mut self, form: CallForm) -> Self {
        if form == CallForm::Function {
            let calls = std::mem::take(&mut self.tool_calls);
            self.function_call = calls.into_iter().next().map(|call| call.function);
        }
        self
    }
}

/// A whole tool call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ToolCall {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    function: FunctionCall,
}

/// The function of a tool call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FunctionCall {
    name: String,
    arguments: String,
}

impl ToolCall {
    /// A call; `arguments` is the JSON text of an object.
    pub fn new(id: String, name: String, arguments: String) -> Self {
        Self {
            id,
            kind: "function",
            function: FunctionCall { name, arguments },
        }
    }
}

/// Log-probabilities of a choice, or of a chunk's part of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ChatLogprobs {
    /// One entry for each generated token.
    pub content: Vec<TokenLogprob>,
}

/// The log-probability of one generated token.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenLogprob {
    /// The token's text; bytes that are not UTF-8 are replaced.
    pub token: String,
    /// Its log-probability.
    #[serde(serialize_with = "serialize_logprob")]
    pub logprob: f32,
    /// The token's bytes.
    pub bytes: Option<Vec<u8>>,
    /// The most likely tokens at this position, most likely first.
    pub top_logprobs: Vec<TopLogprob>,
}

/// One of the most likely tokens at a position.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopLogprob {
    /// The token's text; bytes that are not UTF-8 are replaced.
    pub token: String,
    /// Its log-probability.
    #[serde(serialize_with = "serialize_logprob")]
    pub logprob: f32,
    /// The token's bytes.
    pub bytes: Option<Vec<u8>>,
}

/// One chunk of a stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChatChunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_fingerprint: Option<&'a str>,
    choices: Vec<ChatChunkChoice<'a>>,
    /// `Some(None)` is `null`: it is going to be reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<&'a [u32]>,
}

/// One choice's part in a chunk.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChatChunkChoice<'a> {
    index: u32,
    delta: Delta<'a>,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<ChatFinishReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<StopReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
}

/// What a chunk adds to a choice's message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCallDelta<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_call: Option<FunctionCallDelta<'a>>,
}

impl<'a> Delta<'a> {
    /// The start of a message.
    pub fn role() -> Self {
        Self {
            role: Some("assistant"),
            content: Some(""),
            ..Self::default()
        }
    }

    /// More text.
    pub fn content(text: &'a str) -> Self {
        Self {
            content: Some(text),
            ..Self::default()
        }
    }

    /// More reasoning, under both names by which clients read it.
    pub fn reasoning(text: &'a str) -> Self {
        Self {
            reasoning: Some(text),
            reasoning_content: Some(text),
            ..Self::default()
        }
    }

    /// The start of the message's tool call number `index`, its arguments still empty.
    pub fn tool_call_start(index: u32, id: &'a str, name: &'a str) -> Self {
        let function = FunctionCallDelta {
            name: Some(name),
            arguments: "",
        };
        let call = ToolCallDelta {
            index,
            id: Some(id),
            kind: Some("function"),
            function,
        };
        Self {
            tool_calls: vec![call],
            ..Self::default()
        }
    }

    /// More of the arguments of the message's tool call number `index`.
    pub fn tool_call_arguments(index: u32, arguments: &'a str) -> Self {
        let function = FunctionCallDelta {
            name: None,
            arguments,
        };
        let call = ToolCallDelta {
            index,
            id: None,
            kind: None,
            function,
        };
        Self {
            tool_calls: vec![call],
            ..Self::default()
        }
    }

    /// The same addition with calls in this form, which has room for the first call alone.
    #[must_use]
    pub fn with_calls_as(mut self, form: CallForm) -> Self {
        if form == CallForm::Function {
            let calls = std::mem::take(&mut self.tool_calls);
            let mut calls = calls.into_iter().filter(|call| call.index == 0);
            self.function_call = calls.next().map(|call| call.function);
        }
        self
    }
}

/// What a chunk adds to a tool call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ToolCallDelta<'a> {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: FunctionCallDelta<'a>,
}

/// What a chunk adds to a tool call's function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FunctionCallDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

/// Builds the answer of one request, whole or in chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatChunks {
    stamp: ResponseStamp,
    announces_usage: bool,
}

impl ChatChunks {
    /// A builder that stamps everything with `stamp`.
    pub fn new(stamp: ResponseStamp) -> Self {
        Self {
            stamp,
            announces_usage: false,
        }
    }

    /// The same builder, whose chunks have a `null` usage if a last chunk is going to report it.
    #[must_use]
    pub fn announcing_usage(mut self, announces_usage: bool) -> Self {
        self.announces_usage = announces_usage;
        self
    }

    /// The first chunk of choice `index`.
    pub fn role(&self, index: u32) -> ChatChunk<'_> {
        self.delta(index, Delta::role(), None)
    }

    /// A chunk that adds `delta` to choice `index`.
    pub fn delta<'a>(
        &'a self,
        index: u32,
        delta: Delta<'a>,
        logprobs: Option<ChatLogprobs>,
    ) -> ChatChunk<'a> {
        let choice = ChatChunkChoice {
            index,
            delta,
            logprobs,
            finish_reason: None,
            stop_reason: None,
            token_ids: None,
        };
        self.chunk(vec![choice])
    }

    /// The last chunk of choice `index`.
    pub fn finish(
        &self,
        index: u32,
        finish_reason: ChatFinishReason,
        stop_reason: Option<StopReason>,
    ) -> ChatChunk<'_> {
        self.chunk(vec![ChatChunkChoice {
            index,
            delta: Delta::default(),
            logprobs: None,
            finish_reason: Some(finish_reason),
            stop_reason,
            token_ids: None,
        }])
    }

    /// The chunk that reports the usage, after all choices have ended.
    pub fn usage(&self, usage: Usage) -> ChatChunk<'_> {
        self.chunk(Vec::new()).with_usage(usage)
    }

    /// The whole answer.
    pub fn complete(&self, choices: Vec<ChatChoice>, usage: Usage) -> ChatCompletion<'_> {
        ChatCompletion {
            id: &self.stamp.id,
            object: "chat.completion",
            created: self.stamp.created_s,
            model: &self.stamp.model,
            system_fingerprint: self.stamp.system_fingerprint.as_deref(),
            choices,
            usage,
            prompt_token_ids: None,
        }
    }

    fn chunk<'a>(&'a self, choices: Vec<ChatChunkChoice<'a>>) -> ChatChunk<'a> {
        ChatChunk {
            id: &self.stamp.id,
            object: "chat.completion.chunk",
            created: self.stamp.created_s,
            model: &self.stamp.model,
            system_fingerprint: self.stamp.system_fingerprint.as_deref(),
            choices,
            usage: self.announces_usage.then_some(None),
            prompt_token_ids: None,
        }
    }
}

impl ChatCompletion<'_> {
    /// The same answer with the ids of the prompt's tokens.
    #[must_use]
    pub fn with_prompt_token_ids(mut self, token_ids: Vec<u32>) -> Self {
        self.prompt_token_ids = Some(token_ids);
        self
    }
}

impl<'a> ChatChunk<'a> {
    /// The same chunk with the ids of the prompt's tokens.
    #[must_use]
    pub fn with_prompt_token_ids(mut self, token_ids: &'a [u32]) -> Self {
        self.prompt_token_ids = Some(token_ids);
        self
    }

    /// The same chunk with the ids of the tokens that its choice has got since the last one.
    #[must_use]
    pub fn with_token_ids(mut self, token_ids: Vec<u32>) -> Self {
        if let Some(choice) = self.choices.first_mut() {
            choice.token_ids = Some(token_ids);
        }
        self
    }

    /// The same chunk with the usage so far, for clients that want it in every chunk.
    pub fn with_usage(self, usage: Usage) -> Self {
        Self {
            usage: Some(Some(usage)),
            ..self
        }
    }
}
