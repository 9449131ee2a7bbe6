//! The answers of both generating endpoints: a whole answer has the form of a stream's lines.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::chat_response::TokenLogprob;
use crate::error::ApiError;
use crate::models::rfc3339;

/// Which endpoint's form an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerForm {
    /// That of `/api/chat`: a `message`.
    Chat,
    /// That of `/api/generate`: a `response`.
    Generation,
}

/// A part of an answer, or all of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnswerPart {
    /// Text.
    pub content: String,
    /// Reasoning.
    pub thinking: String,
    /// Whole calls.
    pub tool_calls: Vec<CalledTool>,
    /// Log-probabilities of its tokens, if they were asked for.
    pub logprobs: Vec<TokenLogprob>,
}

impl AnswerPart {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        let Self {
            content,
            thinking,
            tool_calls,
            logprobs,
        } = self;
        content.is_empty() && thinking.is_empty() && tool_calls.is_empty() && logprobs.is_empty()
    }

    /// Adds what comes after it.
    pub fn append(&mut self, next: Self) {
        self.content.push_str(&next.content);
        self.thinking.push_str(&next.thinking);
        self.tool_calls.extend(next.tool_calls);
        self.logprobs.extend(next.logprobs);
    }
}

/// A call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CalledTool {
    id: String,
    function: CalledFunction,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct CalledFunction {
    index: usize,
    name: String,
    arguments: Map<String, Value>,
}

impl CalledTool {
    /// The answer's call number `index`, from 0.
    pub fn new(id: String, index: usize, name: String, arguments: Map<String, Value>) -> Self {
        Self {
            id,
            function: CalledFunction {
                index,
                name,
                arguments,
            },
        }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DoneReason {
    /// The model ended it, with calls or without, or a stop string did.
    Stop,
    /// It reached `num_predict` or the end of the context.
    Length,
    /// There was no prompt.
    Load,
    /// There was no prompt, and the request lets go of the model.
    Unload,
}

/// What the last line says.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerEnd {
    /// Why the answer ended.
    pub reason: DoneReason,
    /// What it took; `None` if nothing was computed.
    pub metrics: Option<AnswerMetrics>,
    /// The tokens of prompt and answer, where the form has them.
    pub context: Option<Vec<u32>>,
}

/// What an answer took. Durations are in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AnswerMetrics {
    /// From the request's arrival to the end.
    pub total_duration: u64,
    /// From the request's arrival until its prompt was begun: reading, tokenising, and waiting in
    /// the queue. The model itself is loaded already.
    pub load_duration: u64,
    /// Tokens of the prompt, those that were cached among them.
    pub prompt_eval_count: u32,
    /// From there to the first token.
    pub prompt_eval_duration: u64,
    /// Tokens generated.
    pub eval_count: u32,
    /// From the first token to the last.
    pub eval_duration: u64,
}

/// A whole answer, or one line of a stream.
#[derive(Debug, Serialize)]
pub struct AnswerLine<'a> {
    model: &'a str,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    thinking: &'a str,
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    done_reason: Option<DoneReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<&'a [u32]>,
    #[serde(flatten)]
    metrics: Option<&'a AnswerMetrics>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    logprobs: &'a [TokenLogprob],
}

#[derive(Debug, Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    thinking: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tool_calls: &'a [CalledTool],
}

/// Makes the lines of one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerLines {
    /// The name by which the client called the model.
    pub model: String,
    /// The endpoint's form.
    pub form: AnswerForm,
}

impl AnswerLines {
    /// The line that says `part`, and the end if there is one, at a moment since 1970.
    pub fn line<'a>(
        &'a self,
        at: Duration,
        part: &'a AnswerPart,
        end: Option<&'a AnswerEnd>,
    ) -> AnswerLine<'a> {
        let is_chat = self.form == AnswerForm::Chat;
        let message = Message {
            role: "assistant",
            content: &part.content,
            thinking: &part.thinking,
            tool_calls: &part.tool_calls,
        };
        AnswerLine {
            model: &self.model,
            created_at: moment(at),
            message: is_chat.then_some(message),
            response: (!is_chat).then_some(part.content.as_str()),
            thinking: if is_chat { "" } else { &part.thinking },
            done: end.is_some(),
            done_reason: end.map(|end| end.reason),
            context: end.and_then(|end| end.context.as_deref()),
            metrics: end.and_then(|end| end.metrics.as_ref()),
            logprobs: &part.logprobs,
        }
    }
}

/// A moment as RFC 3339 writes it in UTC, with nanoseconds.
fn moment(since_1970: Duration) -> String {
    let seconds = rfc3339(since_1970.as_secs());
    let seconds = seconds.trim_end_matches('Z');
    format!("{seconds}.{:09}Z", since_1970.subsec_nanos())
}

/// `value` as one line. JSON escapes line breaks.
pub fn ndjson_line(value: &impl Serialize) -> String {
    match serde_json::to_string(value) {
        Ok(json) => json + "\n",
        Err(_) => ndjson_error(&ApiError::internal()),
    }
}

/// The line that ends a stream which failed after it began; the connection closes after it.
pub fn ndjson_error(error: &ApiError) -> String {
    error.to_ollama_json_string() + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(form: AnswerForm, part: &AnswerPart, end: Option<&AnswerEnd>) -> Value {
        let lines = AnswerLines {
            model: "north:latest".into(),
            form,
        };
        let line = ndjson_line(&lines.line(Duration::new(1_735_689_599, 5), part, end));
        assert_eq!(line.matches('\n').count(), 1);
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn both_forms_say_the_same() {
        let call = CalledTool::new("a".into(), 0, "look".into(), Map::new());
        let part = AnswerPart {
            content: "Fine\n".into(),
            thinking: "Hm".into(),
            tool_calls: vec![call],
            logprobs: Vec::new(),
        };
        let at = "2024-12-31T23:59:59.000000005Z";
        let function = json!({"index": 0, "name": "look", "arguments": {}});
        let message = json!({"role": "assistant", "content": "Fine\n", "thinking": "Hm",
                             "tool_calls": [{"id": "a", "function": function}]});
        let chat =
            json!({"model": "north:latest", "created_at": at, "message": message, "done": false});
        assert_eq!(said(AnswerForm::Chat, &part, None), chat);
        let end = AnswerEnd {
            reason: DoneReason::Length,
            metrics: Some(AnswerMetrics {
                eval_count: 3,
                ..AnswerMetrics::default()
            }),
            context: Some(vec![1, 2]),
        };
        let generation = json!({"model": "north:latest", "created_at": at, "response": "Fine\n",
            "thinking": "Hm", "done": true, "done_reason": "length", "context": [1, 2],
            "total_duration": 0, "load_duration": 0, "prompt_eval_count": 0,
            "prompt_eval_duration": 0, "eval_count": 3, "eval_duration": 0});
        assert_eq!(said(AnswerForm::Generation, &part, Some(&end)), generation);
    }

    #[test]
    fn errors_are_one_line_and_a_missing_model_is_not_found() {
        let line = ndjson_error(&ApiError::engine_failure());
        assert_eq!(
            line,
            "{\"error\": \"The engine failed while it ran this request.\"}\n"
        );
        let missing = ApiError::model_not_found("north").to_ollama_json_string();
        assert!(
            missing.starts_with("{\"error\": \"model not found: "),
            "{missing}"
        );
    }
}
