//! The conversation that a request's items add up to, in the form that chat templates read.
//!
//! Items are finer than messages: what the model said in one turn comes as a reasoning item, a
//! message and its calls, which a template wants as one message.

use std::mem;

use backstop_input::ValueAllowance;
use serde_json::{Map, Value, json};

use crate::tools::values_in_strings;

/// Collects messages.
#[derive(Debug)]
pub(super) struct History {
    /// What the arguments of calls may still hold.
    pub(super) allowance: ValueAllowance,
    messages: Vec<Value>,
    turn: Turn,
}

/// The assistant's turn that is being collected.
#[derive(Debug, Default)]
struct Turn {
    reasoning: Vec<String>,
    content: Option<String>,
    calls: Vec<Value>,
}

impl Turn {
    /// A turn goes from reasoning to text to calls; what comes in another order is another turn.
    fn accepts_reasoning(&self) -> bool {
        self.content.is_none() && self.calls.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.reasoning.is_empty() && self.accepts_reasoning()
    }
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            allowance: values_in_strings(),
            messages: Vec::new(),
            turn: Turn::default(),
        }
    }

    /// What the system, a developer or the user said. `role` is system or user.
    pub(super) fn say(&mut self, role: &str, text: &str) {
        self.end_turn();
        self.messages.push(json!({"role": role, "content": text}));
    }

    /// What the model thought.
    pub(super) fn reason(&mut self, text: String) {
        if text.is_empty() {
            return;
        }
        if !self.turn.accepts_reasoning() {
            self.end_turn();
        }
        self.turn.reasoning.push(text);
    }

    /// What the model said.
    pub(super) fn answer(&mut self, text: String) {
        if !self.turn.accepts_reasoning() {
            self.end_turn();
        }
        self.turn.content = Some(text);
    }

    /// What the model called.
    pub(super) fn call(&mut self, id: &str, function: &str, arguments: Value) {
        self.turn.calls.push(json!({
            "id": id,
            "type": "function",
            "function": {"name": function, "arguments": arguments},
        }));
    }

    /// What came of a call.
    pub(super) fn result(&mut self, id: &str, text: &str) {
        self.end_turn();
        self.messages
            .push(json!({"role": "tool", "content": text, "tool_call_id": id}));
    }

    /// All messages.
    pub(super) fn into_messages(mut self) -> Vec<Value> {
        self.end_turn();
        self.messages
    }

    fn end_turn(&mut self) {
        if self.turn.is_empty() {
            return;
        }
        let turn = mem::take(&mut self.turn);
        let mut message = Map::new();
        message.insert("role".into(), "assistant".into());
        message.insert("content".into(), turn.content.unwrap_or_default().into());
        if !turn.reasoning.is_empty() {
            let reasoning = turn.reasoning.join("\n");
            message.insert("reasoning".into(), reasoning.clone().into());
            message.insert("reasoning_content".into(), reasoning.into());
        }
        if !turn.calls.is_empty() {
            message.insert("tool_calls".into(), turn.calls.into());
        }
        self.messages.push(Value::Object(message));
    }
}
