//! The conversation that a request's items add up to, in the form that chat templates read.
//!
//! Items are finer than messages: what the model said in one turn comes as a reasoning item, a
//! message and its calls, which a template wants as one message.

use std::mem;

use serde_json::{Map, Value, json};

use crate::calls::{CallHistory, function_call};
use crate::messages::QUOTES;

/// Collects messages.
pub(super) struct History {
    /// What the calls so far have said.
    pub(super) calls: CallHistory,
    messages: Vec<Value>,
    turn: Turn,
}

/// The assistant's turn that is being collected.
#[derive(Debug, Default)]
struct Turn {
    reasoning: Vec<String>,
    /// What tools did that the provider ran: part of the content, in front of what the model said.
    records: Vec<String>,
    content: Option<String>,
    /// Some of it is what others wrote.
    quotes: bool,
    calls: Vec<Value>,
}

impl Turn {
    /// A turn goes from reasoning, between which tools may have run, to text to calls; what comes in
    /// another order is another turn.
    fn accepts_reasoning(&self) -> bool {
        self.content.is_none() && self.calls.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.reasoning.is_empty() && self.records.is_empty() && self.accepts_reasoning()
    }
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            calls: CallHistory::new(),
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

    /// What a tool did that the provider ran.
    pub(super) fn record(&mut self, text: String) {
        if !self.turn.accepts_reasoning() {
            self.end_turn();
        }
        self.turn.records.push(text);
        self.turn.quotes = true;
    }

    /// What the model said, and whether some of it is what others wrote.
    pub(super) fn answer(&mut self, text: String, quotes: bool) {
        if !self.turn.accepts_reasoning() {
            self.end_turn();
        }
        self.turn.content = Some(text);
        self.turn.quotes |= quotes;
    }

    /// What the model called, by the call's id if it has one.
    pub(super) fn call(&mut self, id: Option<&str>, function: &str, arguments: Value) {
        if self.turn.calls.is_empty() {
            self.calls.begin_turn();
        }
        let id = self.calls.id_of_call(id);
        self.turn
            .calls
            .push(function_call(&id, function, arguments));
    }

    /// What came of a call, by the call's id if the result has it.
    pub(super) fn result(&mut self, id: Option<&str>, text: &str) {
        self.end_turn();
        let id = self.calls.id_of_result(id);
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
        let mut lines = turn.records;
        lines.extend(turn.content);
        message.insert("content".into(), lines.join("\n").into());
        if turn.quotes {
            message.insert(QUOTES.into(), true.into());
        }
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
