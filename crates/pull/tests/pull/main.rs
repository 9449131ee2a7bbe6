//! Pulls from a stand-in for a hub, on which anything can go wrong.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_imports,
    reason = "a test that cannot go on has failed, and its modules are parts of one"
)]

mod faults;
mod full_disk;
mod hostile;
mod interrupted;
mod proxy;
mod pulled;
mod refusals;
mod scratch;
mod stand_in;
mod trust;

use std::path::Path;
use std::time::Duration;

use backstop_models::ModelLocator;
use backstop_pull::{CommandLine, Outcome, Settings, pull};
use clap::Parser;

use crate::scratch::Scratch;
use crate::stand_in::{REPOSITORY, StandIn};

/// So many bytes that several parts of a file are needed.
const PART_BYTES: u64 = 1000;
const CONFIG: &[u8] = br#"{"architectures":["LlamaForCausalLM"],"model_type":"llama"}"#;

/// Bytes that differ from one another and from those of other files.
fn bytes(count: usize, seed: u8) -> Vec<u8> {
    let byte = |index: usize| (index * 31 + index / 251) as u8 ^ seed;
    (0..count).map(byte).collect()
}

/// A repository with a large file of several parts, small files, and files that nobody needs.
fn tiny() -> StandIn {
    tiny_at(stand_in::COMMIT, 1)
}

fn tiny_at(commit: &str, seed: u8) -> StandIn {
    StandIn::at_commit(
        commit,
        &[
            (".gitattributes", b"x"),
            ("LICENSE", b"do as you like"),
            ("README.md", b"# tiny"),
            ("config.json", CONFIG),
            ("*model.safetensors", &bytes(5500, seed)),
            ("*pytorch_model.bin", &bytes(5500, 2)),
            ("*tokenizer.json", &bytes(300, 3)),
        ],
    )
}

fn settings(hub: &StandIn) -> Settings {
    let mut settings = Settings::of_endpoint(&hub.url).unwrap();
    settings.part_bytes = PART_BYTES;
    settings.patience.first_wait = Duration::from_millis(1);
    settings.patience.attempts = 6;
    settings.patience.silence = Duration::from_secs(1);
    settings
}

fn pull_with(settings: &Settings, store: &Path, line: &[&str]) -> Result<Outcome, String> {
    let to = store.to_str().unwrap();
    let start = ["backstop-pull", "--to", to];
    let command_line = start.iter().chain(line);
    let command_line = CommandLine::parse_from(command_line);
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let locator = ModelLocator::new(vec![models]);
    pull(&command_line, settings, &locator).map_err(|error| error.to_string())
}

fn pull_tiny(hub: &StandIn, store: &Path) -> Result<Outcome, String> {
    pull_with(&settings(hub), store, &[REPOSITORY])
}

/// That the model is there as the repository has it.
fn assert_is_tiny(store: &Path) {
    let model = store.join("tiny");
    assert_eq!(
        std::fs::read(model.join("model.safetensors")).unwrap(),
        bytes(5500, 1)
    );
    assert_eq!(std::fs::read(model.join("config.json")).unwrap(), CONFIG);
    let located = ModelLocator::new(vec![store.to_owned()])
        .locate("tiny")
        .unwrap();
    assert!(located.verify_digests(&|_| {}).unwrap());
    assert_eq!(names(store), ["tiny", "tiny.toml"]);
}

/// All names in a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn assert_mentions(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}
