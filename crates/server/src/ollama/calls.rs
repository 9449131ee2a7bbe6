//! Whole calls out of what the parser finds: Ollama's form has no pieces of them.

use backstop_protocol::FinishReason;
use backstop_protocol::ollama::{AnswerPart, CalledTool};
use backstop_text::{ParsedEvent, ParsedToolCall};
use serde_json::{Map, Value};

/// How ids of calls begin in the parser; the rest is unique.
const PARSER_ID_PREFIX: &str = "chatcmpl-tool-";
/// How they begin here.
const ID_PREFIX: &str = "call_";

/// The calls of one answer as they come.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// Calls that have ended.
    done: usize,
    open: Option<ParsedToolCall>,
}

impl Calls {
    /// Adds to `part` what an event completes.
    pub(super) fn apply(&mut self, event: ParsedEvent, part: &mut AnswerPart) {
        match event {
            ParsedEvent::ToolCallArgumentsDelta { delta, .. } => {
                if let Some(call) = &mut self.open {
                    call.arguments.push_str(&delta);
                }
                return;
            }
            ParsedEvent::ToolCallStart { id, name, .. } => {
                self.close(part);
                let arguments = String::new();
                self.open = Some(ParsedToolCall {
                    id,
                    name,
                    arguments,
                });
                return;
            }
            ParsedEvent::ContentDelta(text) => part.content.push_str(&text),
            ParsedEvent::ReasoningDelta(text) => part.thinking.push_str(&text),
        }
        self.close(part);
    }

    /// Adds to `part` the last call, if the answer's end leaves it whole: clients run what they get,
    /// and half of the arguments are not what the model meant.
    pub(super) fn end(&mut self, reason: FinishReason, part: &mut AnswerPart) {
        let is_whole = |call: &ParsedToolCall| {
            reason == FinishReason::ToolCalls || object(&call.arguments).is_some()
        };
        if self.open.as_ref().is_some_and(is_whole) {
            self.close(part);
        }
    }

    fn close(&mut self, part: &mut AnswerPart) {
        let Some(call) = self.open.take() else {
            return;
        };
        let id = match call.id.strip_prefix(PARSER_ID_PREFIX) {
            Some(unique) => format!("{ID_PREFIX}{unique}"),
            // One that the model's family counts on.
            None => call.id,
        };
        // The form has room for an object alone: arguments that are none, because the model erred,
        // become an empty one, which tools refuse.
        let arguments = object(&call.arguments).unwrap_or_default();
        let call = CalledTool::new(id, self.done, call.name, arguments);
        part.tool_calls.push(call);
        self.done += 1;
    }
}

fn object(arguments: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(arguments).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn start(index: usize) -> ParsedEvent {
        ParsedEvent::ToolCallStart {
            index,
            id: format!("chatcmpl-tool-{index}"),
            name: "look".into(),
        }
    }

    fn arguments(index: usize, delta: &str) -> ParsedEvent {
        ParsedEvent::ToolCallArgumentsDelta {
            index,
            delta: delta.into(),
        }
    }

    fn called(events: Vec<ParsedEvent>, reason: FinishReason) -> Value {
        let (mut calls, mut part) = (Calls::default(), AnswerPart::default());
        for event in events {
            calls.apply(event, &mut part);
        }
        calls.end(reason, &mut part);
        serde_json::to_value(&part.tool_calls).unwrap()
    }

    fn call(index: usize, arguments: Value) -> Value {
        let function = json!({"index": index, "name": "look", "arguments": arguments});
        json!({"id": format!("call_{index}"), "function": function})
    }

    #[test]
    fn calls_are_told_when_they_are_whole() {
        let events = vec![
            start(0),
            arguments(0, "{\"at\""),
            arguments(0, ": 1}"),
            start(1),
            start(2),
            arguments(2, "[]"),
        ];
        let expected = [
            call(0, json!({"at": 1})),
            call(1, json!({})),
            call(2, json!({})),
        ];
        assert_eq!(called(events, FinishReason::ToolCalls), json!(expected));
    }

    #[test]
    fn half_a_call_is_not_told() {
        for reason in [FinishReason::Length, FinishReason::Stop] {
            let half = vec![
                start(0),
                arguments(0, "{}"),
                start(1),
                arguments(1, "{\"at\""),
            ];
            assert_eq!(called(half, reason), json!([call(0, json!({}))]));
            assert_eq!(called(vec![start(0)], reason), json!([]));
            let whole = vec![start(0), arguments(0, "{\"at\": 1}")];
            assert_eq!(called(whole, reason), json!([call(0, json!({"at": 1}))]));
        }
    }

    #[test]
    fn a_family_s_own_ids_stay() {
        let start = ParsedEvent::ToolCallStart {
            index: 0,
            id: "functions.look:0".into(),
            name: "look".into(),
        };
        let called = called(vec![start], FinishReason::ToolCalls);
        assert_eq!(called[0]["id"], "functions.look:0");
    }
}
