//! Checkpoints that cannot be used, and what is said of them.

mod common;

use std::fs;

use backstop_encoders::{EncoderDevice, open_encoder};
use backstop_types::EncoderKind;
use common::{Copy, golden, read_json};
use serde_json::{Value, json};

/// Asserts that a golden with changed fields of a file is refused for this reason.
fn refused(name: &str, file: &str, fields: &Value, reason: &str) {
    let copy = Copy::of(name, &format!("{name}-{}", reason.replace(['/', ' '], "-")));
    copy.set(file, fields);
    let refusal = copy.refusal();
    assert!(refusal.contains(reason), "{refusal}");
}

#[test]
fn configurations_that_are_not_supported_name_the_field() {
    let config = "config.json";
    let bert = "bert_mean";
    refused(
        bert,
        config,
        &json!({"model_type": "t5"}),
        "model_type \"t5\"",
    );
    refused(
        bert,
        config,
        &json!({"hidden_act": "quick_gelu"}),
        "quick_gelu",
    );
    refused(bert, config, &json!({"hidden_size": 33}), "no multiple of");
    refused(
        bert,
        config,
        &json!({"num_hidden_layers": 1 << 20}),
        "num_hidden_layers",
    );
    refused(bert, config, &json!({"hidden_size": null}), "hidden_size");
    refused(bert, config, &json!({"is_decoder": true}), "is_decoder");
    let relative = json!({"position_embedding_type": "relative_key"});
    refused(bert, config, &relative, "position_embedding_type");
    let alibi = json!({"position_embedding_type": "alibi"});
    refused(bert, config, &alibi, "feed_forward_type");
    let yarn = json!({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}});
    refused("modernbert_cls", config, &yarn, "yarn");
    let experts = json!({"moe_every_n_layers": 2});
    refused(
        "nomic_bert_published",
        config,
        &experts,
        "moe_every_n_layers",
    );
    let labels = json!({"id2label": {"0": "no", "1": "yes"}});
    refused("bert_reranker", config, &labels, "2 labels");
    let activation = json!({"sbert_ce_default_activation_function": "torch.nn.Softmax"});
    refused("bert_reranker", config, &activation, "torch.nn.Softmax");
    let left = json!({"truncation_side": "left"});
    refused(bert, "tokenizer_config.json", &left, "truncation_side");
    let short = json!({"max_seq_length": 2});
    refused(bert, "sentence_bert_config.json", &short, "no room");
    let pooling = json!({"pooling_mode": "attention"});
    refused(bert, "1_Pooling/config.json", &pooling, "attention");
}

#[test]
fn tensors_that_do_not_fit_are_all_named() {
    let copy = Copy::of("bert_mean", "layers");
    copy.set(
        "config.json",
        &json!({"num_hidden_layers": 3, "intermediate_size": 47}),
    );
    let refusal = copy.refusal();
    for part in [
        "encoder.layer.2.attention.self.query.weight is absent",
        "encoder.layer.2.attention.output.LayerNorm.bias is absent",
        "; and 2 more",
        "encoder.layer.0.intermediate.dense.weight has shape [48, 32], and [47, 32] is expected",
    ] {
        assert!(refusal.contains(part), "{refusal}");
    }
    copy.set(
        "config.json",
        &json!({"num_hidden_layers": 1, "intermediate_size": 48}),
    );
    let refusal = copy.refusal();
    assert!(
        refusal.contains("encoder.layer.1.output.dense.weight has no place"),
        "{refusal}"
    );
}

#[test]
fn files_that_are_absent_or_cut_short_are_named() {
    let copy = Copy::of("bert_mean", "files");
    let weights = copy.path("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 1]).unwrap();
    assert!(copy.refusal().contains("model.safetensors"));
    fs::rename(&weights, copy.path("pytorch_model.bin")).unwrap();
    assert!(copy.refusal().contains("only safetensors"));
    fs::write(&weights, bytes).unwrap();
    fs::remove_file(copy.path("tokenizer.json")).unwrap();
    assert!(copy.refusal().contains("tokenizer.json"));
    fs::remove_file(copy.path("config.json")).unwrap();
    assert!(copy.refusal().contains("config.json"));
}

#[test]
fn modules_that_are_not_understood_are_refused() {
    let copy = Copy::of("bert_cls_dense", "modules");
    let path = copy.path("modules.json");
    let original = read_json(&path);
    for (place, field, value, reason) in [
        (2, "type", "sentence_transformers.models.LSTM", "LSTM"),
        (
            2,
            "type",
            "somewhere.custom.Dense",
            "somewhere.custom.Dense",
        ),
        (
            1,
            "type",
            "sentence_transformers.models.Normalize",
            "module 1",
        ),
        (1, "path", "../elsewhere", "leaves the directory"),
        (1, "path", "/etc", "leaves the directory"),
    ] {
        let mut modules = original.clone();
        modules[place][field] = json!(value);
        fs::write(&path, modules.to_string()).unwrap();
        let refusal = copy.refusal();
        assert!(refusal.contains(reason), "{refusal}");
    }
    fs::write(&path, original.to_string()).unwrap();
    for (fields, reason) in [
        (json!({"in_features": 31}), "it reads 31 numbers"),
        (
            json!({"activation_function": "torch.nn.modules.activation.PReLU"}),
            "PReLU",
        ),
        (
            json!({"in_features": 32, "use_residual": true}),
            "use_residual",
        ),
    ] {
        let dense = "2_Dense/config.json";
        let before = fs::read(copy.path(dense)).unwrap();
        copy.set(dense, &fields);
        let refusal = copy.refusal();
        assert!(refusal.contains(reason), "{refusal}");
        fs::write(copy.path(dense), before).unwrap();
    }
    assert!(copy.open().is_ok());
}

#[test]
fn a_device_that_this_build_lacks_names_the_feature() {
    let open = |device| open_encoder(&golden("bert_mean"), device).map(|_| ());
    if cfg!(not(feature = "metal")) {
        let error = open(EncoderDevice::Metal(0)).unwrap_err().to_string();
        assert!(error.contains("feature metal"), "{error}");
    }
    if cfg!(not(feature = "cuda")) {
        let error = open(EncoderDevice::Cuda(0)).unwrap_err().to_string();
        assert!(error.contains("feature cuda"), "{error}");
    }
}

#[test]
fn a_configuration_says_whether_vectors_can_be_shortened() {
    let shortens = |copy: &Copy| match copy.open().unwrap().facts().kind {
        EncoderKind::Embedding { shortens, .. } => shortens,
        EncoderKind::Relevance => panic!("it makes vectors"),
    };
    let copy = Copy::of("bert_mean", "shortens");
    assert!(!shortens(&copy));
    copy.set("config.json", &json!({"matryoshka_dimensions": [8, 16]}));
    assert!(shortens(&copy));
}
