//! A conversation in a plainer form, for templates that refuse it as it is.
//!
//! Many templates insist on an order of messages: one system message, then user and assistant in
//! turns, or one call at a time. Conversations that other providers have led know no such rules, and
//! say the same when they are brought into that order.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::ChatTemplateInput;

/// How plain a conversation is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plainness {
    /// One system message at most, in front; then user and assistant in turns, beginning with the
    /// user; one call in a message, followed by its results. Later instructions are the user's.
    InTurns,
    /// The same without a system message: the user says what it says.
    WithoutSystem,
}

impl ChatTemplateInput {
    /// The same conversation in a plainer form.
    pub fn plainer(&self, plainness: Plainness) -> Self {
        let mut plain = Plain::default();
        let leading = |message: &&Value| role(message) == "system";
        let instructions = self.messages.iter().take_while(leading).count();
        for (index, message) in self.messages.iter().enumerate() {
            let mut message = message.clone();
            let stays = index < instructions && plainness == Plainness::InTurns;
            if role(&message) == "system" && !stays {
                message["role"] = "user".into();
            }
            plain.push(message);
        }
        let mut messages = Vec::with_capacity(plain.messages.len());
        let mut rest = plain.messages.into_iter().peekable();
        while let Some(message) = rest.next() {
            let mut results = Vec::new();
            while let Some(result) = rest.next_if(|next| role(next) == "tool") {
                results.push(result);
            }
            one_by_one(message, results, &mut messages);
        }
        Self {
            messages,
            tools: self.tools.clone(),
            documents: self.documents.clone(),
            bos_token: self.bos_token.clone(),
            eos_token: self.eos_token.clone(),
            extra: self.extra.clone(),
            ..*self
        }
    }
}

/// Messages in turns.
#[derive(Default)]
struct Plain {
    messages: Vec<Value>,
}

impl Plain {
    /// Adds a message, or its contents to the last one if that has the same role.
    fn push(&mut self, message: Value) {
        let now = role(&message);
        let before = self.messages.last().map_or("system", role);
        match (before, now) {
            ("user", "user") | ("assistant", "assistant") => self.extend_last(message),
            ("system", "system") if !self.messages.is_empty() => self.extend_last(message),
            // The user interrupts before anything is said about a result.
            ("tool", "user") => {
                self.messages.push(empty("assistant"));
                self.messages.push(message);
            }
            ("system", "assistant") => {
                self.messages.push(empty("user"));
                self.messages.push(message);
            }
            _ => self.messages.push(message),
        }
    }

    fn extend_last(&mut self, message: Value) {
        let last = self.messages.last_mut().and_then(Value::as_object_mut);
        let (Some(last), Value::Object(message)) = (last, message) else {
            return;
        };
        for (name, value) in message {
            join(last, name, value);
        }
    }
}

/// Adds a field of a message to that of another of the same role.
fn join(message: &mut Map<String, Value>, name: String, value: Value) {
    match (message.get_mut(&name), value) {
        (Some(Value::String(_)), Value::String(_)) if name == "role" || name == "name" => {}
        (Some(Value::String(text)), Value::String(more)) => {
            if !text.is_empty() && !more.is_empty() {
                text.push('\n');
            }
            text.push_str(&more);
        }
        (Some(Value::Array(elements)), Value::Array(more)) => elements.extend(more),
        (Some(Value::Array(parts)), Value::String(text)) if name == "content" => {
            parts.push(text_part(text));
        }
        (Some(content @ Value::String(_)), Value::Array(more)) if name == "content" => {
            let first = text_part(content.as_str().unwrap_or_default().to_owned());
            *content = std::iter::once(first).chain(more).collect();
        }
        (Some(present), value) if present.is_null() => *present = value,
        (Some(_), _) => {}
        (None, value) => {
            message.insert(name, value);
        }
    }
}

/// Cuts a message with several calls into messages with one, each followed by its results. Those
/// that belong to none of them come last.
fn one_by_one(mut message: Value, results: Vec<Value>, messages: &mut Vec<Value>) {
    let calls = match message.get_mut("tool_calls").and_then(Value::as_array_mut) {
        Some(calls) if calls.len() > 1 => std::mem::take(calls),
        _ => {
            messages.push(message);
            messages.extend(results);
            return;
        }
    };
    let mut places: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (place, result) in results.iter().enumerate() {
        places
            .entry(id(result, "tool_call_id"))
            .or_default()
            .push(place);
    }
    let mut results: Vec<Option<Value>> = results.into_iter().map(Some).collect();
    for call in calls {
        let own = places.remove(&id(&call, "id")).unwrap_or_default();
        message["tool_calls"] = json!([call]);
        messages.push(std::mem::replace(&mut message, empty("assistant")));
        messages.extend(own.into_iter().filter_map(|place| results[place].take()));
    }
    messages.extend(results.into_iter().flatten());
}

fn text_part(text: String) -> Value {
    json!({"type": "text", "text": text})
}

fn id(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

fn role(message: &Value) -> &str {
    message["role"].as_str().unwrap_or_default()
}

fn empty(role: &str) -> Value {
    json!({"role": role, "content": ""})
}
