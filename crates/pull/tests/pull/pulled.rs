//! What a pull makes.

use backstop_models::{Manifest, Store};

use crate::stand_in::COMMIT;
use crate::*;

#[test]
fn a_repository_becomes_a_model_of_the_store() {
    let (hub, store) = (tiny(), Scratch::new());
    let outcome = pull_tiny(&hub, &store).unwrap();
    let fetched = 5500 + 300 + CONFIG.len() as u64 + 14;
    let expected = Outcome::Pulled {
        manifest: store.join("tiny.toml"),
        bytes_fetched: fetched,
    };
    assert_eq!(outcome, expected);
    assert_is_tiny(&store);
    let wanted = [
        "LICENSE",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ];
    assert_eq!(names(&store.join("tiny")), wanted);
    let manifest = Manifest::read(&store.join("tiny.toml")).unwrap();
    assert_eq!(manifest.architecture, "LlamaForCausalLM");
    assert_eq!(manifest.model_type.as_deref(), Some("llama"));
    assert_eq!(manifest.repository.as_deref(), Some(REPOSITORY));
    assert_eq!(manifest.revision.as_deref(), Some(COMMIT));
    assert_eq!(manifest.licence.as_deref(), Some("apache-2.0"));
    let sizes = manifest
        .files
        .unwrap()
        .into_values()
        .map(|record| record.bytes.unwrap());
    assert_eq!(sizes.sum::<u64>(), fetched);
}

#[test]
fn what_is_there_is_not_fetched_again() {
    let (hub, store) = (tiny(), Scratch::new());
    pull_tiny(&hub, &store).unwrap();
    let sent = hub.bytes_sent();
    assert_eq!(pull_tiny(&hub, &store).unwrap(), Outcome::AlreadyThere);
    assert_eq!(hub.bytes_sent(), sent);
    // A file that is too short is not there.
    std::fs::write(store.join("tiny/config.json"), "{}").unwrap();
    assert!(matches!(
        pull_tiny(&hub, &store).unwrap(),
        Outcome::Pulled { .. }
    ));
    assert_is_tiny(&store);
}

#[test]
fn another_commit_replaces_the_model_only_when_it_is_complete() {
    let store = Scratch::new();
    let other = tiny_at("ffffffffffffffffffffffffffffffffffffffff", 9);
    pull_tiny(&other, &store).unwrap();
    let before = std::fs::read(store.join("tiny/model.safetensors")).unwrap();
    assert_eq!(before, bytes(5500, 9));
    let hub = tiny();
    hub.choose(|request| match request.header("range") {
        Some("bytes=5000-5499") => stand_in::status(500),
        _ => stand_in::Fault::None,
    });
    pull_tiny(&hub, &store).unwrap_err();
    assert_eq!(
        std::fs::read(store.join("tiny/model.safetensors")).unwrap(),
        before
    );
    let manifest = Manifest::read(&store.join("tiny.toml")).unwrap();
    assert!(manifest.revision.unwrap().starts_with("ffff"));
    hub.choose(|_| stand_in::Fault::None);
    pull_tiny(&hub, &store).unwrap();
    assert_is_tiny(&store);
}

#[test]
fn other_models_and_other_files_are_never_replaced() {
    let (hub, store) = (tiny(), Scratch::new());
    std::fs::create_dir(store.join("tiny")).unwrap();
    std::fs::write(store.join("tiny/config.json"), "my own").unwrap();
    for what_an_earlier_pull_left in [".pull-other", ".pull-tiny/files"] {
        std::fs::create_dir_all(store.join(what_an_earlier_pull_left)).unwrap();
        let error = pull_tiny(&hub, &store).unwrap_err();
        assert_mentions(&error, &["no pull made it", "--name"]);
        std::fs::remove_dir_all(store.join(what_an_earlier_pull_left)).unwrap();
    }
    assert_eq!(
        std::fs::read(store.join("tiny/config.json")).unwrap(),
        b"my own"
    );
    for own in ["tiny", ".pull-tiny"] {
        std::fs::remove_dir_all(store.join(own)).unwrap();
    }

    let mut manifest = Manifest::new("tiny", "Other", "Another.");
    manifest.repository = Some("another/tiny".to_owned());
    Store::new(store.to_path_buf()).record(&manifest).unwrap();
    let error = pull_tiny(&hub, &store).unwrap_err();
    assert_mentions(&error, &["it is of another/tiny"]);
    pull_with(&settings(&hub), &store, &[REPOSITORY, "--name", "mine"]).unwrap();
    assert_eq!(names(&store), ["mine", "mine.toml", "tiny.toml"]);
}

