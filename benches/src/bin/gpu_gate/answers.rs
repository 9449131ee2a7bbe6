//! What the CPU answers, computed beforehand: a card is not to wait for a processor.

use std::fs;
use std::io;
use std::path::Path;

use backstop_benches::machine;
use serde_json::{Value, json};

const FILE: &str = "answers.json";

/// Answers of models by name, with the prompts that they are to.
pub(crate) struct Answers {
    document: Value,
}

impl Answers {
    /// None yet, from this machine.
    pub(crate) fn new() -> Self {
        let machine = machine::facts();
        let document = json!({
            "cpu": machine["cpu"],
            "vector_extensions": machine["vector_extensions"],
            "models": {},
        });
        Self { document }
    }

    /// Those that were packed, if any.
    pub(crate) fn read(pack: &Path) -> io::Result<Self> {
        let document = match fs::read(pack.join(FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Value::Null,
            Err(error) => return Err(error),
        };
        Ok(Self { document })
    }

    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join(FILE), self.document.to_string())
    }

    pub(crate) fn add(&mut self, model: &str, prompts: &[Vec<u64>], answers: &[Value]) {
        let entry = json!({"prompts": prompts, "answers": answers});
        self.document["models"][model] = entry;
    }

    /// A model's answers, if they are to these prompts.
    pub(crate) fn of(&self, model: &str, prompts: &[Vec<u64>]) -> Option<Vec<Value>> {
        let entry = &self.document["models"][model];
        let answers = entry["answers"].as_array()?;
        (entry["prompts"] == json!(prompts)).then(|| answers.clone())
    }

    /// Where they come from, for people.
    pub(crate) fn origin(&self) -> Option<String> {
        let cpu = self.document["cpu"].as_str()?;
        let extensions = self.document["vector_extensions"].as_array()?;
        let extensions: Vec<&str> = extensions.iter().filter_map(Value::as_str).collect();
        Some(format!(
            "The CPU's answers were computed beforehand, on {cpu} with {}.",
            extensions.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_other_prompts_are_none() {
        let directory = std::env::temp_dir().join(format!("answers-{}", std::process::id()));
        let prompts = vec![vec![8, 9], vec![10]];
        let mut answers = Answers::new();
        answers.add(
            "demo",
            &prompts,
            &[json!({"text": "a"}), json!({"text": "b"})],
        );
        answers.write(&directory).unwrap();
        let read = Answers::read(&directory).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(
            read.of("demo", &prompts).map(|answers| answers.len()),
            Some(2)
        );
        assert_eq!(read.of("demo", &prompts[..1]), None);
        assert_eq!(read.of("other", &prompts), None);
        assert!(read.origin().is_some());
        let none = Answers::read(&directory).unwrap();
        assert_eq!((none.of("demo", &prompts), none.origin()), (None, None));
    }
}
