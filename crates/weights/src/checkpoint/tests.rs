//! Opening directories: weight files, text files, overrides.

use std::path::Path;

use backstop_models::{Manifest, ModelLocator};
use safetensors::Dtype;
use serde_json::json;

use crate::test_support::{Directory, assert_mentions, floats, zeros};
use crate::{Checkpoint, ElementType, TokenizerSource};

#[test]
fn pickled_weights_are_told_how_to_be_converted() {
    let directory = Directory::with_config();
    assert_mentions(&directory.open_error(), &["no weights: neither"]);
    directory.write("pytorch_model-00001-of-00002.bin", "");
    assert_mentions(&directory.open_error(), &["no weights", "save_pretrained"]);
}

#[test]
fn a_single_file_is_opened() {
    let directory = Directory::new();
    directory.write(
        "config.json",
        r#"{"architectures": ["Tiny"], "hidden_size": 4}"#,
    );
    let tensors = [
        zeros("b", Dtype::BF16, &[2, 4]),
        zeros("a", Dtype::F8_E4M3, &[3]),
    ];
    directory.write_tensors("model.safetensors", &tensors);
    let checkpoint = directory.open().unwrap();

    let names: Vec<&str> = checkpoint
        .tensors()
        .map(|tensor| tensor.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(checkpoint.tensor("b").unwrap().shape, [2, 4]);
    assert_eq!(
        checkpoint.tensor("a").unwrap().element_type,
        ElementType::F8E4M3
    );
    assert_eq!(checkpoint.bytes_total(), 19);
    assert_eq!(checkpoint.architecture(), Some("Tiny"));
    assert_eq!(checkpoint.config()["hidden_size"], 4);
    let TokenizerSource::File(tokenizer) = checkpoint.tokenizer() else {
        panic!("the tokenizer is a file");
    };
    assert_eq!(tokenizer, directory.join("tokenizer.json"));
    assert!(checkpoint.chat_templates().is_empty());
}

#[test]
fn missing_parts_of_a_directory_are_named() {
    let directory = Directory::new();
    assert_mentions(&directory.open_error(), &["there is no config.json"]);
    directory.write("config.json", "[]");
    assert_mentions(
        &directory.open_error(),
        &["config.json", "not a JSON object"],
    );
    directory.write("config.json", "{");
    assert_mentions(&directory.open_error(), &["config.json", "not valid JSON"]);
    directory.write("config.json", b"\xff");
    assert_mentions(&directory.open_error(), &["config.json", "not UTF-8"]);
    directory.write("config.json", "{}");
    assert_mentions(&directory.open_error(), &["no weights"]);
    directory.write_tensors("x.safetensors", &[floats("a", &[1.0])]);
    assert_eq!(directory.open().unwrap().file_count(), 1);
    directory.write_tensors("y.safetensors", &[floats("b", &[1.0])]);
    assert_mentions(&directory.open_error(), &["2 safetensors files but no"]);

    let absent = Checkpoint::open(&directory.join("absent"), &[])
        .unwrap_err()
        .to_string();
    assert_mentions(&absent, &["absent"]);
    let file = Checkpoint::open(&directory.join("config.json"), &[])
        .unwrap_err()
        .to_string();
    assert_mentions(&file, &["not a directory"]);
}

#[test]
fn a_directory_in_place_of_a_weight_file_is_refused() {
    let directory = Directory::with_config();
    std::fs::create_dir(directory.join("x.safetensors")).unwrap();
    assert_mentions(
        &directory.open_error(),
        &["x.safetensors", "not a regular file"],
    );
}

fn with_weights() -> Directory {
    let directory = Directory::with_config();
    directory.write_tensors("model.safetensors", &[floats("a", &[1.0])]);
    directory
}

#[test]
fn overrides_merge_deeply_and_fail_whole() {
    let directory = with_weights();
    directory.write(
        "config.json",
        r#"{"a": {"b": 1, "c": 2}, "d": [1, 2], "eos_token_id": 5}"#,
    );
    let mut checkpoint = directory.open().unwrap();
    checkpoint
        .apply_overrides(&json!({"a": {"b": 9}, "d": [3], "eos_token_id": [6]}))
        .unwrap();
    let expected = json!({"a": {"b": 9, "c": 2}, "d": [3], "eos_token_id": [6]});
    assert_eq!(
        serde_json::Value::from(checkpoint.config().clone()),
        expected
    );
    assert_eq!(checkpoint.generation_config().eos_token_ids, [6]);

    assert!(checkpoint.apply_overrides(&json!([])).is_err());
    let message = checkpoint
        .apply_overrides(&json!({"x": 1, "eos_token_id": "s"}))
        .unwrap_err()
        .to_string();
    assert_mentions(&message, &["overrides", "eos_token_id"]);
    assert_eq!(
        serde_json::Value::from(checkpoint.config().clone()),
        expected
    );
}

#[test]
fn generation_defaults_fall_back_to_the_configuration() {
    let directory = with_weights();
    directory.write(
        "config.json",
        r#"{"eos_token_id": 1, "bos_token_id": 2, "pad_token_id": 3}"#,
    );
    let generation = directory.open().unwrap().generation_config();
    assert_eq!(generation.eos_token_ids, [1]);
    assert_eq!(generation.pad_token_id, Some(3));

    directory.write(
        "generation_config.json",
        r#"{"eos_token_id": [7, 8], "bos_token_id": null, "temperature": 1, "top_p": 0.95,
            "top_k": 40, "repetition_penalty": 1.05, "do_sample": true, "num_beams": 4,
            "transformers_version": "5", "suppress_tokens": null}"#,
    );
    let generation = directory.open().unwrap().generation_config();
    assert_eq!(generation.eos_token_ids, [7, 8]);
    assert_eq!(generation.bos_token_id, Some(2));
    assert_eq!(generation.temperature, Some(1.0));
    assert_eq!(generation.top_p, Some(0.95));
    assert_eq!(generation.top_k, Some(40));
    assert_eq!(generation.repetition_penalty, Some(1.05));
    assert_eq!(generation.unread_keys, ["num_beams"]);

    directory.write(
        "config.json",
        r#"{"pad_token_id": 3, "text_config": {"bos_token_id": 9, "pad_token_id": 4}}"#,
    );
    let generation = directory.open().unwrap().generation_config();
    assert_eq!(generation.eos_token_ids, [7, 8]);
    assert_eq!(generation.bos_token_id, Some(9));
    assert_eq!(generation.pad_token_id, Some(3));

    directory.write(
        "generation_config.json",
        r#"{"eos_token_id": -2, "top_p": "x"}"#,
    );
    assert_mentions(
        &directory.open_error(),
        &["eos_token_id", "-2", "top_p", "\"x\""],
    );
}

