//! Puts the stages' results together for people.

use std::io;
use std::path::Path;

use backstop_benches::report::Table;
use serde_json::Value;

use crate::settings::Settings;
use crate::stage::Stage;

/// Writes `gate.md` from the results of all stages that have any, and hands it back.
pub(crate) fn write(settings: &Settings, machine: &Value) -> io::Result<String> {
    let mut text = String::from("# GPU gate\n\n");
    for (fact, value) in machine.as_object().into_iter().flatten() {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        text += &format!("- {}: {value}\n", fact.replace('_', " "));
    }
    for stage in Stage::ALL {
        if let Some(document) = read(&settings.out, stage) {
            text += &section(stage, &document);
        }
    }
    std::fs::write(settings.out.join("gate.md"), &text)?;
    Ok(text)
}

/// What a stage has written.
pub(crate) fn read(out: &Path, stage: Stage) -> Option<Value> {
    let text = std::fs::read_to_string(out.join(format!("{}.json", stage.name()))).ok()?;
    serde_json::from_str(&text).ok()
}

fn section(stage: Stage, document: &Value) -> String {
    let state = match (&document["passed"], &document["complete"]) {
        (Value::Bool(true), _) => "passed",
        (_, Value::Bool(true)) => "FAILED",
        _ => "NOT COMPLETE",
    };
    let seconds = document["seconds"].as_f64().unwrap_or(f64::NAN);
    let mut text = format!("\n# Stage {}: {state}, {seconds:.0} s\n", stage.name());
    let list = |name: &str| {
        let items = document[name].as_array().into_iter().flatten();
        let lines = items.filter_map(|item| item.as_str().map(|item| format!("- {item}\n")));
        lines.collect::<String>()
    };
    for (title, name) in [("Failures", "failures"), ("Notes", "notes")] {
        let lines = list(name);
        if !lines.is_empty() {
            text += &format!("\n{title}:\n\n{lines}");
        }
    }
    if let Value::Object(device) = &document["measurements"]["device"] {
        text.push('\n');
        for (fact, value) in device {
            text += &format!("- {}: {value}\n", fact.replace('_', " "));
        }
    }
    for table in document["tables"].as_array().into_iter().flatten() {
        text += &format!("\n{}", Table::from_json(table).to_markdown());
    }
    for (title, listing) in document["listings"].as_object().into_iter().flatten() {
        let listing = listing.as_str().unwrap_or_default();
        text += &format!("\n## {title}\n\n```text\n{}\n```\n", listing.trim_end());
    }
    text
}
