//! Whether two runs are one: what differs is named.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::record::{Run, Subject};

/// Fields of an entry of `/v1/models` that differ between two answers of the same server.
const VOLATILE: [&str; 2] = ["created", "permission"];
const VALUE_CHARACTERS_MAX: usize = 80;

/// What differs between a directory's run and another, each with both values. Only settings that both have can differ: a
/// directory takes further suites, and what else is measured of the same server.
pub(super) fn differences(before: &Run, now: &Run) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |name: &str, before: &Value, now: &Value| {
        if before != now {
            found.push(format!(
                "{name} was {}, and is {}",
                shown(before),
                shown(now)
            ));
        }
    };
    compare(
        "program",
        &before.program.as_str().into(),
        &now.program.as_str().into(),
    );
    for (name, now) in &now.settings {
        match before.settings.get(name) {
            Some(Value::Object(before)) if now.is_object() => {
                let empty = serde_json::Map::new();
                let now = now.as_object().unwrap_or(&empty);
                let fields: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
                for field in fields {
                    let of = |object: &serde_json::Map<_, _>| object.get(field).cloned();
                    let (before, now) = (of(before), of(now));
                    compare(
                        &format!("{name}'s {field}"),
                        &before.unwrap_or_default(),
                        &now.unwrap_or_default(),
                    );
                }
            }
            Some(before) => compare(name, before, now),
            None => {}
        }
    }
    let (before, now) = (identity(&before.subject), identity(&now.subject));
    for ((name, before), (_, now)) in before.iter().zip(&now) {
        compare(name, before, now);
    }
    found
}

fn identity(subject: &Subject) -> [(&'static str, Value); 6] {
    let mut entry = subject.entry.clone().unwrap_or_default();
    if let Some(fields) = entry.as_object_mut() {
        fields.retain(|name, _| !VOLATILE.contains(&name.as_str()));
    }
    let text = |text: &Option<String>| text.as_deref().into();
    [
        ("url", subject.url.as_str().into()),
        ("model", subject.model.as_str().into()),
        ("the server's model", text(&subject.backstop_model)),
        ("the server's fingerprint", text(&subject.fingerprint)),
        (
            "the server's version",
            subject.version.clone().unwrap_or_default(),
        ),
        ("the server's entry for the model", entry),
    ]
}

fn shown(value: &Value) -> String {
    if value.is_null() {
        return "not given".into();
    }
    let text = value.to_string();
    if text.chars().count() <= VALUE_CHARACTERS_MAX {
        return text;
    }
    text.chars().take(VALUE_CHARACTERS_MAX).collect::<String>() + " ..."
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn run() -> Run {
        Run {
            program: "p 1".into(),
            subject: Subject {
                url: "http://s".into(),
                model: "m".into(),
                entry: Some(json!({"id": "m", "created": 1})),
                ..Subject::default()
            },
            settings: BTreeMap::from([("tools".into(), json!({"seed": 0}))]),
            began_unix_s: 1,
        }
    }

    #[test]
    fn what_differs_is_named() {
        let mut other = run();
        other.settings = BTreeMap::from([("tools".into(), json!({"seed": 1, "limit": 3}))]);
        other.subject.backstop_model = Some("m@abc".into());
        assert_eq!(
            differences(&run(), &other),
            [
                "tools's limit was not given, and is 3",
                "tools's seed was 0, and is 1",
                "the server's model was not given, and is \"m@abc\"",
            ]
        );
    }

    #[test]
    fn a_later_date_and_further_suites_are_no_difference() {
        let mut other = run();
        other.began_unix_s = 2;
        other.subject.entry = Some(json!({"id": "m", "created": 2}));
        other.settings.insert("json".into(), json!({"seed": 9}));
        assert!(differences(&run(), &other).is_empty());
        other.settings.remove("tools");
        assert!(differences(&run(), &other).is_empty());
    }
}
