//! Models that read more than text: of their configurations the text model's counts, and it is read as strictly.

use backstop_arch::{ModelSpec, build, unread_fields};
use serde_json::{Value, json};

/// Kimi K2.7 Code's sizes; with what older transformers wrote into the configuration of its text model.
fn kimi() -> Value {
    serde_json::from_str(include_str!("nested/kimi_k25.json")).expect("JSON")
}

fn spec(config: &Value) -> Result<ModelSpec, String> {
    let object = config.as_object().expect("an object");
    let model = build(object).map_err(|error| error.to_string())?;
    Ok(model.spec().clone())
}

/// Names of all tensors of a checkpoint whose experts are stored one by one.
fn names(spec: &ModelSpec) -> Vec<String> {
    let expected = spec
        .weights
        .expected(|name| !name.ends_with("gate_up_proj"));
    expected.into_iter().map(|tensor| tensor.name).collect()
}

#[test]
fn the_text_model_of_kimi_lies_under_a_name_of_its_own() {
    let spec = spec(&kimi()).unwrap();
    assert_eq!(
        (spec.architecture, spec.vocabulary_size),
        ("kimi_k25", 163_840)
    );
    let cached = &spec.kv_groups[0];
    assert_eq!(
        [cached.num_layers, cached.kv_heads, cached.head_dim],
        [61, 1, 576]
    );
    let names = names(&spec);
    assert!(names.iter().all(|name| name.starts_with("language_model.")));
    for name in [
        "language_model.lm_head.weight",
        "language_model.model.embed_tokens.weight",
        "language_model.model.norm.weight",
        "language_model.model.layers.0.mlp.down_proj.weight",
        "language_model.model.layers.60.mlp.experts.383.down_proj.weight",
        "language_model.model.layers.60.mlp.gate.e_score_correction_bias",
        "language_model.model.layers.60.self_attn.kv_b_proj.weight",
    ] {
        assert!(names.iter().any(|other| other == name), "{name}");
    }
}

#[test]
fn the_whole_model_says_whether_the_head_is_the_embedding() {
    for (says, tied) in [
        (json!(false), false),
        (json!(true), true),
        (Value::Null, true),
    ] {
        let mut config = kimi();
        config["tie_word_embeddings"] = says;
        let weights = spec(&config).unwrap().weights;
        let head = weights.tied.map(|tied| tied.head);
        assert_eq!(
            head,
            tied.then(|| "language_model.lm_head.weight".to_owned())
        );
    }
}

#[test]
fn what_is_wrong_with_a_nested_configuration_is_named() {
    for (pointer, value, named) in [
        ("/text_config", Value::Null, "text_config is missing"),
        ("/text_config", json!("x"), "text_config must be an object"),
        (
            "/text_config/model_type",
            json!("qwen3"),
            "model_type may be kimi_k2 or deepseek_v3",
        ),
        (
            "/text_config/scoring_func",
            json!("softmax"),
            "text_config: scoring_func is \"softmax\"",
        ),
        (
            "/text_config/kv_lora_rank",
            Value::Null,
            "text_config: kv_lora_rank is missing",
        ),
        ("/text_config/early_stopping", json!({"odd": 1}), ""),
    ] {
        let mut config = kimi();
        *config.pointer_mut(pointer).expect("it is there") = value;
        match spec(&config) {
            Ok(_) => assert_eq!(named, "", "{pointer}"),
            Err(error) => assert!(!named.is_empty() && error.contains(named), "{error}"),
        }
    }
}

#[test]
fn fields_that_nobody_reads_are_named_by_their_path() {
    for (place, named) in [("/text_config", "text_config.attn_gate"), ("", "attn_gate")] {
        let mut config = kimi();
        config.pointer_mut(place).expect("it is there")["attn_gate"] = json!(true);
        let unread = unread_fields(config.as_object().expect("an object")).expect("understood");
        assert!(unread.iter().any(|field| field == named), "{unread:?}");
    }
}
