//! The conversations of `tests/goldens/templates` as templates get them.

use backstop_text::ChatTemplateInput;
use serde_json::Value;

pub(crate) fn input(request: &Value) -> ChatTemplateInput {
    let mut messages = request["messages"].as_array().unwrap().clone();
    // As the server does with the content of messages that only call tools.
    for message in &mut messages {
        if message["content"].is_null() {
            message["content"] = Value::from("");
        }
    }
    ChatTemplateInput {
        messages,
        tools: request["tools"].as_array().cloned(),
        documents: None,
        add_generation_prompt: request["add_generation_prompt"].as_bool().unwrap(),
        bos_token: Some("<s>".to_owned()),
        eos_token: Some("</s>".to_owned()),
        extra: request["arguments"].as_object().unwrap().clone(),
        now_unix_seconds: 1_762_000_000,
    }
}
