//! Prompts from a file of JSON lines.

use std::path::Path;

use rand::seq::SliceRandom;
use serde::Deserialize;
use serde_json::Value;

use crate::LoadError;
use crate::random::generator;
use crate::wire::Backend;
use crate::workload::{Content, Session, Turn};

const FILE_BYTES_MAX: u64 = 512 << 20;
/// Turns of one line.
const TURNS_MAX: usize = 256;

/// One of the first three is there.
#[derive(Deserialize)]
struct Line {
    /// As vLLM's custom data sets have it.
    prompt: Option<String>,
    messages: Option<Vec<Value>>,
    /// What a user says, one after the other, as SpecBench has it.
    turns: Option<Vec<String>>,
    #[serde(alias = "max_tokens", alias = "output_length")]
    output_tokens: Option<u32>,
}

/// A conversation for each line, in an order that the seed decides. A line has `prompt`, `messages` or `turns`, and may have
/// `output_tokens`.
///
/// # Errors
///
/// If the file cannot be read, or a line has none of these, or what the backend cannot be asked.
pub fn prompts_of_file(
    path: &Path,
    backend: Backend,
    output_tokens: u32,
    seed: u64,
) -> Result<Vec<Session>, LoadError> {
    let text = backstop_input::read_text_file(path, FILE_BYTES_MAX)
        .map_err(|error| LoadError::at(path, error))?;
    let lines = (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim().is_empty());
    let sessions = lines.map(|(number, line)| {
        let refuse = |reason: &str| LoadError::at_line(path, number, reason);
        let line: Line =
            serde_json::from_str(line).map_err(|error| LoadError::at_line(path, number, error))?;
        let tokens = line.output_tokens.unwrap_or(output_tokens).max(1);
        let contents = match (line.prompt, line.messages, line.turns) {
            (Some(prompt), None, None) => vec![Content::Text(prompt)],
            (None, Some(messages), None) => vec![Content::Messages(messages)],
            (None, None, Some(turns)) if !turns.is_empty() && turns.len() <= TURNS_MAX => {
                turns.into_iter().map(Content::Text).collect()
            }
            _ => return Err(refuse("expected one of prompt, messages and turns")),
        };
        let is_chat = contents.len() > 1 || matches!(contents[0], Content::Messages(_));
        if is_chat && backend == Backend::Completions {
            return Err(refuse(
                "messages and several turns need --backend openai-chat",
            ));
        }
        Ok(Session {
            turns: contents
                .into_iter()
                .map(|content| Turn::new(content, tokens))
                .collect(),
        })
    });
    let mut sessions = sessions.collect::<Result<Vec<_>, _>>()?;
    if sessions.is_empty() {
        return Err(LoadError::at(path, "it has no prompts"));
    }
    sessions.shuffle(&mut generator(seed, u64::MAX - 3));
    Ok(sessions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str, backend: Backend) -> Result<Vec<Session>, LoadError> {
        let directory =
            std::env::temp_dir().join(format!("backstop-prompts-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        let read = prompts_of_file(&path, backend, 16, 1);
        std::fs::remove_file(&path).unwrap();
        read
    }

    #[test]
    fn lines_of_all_kinds_are_read() {
        let text = "{\"prompt\": \"a\"}\n\n{\"messages\": [{\"role\": \"user\", \"content\": \"b\"}], \"max_tokens\": 3}\n\
                    {\"turns\": [\"c\", \"d\"]}\n";
        let sessions = read("all.jsonl", text, Backend::Chat).unwrap();
        assert_eq!(sessions.len(), 3);
        let turns: usize = sessions.iter().map(|session| session.turns.len()).sum();
        assert_eq!(turns, 4);
        let lengths: Vec<u32> = sessions
            .iter()
            .map(|one| one.turns[0].output_tokens)
            .collect();
        assert!(lengths.contains(&3) && lengths.contains(&16));
        let error = read("chat.jsonl", text, Backend::Completions)
            .unwrap_err()
            .to_string();
        assert!(error.contains(":3: messages"), "{error}");
    }

    #[test]
    fn lines_without_a_prompt_are_named() {
        for text in [
            "{}\n",
            "{\"prompt\": \"a\", \"turns\": [\"b\"]}\n",
            "prompt\n",
            "{\"turns\": []}\n",
        ] {
            let error = read("bad.jsonl", text, Backend::Chat)
                .unwrap_err()
                .to_string();
            assert!(error.contains("bad.jsonl:1"), "{error}");
        }
        assert!(read("empty.jsonl", "\n", Backend::Chat).is_err());
    }
}