#[test]
fn a_dry_run_fetches_nothing_and_says_what() {
    let (hub, store) = (tiny(), Scratch::new());
    let outcome = pull_with(&settings(&hub), &store, &[REPOSITORY, "--dry-run"]).unwrap();
    let Outcome::DryRun { files } = outcome else {
        panic!("{outcome:?}");
    };
    assert!(files.contains(&("model.safetensors".to_owned(), 5500)));
    assert_eq!(files.len(), 4);
    assert!(names(&store).is_empty());
    assert_eq!(hub.requests().len(), 1);
}

#[test]
fn shards_come_as_the_index_names_them() {
    let index = br#"{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}}"#;
    let (one, two) = (bytes(2500, 1), bytes(10, 2));
    let hub = StandIn::new(&[
        ("config.json", CONFIG),
        ("model.safetensors.index.json", index),
        ("*model-1.safetensors", &one),
        ("*model-2.safetensors", &two),
        ("*model-3.safetensors", &two),
        ("empty file.txt", b""),
        ("NOTICE", b""),
    ]);
    let store = Scratch::new();
    hub.choose(|request| match request.path.ends_with("index.json") {
        true => stand_in::Fault::WrongByte,
        false => stand_in::Fault::None,
    });
    let error = pull_tiny(&hub, &store).unwrap_err();
    assert_mentions(&error, &["index.json is not what the hub lists"]);
    hub.choose(|_| stand_in::Fault::None);
    pull_tiny(&hub, &store).unwrap();
    let names = names(&store.join("tiny"));
    let expected = [
        "NOTICE",
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
    ];
    assert_eq!(names, expected);
    assert_eq!(
        std::fs::read(store.join("tiny/model-1.safetensors")).unwrap(),
        one
    );
}

#[test]
fn one_quantisation_of_gguf_files_is_fetched_with_all_its_parts() {
    let (one, two) = (bytes(2500, 1), bytes(1500, 2));
    let hub = StandIn::new(&[
        ("config.json", CONFIG),
        ("*tiny Q4_K_M.gguf", &one),
        ("*Q8_0/tiny-Q8_0-00001-of-00002.gguf", &one),
        ("*Q8_0/tiny-Q8_0-00002-of-00002.gguf", &two),
        ("*mmproj-tiny-f16.gguf", &two),
    ]);
    let store = Scratch::new();
    let error = pull_tiny(&hub, &store).unwrap_err();
    assert_mentions(&error, &["say which", "tiny Q4_K_M (0.00 GB)", "tiny-Q8_0"]);

    let line = |quantization: &str| format!("hf.co/{REPOSITORY}:{quantization}");
    pull_with(&settings(&hub), &store, &[&line("q4_k_m")]).unwrap();
    assert_eq!(names(&store.join("tiny-q4_k_m")), ["tiny Q4_K_M.gguf"]);
    let manifest = Manifest::read(&store.join("tiny-q4_k_m.toml")).unwrap();
    assert_eq!(manifest.architecture, "GGUF");
    assert_eq!(manifest.quantization.as_deref(), Some("q4_k_m"));
    let located = ModelLocator::new(vec![store.to_path_buf()]);
    located.locate("tiny-q4_k_m").unwrap();

    pull_with(&settings(&hub), &store, &[&line("Q8_0")]).unwrap();
    let parts = [
        "tiny-Q8_0-00001-of-00002.gguf",
        "tiny-Q8_0-00002-of-00002.gguf",
    ];
    assert_eq!(names(&store.join("tiny-Q8_0")), parts);
    let error = pull_with(&settings(&hub), &store, &[&line("Q2_K")]).unwrap_err();
    assert_mentions(&error, &["no GGUF file is of the quantisation Q2_K"]);
}
