//! Which fields of a configuration are passed over, and which must be understood.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backstop_arch::{build, names, unread_fields};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// `tests/goldens/reference_fields.json`, which `scripts/goldens/reference_fields.py` makes from the sources of the
/// reference implementation.
#[derive(Deserialize)]
struct ReferenceFields {
    any_model: Vec<String>,
    families: BTreeMap<String, Vec<String>>,
}

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens")
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

/// Configurations of the small checkpoints with reference values, by family.
fn configs() -> BTreeMap<String, Map<String, Value>> {
    let mut configs = BTreeMap::new();
    for folder in ["decoders", "cohere2_moe"] {
        let cases = std::fs::read_dir(goldens().join(folder)).expect("goldens");
        for case in cases {
            let Value::Object(config) = read(&case.expect("a case").path().join("config.json"))
            else {
                panic!("a configuration is an object");
            };
            let family = config["model_type"].as_str().expect("a text").to_owned();
            configs.insert(family, config);
        }
    }
    configs
}

#[test]
fn nothing_that_a_reference_implementation_reads_is_passed_over() {
    let reference: ReferenceFields =
        serde_json::from_value(read(&goldens().join("reference_fields.json"))).expect("its shape");
    let configs = configs();
    let mut wrong = Vec::new();
    for family in names() {
        let config = &configs[family];
        let mut read = reference.families[family].clone();
        // Of a model that reads more than text, the text model's is what counts.
        if !config.contains_key("text_config") {
            read.extend(reference.any_model.clone());
        }
        let unread = unread_fields(config).expect(family);
        for field in read {
            // No field means this.
            let mut changed = config.clone();
            changed.insert(field.clone(), json!({"unheard_of": [1]}));
            let passed_over = unread_fields(&changed).unwrap_or_default();
            if passed_over.contains(&field) {
                wrong.push(format!("{family}: {field}"));
            }
        }
        wrong.extend(unread);
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn what_tools_leave_behind_is_passed_over_and_named() {
    let left_behind = json!({
        "unsloth_version": "2026.11", "unsloth_fixed": true, "auto_map": {"AutoConfig": "a.B"},
        "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "problem_type": null,
        "temperature": 0.5, "max_length": 20, "_attn_implementation_autoset": true,
        "model_name": "unsloth/a", "is_causal": true, "pad_token_id": -1,
    });
    for (family, config) in configs() {
        let mut changed = config.clone();
        changed.extend(left_behind.as_object().expect("an object").clone());
        let has_types_of_its_own = ["cohere2_moe", "glm_moe_dsa"].contains(&family.as_str());
        let layers = config.get("num_hidden_layers").and_then(Value::as_u64);
        if let Some(layers) = layers.filter(|_| !has_types_of_its_own)
            && !config.contains_key("layer_types")
        {
            let all = vec!["full_attention"; layers as usize];
            changed.insert("layer_types".to_owned(), json!(all));
        }
        let unread = unread_fields(&changed).unwrap_or_else(|error| panic!("{family}: {error}"));
        for named in ["unsloth_version", "auto_map", "id2label", "temperature"] {
            assert!(
                unread.iter().any(|field| field == named),
                "{family}: {unread:?}"
            );
        }
        for harmless in ["is_causal", "problem_type", "layer_types", "pad_token_id"] {
            assert!(
                unread.iter().all(|field| field != harmless),
                "{family}: {unread:?}"
            );
        }
    }
}

#[test]
fn what_would_change_the_result_is_refused_by_name() {
    let llama = &configs()["llama"];
    for (field, value) in [
        ("is_causal", json!(false)),
        ("sliding_window", json!(64)),
        (
            "layer_types",
            json!(["full_attention", "sliding_attention"]),
        ),
        ("attention_chunk_size", json!(8192)),
        ("is_encoder_decoder", json!(true)),
        ("partial_rotary_factor", json!(0.5)),
    ] {
        let mut changed = llama.clone();
        changed.insert(field.to_owned(), value);
        let error = build(&changed).expect_err(field).to_string();
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn what_scaling_does_not_use_is_named_by_its_path() {
    let mut llama = configs()["llama"].clone();
    llama.remove("rope_parameters");
    llama.remove("rope_scaling");
    let scaling = json!({"type": "linear", "factor": 2.0, "finetuned": true});
    llama.insert("rope_scaling".to_owned(), scaling);
    assert_eq!(
        unread_fields(&llama).expect("llama"),
        ["rope_scaling.finetuned"]
    );
}
