//! Renders chats for tests that compare with other implementations: reads JSON lines with a template and cases, and
//! writes for each a JSON line with what became of every case.

use std::io::{BufRead, Write};

use backstop_text::{ChatTemplate, ChatTemplateInput, TemplateError};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Task {
    template: String,
    cases: Vec<Case>,
    now_unix_seconds: i64,
    bos_token: String,
    eos_token: String,
}

#[derive(Clone, Deserialize)]
struct Case {
    messages: Vec<Value>,
    tools: Option<Vec<Value>>,
    documents: Option<Vec<Value>>,
    #[serde(default)]
    arguments: Map<String, Value>,
    #[serde(default = "yes")]
    add_generation_prompt: bool,
}

fn yes() -> bool {
    true
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let task: Task = serde_json::from_str(&line?)?;
        let reply = match ChatTemplate::from_source(&task.template) {
            Ok(template) => task
                .cases
                .iter()
                .map(|case| render(&template, &task, case))
                .collect(),
            Err(error) => json!({"refused": error.to_string()}),
        };
        writeln!(out, "{reply}")?;
    }
    Ok(())
}

fn render(template: &ChatTemplate, task: &Task, case: &Case) -> Value {
    let case = case.clone();
    let input = ChatTemplateInput {
        messages: case.messages,
        tools: case.tools,
        documents: case.documents,
        add_generation_prompt: case.add_generation_prompt,
        bos_token: Some(task.bos_token.clone()),
        eos_token: Some(task.eos_token.clone()),
        extra: case.arguments,
        now_unix_seconds: task.now_unix_seconds,
    };
    match template.render(&input) {
        Ok(text) => json!({"text": text}),
        Err(TemplateError::Raised(message)) => json!({"raises": message}),
        Err(error) => json!({"fails": error.to_string()}),
    }
}