#[test]
fn the_template_file_wins_over_the_tokenizer_configuration() {
    let directory = with_weights();
    directory.write(
        "tokenizer_config.json",
        r#"{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false},
            "chat_template": [{"name": "rag", "template": "r"},
                              {"name": "default", "template": "old"}]}"#,
    );
    let checkpoint = directory.open().unwrap();
    assert_eq!(checkpoint.default_chat_template(), Some("old"));
    assert_eq!(checkpoint.chat_templates()["rag"], "r");
    assert_eq!(checkpoint.special_tokens().bos.as_deref(), Some("<s>"));
    assert_eq!(checkpoint.special_tokens().eos.as_deref(), Some("</s>"));
    assert_eq!(checkpoint.special_tokens().pad, None);

    directory.write("chat_template.jinja", "new");
    let checkpoint = directory.open().unwrap();
    assert_eq!(checkpoint.default_chat_template(), Some("new"));
    assert_eq!(checkpoint.chat_templates().len(), 1);
    std::fs::remove_file(directory.join("chat_template.jinja")).unwrap();

    directory.write("tokenizer_config.json", r#"{"chat_template": "text"}"#);
    let checkpoint = directory.open().unwrap();
    assert_eq!(checkpoint.default_chat_template(), Some("text"));
    directory.write("tokenizer_config.json", r#"{"bos_token": 4}"#);
    assert_mentions(&directory.open_error(), &["bos_token"]);
}

#[test]
fn named_templates_are_found_wherever_they_stand() {
    let directory = with_weights();
    let names = |directory: &Directory| -> Vec<String> {
        let checkpoint = directory.open().unwrap();
        checkpoint.chat_templates().keys().cloned().collect()
    };
    directory.write(
        "tokenizer_config.json",
        r#"{"chat_template": {"tool_use": "t", "default": "d"}}"#,
    );
    assert_eq!(names(&directory), ["default", "tool_use"]);
    directory.write("tokenizer_config.json", r#"{"chat_template": []}"#);
    assert!(names(&directory).is_empty());

    std::fs::create_dir(directory.join("additional_chat_templates")).unwrap();
    directory.write("additional_chat_templates/tool_use.jinja", "of a file");
    directory.write("additional_chat_templates/README.md", "no template");
    directory.write("chat_template.jinja", "d");
    assert_eq!(names(&directory), ["default", "tool_use"]);
    let checkpoint = directory.open().unwrap();
    assert_eq!(checkpoint.chat_templates()["tool_use"], "of a file");
    assert_eq!(checkpoint.default_chat_template(), Some("d"));

    let long = "n".repeat(65);
    std::fs::remove_dir_all(directory.join("additional_chat_templates")).unwrap();
    std::fs::remove_file(directory.join("chat_template.jinja")).unwrap();
    let many: Vec<String> = (0..33).map(|index| format!("\"{index}\": \"x\"")).collect();
    for (templates, complaint) in [
        (
            "[{\"name\": \"rag\"}]".to_owned(),
            "without a name and a template",
        ),
        ("{\"rag\": 1}".to_owned(), "\"rag\" is not a text"),
        ("{\"\": \"x\"}".to_owned(), "1 to 64 bytes"),
        (format!("{{\"{long}\": \"x\"}}"), "1 to 64 bytes"),
        (format!("{{{}}}", many.join(", ")), "more than 32"),
        ("true".to_owned(), "neither a text, a list nor an object"),
    ] {
        let config = format!("{{\"chat_template\": {templates}}}");
        directory.write("tokenizer_config.json", &config);
        assert_mentions(&directory.open_error(), &[complaint]);
    }
}

#[test]
fn the_shapes_in_the_repository_are_those_of_their_manifests() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let manifests = ModelLocator::new(vec![directory]).manifests();
    assert!(manifests.contains_key("north-mini-code"));
    for path in manifests.values() {
        let manifest = Manifest::read(path).unwrap();
        if let Some(shape) = manifest.shape_path(path) {
            let checkpoint = Checkpoint::open_shape(&shape, shape.parent().unwrap(), &[]).unwrap();
            assert_eq!(
                checkpoint.architecture(),
                Some(manifest.architecture.as_str())
            );
            checkpoint.quantization().unwrap();
        }
    }
}
