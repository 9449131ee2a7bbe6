use std::collections::BTreeSet;

use proptest::prelude::{any, prop, proptest};
use serde_json::json;

use super::*;
use crate::hexadecimal::sha256;

fn signer() -> Signer {
    Signer::Key {
        fingerprint: "of the tests".to_owned(),
    }
}

/// A statement over these files, each of which holds its own name.
fn statement(names: &[&str]) -> Value {
    let mut hasher = Sha256::new();
    names
        .iter()
        .for_each(|name| hasher.update(Sha256::digest(name)));
    let digest: String = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let file = |name: &&str| json!({"name": name, "algorithm": "sha256", "digest": sha256(name.as_bytes())});
    json!({
        "_type": STATEMENT_TYPE,
        "subject": [{"name": "a model", "digest": {"sha256": digest}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": false},
            "resources": names.iter().map(file).collect::<Vec<_>>(),
        },
    })
}

fn read_value(value: &Value) -> Result<SignedFiles, SignatureError> {
    read(value.to_string().as_bytes(), signer())
}

/// The refusal of a good statement in which this pointer has another value.
fn refusal_with(pointer: &str, value: Value) -> String {
    let mut statement = statement(&["b", "a"]);
    *statement.pointer_mut(pointer).unwrap() = value;
    read_value(&statement).unwrap_err().to_string()
}

fn refusal_of(names: &[&str]) -> String {
    read_value(&statement(names)).unwrap_err().to_string()
}

#[test]
fn a_statement_is_read_in_any_order_of_its_files() {
    let files = read_value(&statement(&["b/c", "a"])).unwrap();
    let digest = |name: &str| (name.to_owned(), sha256(name.as_bytes()));
    assert_eq!(files.digests, BTreeMap::from([digest("a"), digest("b/c")]));
    assert_eq!(files.model_name, "a model");
    assert!(files.ignored_paths.is_empty());
}

#[test]
fn what_is_of_another_type_is_refused_by_name() {
    let cases = [
        (
            "/_type",
            "https://in-toto.io/Statement/v0.1",
            "statement type",
        ),
        (
            "/predicateType",
            "https://model_signing/Digests/v0.1",
            "predicate type",
        ),
        ("/predicate/serialization/method", "shards", "by \"shards\""),
        (
            "/predicate/serialization/hash_type",
            "blake2b",
            "\"blake2b\"",
        ),
        ("/predicate/resources/1/algorithm", "blake3", "\"blake3\""),
    ];
    for (pointer, value, expected) in cases {
        let refusal = refusal_with(pointer, json!(value));
        assert!(refusal.contains(expected), "{pointer}: {refusal}");
    }
}

#[test]
fn a_statement_that_contradicts_itself_is_refused() {
    let other = sha256(b"other");
    for pointer in ["/subject/0/digest/sha256", "/predicate/resources/0/digest"] {
        let refusal = refusal_with(pointer, json!(other));
        assert!(refusal.contains("contradicts itself"), "{refusal}");
        for wrong in ["", "zz", &other[1..]] {
            let refusal = refusal_with(pointer, json!(wrong));
            assert!(refusal.contains("64 hexadecimal digits"), "{refusal}");
        }
    }
}

#[test]
fn names_that_leave_the_folder_or_stand_twice_are_refused() {
    assert!(refusal_of(&["/etc/passwd"]).contains("absolute"));
    assert!(refusal_of(&["a", "b/../../c"]).contains("\"..\""));
    assert!(refusal_of(&["a", "a"]).contains("listed twice"));
    assert!(refusal_of(&["."]).contains("single file"));
    assert!(refusal_of(&[]).contains("no files"));
}

#[test]
fn what_is_missing_or_of_another_json_type_is_named() {
    let pointers = [
        "/_type",
        "/subject",
        "/subject/0/name",
        "/subject/0/digest/sha256",
        "/predicateType",
        "/predicate/serialization/method",
        "/predicate/serialization/hash_type",
        "/predicate/resources",
    ];
    for pointer in pointers {
        for wrong in [json!(null), json!(1), json!({"a": []})] {
            let refusal = refusal_with(pointer, wrong);
            assert!(refusal.contains(pointer), "{pointer}: {refusal}");
        }
    }
    for field in ["/name", "/algorithm", "/digest"] {
        let refusal = refusal_with(&format!("/predicate/resources/0{field}"), json!(null));
        assert!(
            refusal.contains(&format!("signed file has no {field}")),
            "{refusal}"
        );
    }
    assert!(refusal_with("/subject", json!([{}, {}])).contains("more than 1 subjects"));
    assert!(refusal_with("/subject/0/name", json!("a".repeat(1025))).contains("more than 1024"));
}

#[test]
fn ignored_paths_are_kept_within_limits() {
    let with = |paths: Value| {
        let mut statement = statement(&["a"]);
        statement["predicate"]["serialization"]["ignore_paths"] = paths;
        read_value(&statement)
    };
    assert_eq!(
        with(json!(["b", ".git"])).unwrap().ignored_paths,
        ["b", ".git"]
    );
    assert!(with(json!("b")).is_err());
    assert!(with(json!([1])).is_err());
    assert!(with(json!(["a".repeat(1025)])).is_err());
    assert!(with(json!(vec!["a"; 1025])).is_err());
}

#[test]
fn as_many_files_as_promised_are_taken_and_no_more() {
    let names: Vec<String> = (0..=FILES_MAX)
        .map(|number| format!("file-{number}"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let files = read_value(&statement(&names[1..])).unwrap();
    assert_eq!(files.digests.len(), FILES_MAX);
    assert!(refusal_of(&names).contains("more than 16384 files"));
}

#[test]
fn json_is_read_within_limits() {
    let refusal = |json: &str| read(json.as_bytes(), signer()).unwrap_err().to_string();
    assert!(refusal("{").contains("not JSON"));
    assert!(refusal(&"[".repeat(100_000)).contains("recursion"));
    let values = format!("[{}0]", "0,".repeat(VALUES_MAX));
    assert!(refusal(&values).contains("too many values"));
}

proptest! {
    #[test]
    fn any_byte_of_a_statement_may_be_another_and_nothing_panics(
        at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut json = statement(&["a", "b/c"]).to_string().into_bytes();
        let good = read(&json, signer()).unwrap();
        let at = at.index(json.len());
        json[at] = byte;
        if let Ok(files) = read(&json, signer()) {
            // Names may be others, and so in another order; the digests are under the model's.
            let digests = |files: &SignedFiles| files.digests.values().cloned().collect::<BTreeSet<_>>();
            assert_eq!(digests(&files), digests(&good));
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        assert!(read(&bytes, signer()).is_err());
    }
}
