//! Digests of checkpoints.

use backstop_models::{FileRecord, FileRecords};
use safetensors::Dtype;
use sha2::{Digest, Sha256};

use crate::Fingerprint;
use crate::test_support::{Directory, zeros};

/// Two megabytes, of which a digest sees a part.
fn large() -> Directory {
    let directory = Directory::with_config();
    let tensor = zeros("a", Dtype::F32, &[1024, 512]);
    directory.write_tensors("model.safetensors", &[tensor]);
    directory
}

fn digest(directory: &Directory) -> String {
    directory.open().unwrap().weights_digest(None).unwrap()
}

fn fingerprint(directory: &Directory) -> String {
    let mut fingerprint = Fingerprint::new();
    let checkpoint = directory.open().unwrap();
    checkpoint.add_texts(&mut fingerprint).unwrap();
    fingerprint.digits(12)
}

#[test]
fn other_weights_of_the_same_shape_have_another_digest() {
    let directory = large();
    let before = digest(&directory);
    assert_eq!(before.len(), 16);
    assert!(before.chars().all(|digit| digit.is_ascii_hexdigit()));
    assert_eq!(digest(&directory), before);
    let path = directory.join("model.safetensors");
    let original = std::fs::read(&path).unwrap();
    let last = original.len() - 1;
    for place in [last, last / 2, last / 15 * 3] {
        let mut changed = original.clone();
        // As much as a fine-tuned layer at least.
        let end = changed.len().min(place + (128 << 10));
        changed[place..end].fill(1);
        std::fs::write(&path, changed).unwrap();
        assert_ne!(digest(&directory), before, "{place}");
    }
    std::fs::write(&path, original).unwrap();
    assert_eq!(digest(&directory), before);
}

#[test]
fn other_names_and_shapes_have_another_digest() {
    let of = |name: &str, shape: &[usize]| {
        let directory = Directory::with_config();
        directory.write_tensors("model.safetensors", &[zeros(name, Dtype::F32, shape)]);
        digest(&directory)
    };
    let first = of("a", &[4, 2]);
    assert_ne!(of("b", &[4, 2]), first);
    assert_ne!(of("a", &[2, 4]), first);
    assert_eq!(of("a", &[4, 2]), first);
}

#[test]
fn a_record_of_all_files_says_what_they_are() {
    let directory = large();
    let checkpoint = directory.open().unwrap();
    let line = format!("{}  model.safetensors\n", "AB".repeat(32).to_lowercase());
    let expected: String = Sha256::digest(line)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let record = |digits: &str| FileRecord {
        sha256: digits.repeat(32),
        bytes: None,
    };
    let mut recorded = FileRecords::from([
        ("model.safetensors".to_owned(), record("AB")),
        ("config.json".to_owned(), record("00")),
    ]);
    let known = checkpoint.weights_digest(Some(&recorded)).unwrap();
    assert_eq!(known, expected[..16]);
    recorded.remove("model.safetensors");
    let unknown = checkpoint.weights_digest(Some(&recorded)).unwrap();
    assert_eq!(unknown, digest(&directory));
}

#[test]
fn texts_that_change_answers_change_the_fingerprint() {
    let directory = large();
    let mut seen = vec![fingerprint(&directory)];
    for (name, text) in [
        ("config.json", r#"{"rope_theta": 5}"#),
        ("chat_template.jinja", "{{ messages }}"),
        ("tokenizer.json", "{}"),
        ("generation_config.json", r#"{"temperature": 0.5}"#),
        ("tokenizer_config.json", r#"{"bos_token": "<s>"}"#),
    ] {
        directory.write(name, text);
        let now = fingerprint(&directory);
        assert!(!seen.contains(&now), "{name}");
        seen.push(now);
    }
}

#[test]
fn parts_do_not_run_into_each_other() {
    let of = |parts: &[(&str, &str)]| {
        let mut fingerprint = Fingerprint::new();
        for (name, part) in parts {
            fingerprint.add(name, part);
        }
        fingerprint.digits(64)
    };
    assert_ne!(of(&[("a", "bc")]), of(&[("ab", "c")]));
    assert_ne!(of(&[("a", "b"), ("c", "d")]), of(&[("a", "bcd")]));
}
