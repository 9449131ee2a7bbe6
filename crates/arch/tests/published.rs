//! Configurations as models are published with are understood, and hostile ones are refused.

use std::path::Path;

use backstop_arch::{ArchError, ModelSpec, build};
use serde_json::{Value, json};

fn spec(config: &Value) -> Result<ModelSpec, ArchError> {
    let object = config.as_object().expect("an object");
    build(object).map(|model| model.spec().clone())
}

/// The configuration of a published model.
fn published(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/published/{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).expect("JSON")
}

/// `base` with fields changed; null removes one.
fn with(base: &Value, fields: &Value) -> Value {
    let mut changed = base.clone();
    for (name, value) in fields.as_object().expect("an object") {
        changed[name] = value.clone();
    }
    changed
}

/// Numbers of all weights together.
fn parameters(spec: &ModelSpec) -> u64 {
    let weights = &spec.weights;
    let vectors = weights.vectors.iter().map(|vector| vector.elements());
    let matrices = weights.matrices.iter();
    let matrices = matrices.map(|matrix| matrix.rows() * matrix.columns);
    let experts = weights.experts.iter();
    let experts = experts.map(|experts| {
        let biases = if experts.alternating {
            2 * experts.width + experts.hidden
        } else {
            0
        };
        experts.num_experts * (3 * experts.hidden * experts.width + biases)
    });
    vectors.chain(matrices).chain(experts).sum::<usize>() as u64
}

#[test]
fn published_models_have_the_parameters_that_they_are_known_for() {
    for (config, expected) in [
        // Of each the sum of its published tensors; of GLM without the layer that is left out.
        (published("llama_3_1_8b"), 8_030_261_248_u64),
        (published("mixtral_8x7b"), 46_702_792_704),
        (published("qwen2_5_coder_7b"), 7_615_616_512),
        (published("qwen3_coder_30b_a3b"), 30_532_122_624),
        (published("gpt_oss_20b"), 20_914_757_184),
        (published("smollm3_3b"), 3_075_098_624),
        (published("granite_3_3_8b"), 8_170_864_640),
    ] {
        let spec = spec(&config).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(parameters(&spec), expected, "{}", spec.architecture);
    }
    let glm = spec(&published("glm_4_7_flash")).unwrap_or_else(|error| panic!("{error}"));
    assert!((29_000_000_000..31_500_000_000).contains(&parameters(&glm)));
    let cached = &glm.kv_groups[0];
    assert_eq!([cached.kv_heads, cached.head_dim], [1, 576]);
}

/// GLM-5's sizes, as the configuration class of transformers has them by default.
fn glm_5() -> Value {
    json!({
        "model_type": "glm_moe_dsa",
        "vocab_size": 154_880,
        "hidden_size": 6144,
        "intermediate_size": 12_288,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": 78,
        "num_attention_heads": 64,
        "n_shared_experts": 1,
        "n_routed_experts": 256,
        "routed_scaling_factor": 2.5,
        "kv_lora_rank": 512,
        "q_lora_rank": 2048,
        "qk_rope_head_dim": 64,
        "v_head_dim": 256,
        "qk_nope_head_dim": 192,
        "num_experts_per_tok": 8,
        "max_position_embeddings": 202_752,
        "index_topk": 2048,
        "num_nextn_predict_layers": 1,
    })
}

/// GLM-5.2's fields of this kind; its list of layers says the same.
fn glm_5_2() -> Value {
    let added = json!({
        "max_position_embeddings": 1_048_576,
        "index_topk_freq": 4,
        "index_skip_topk_offset": 3,
        "index_topk_pattern": null,
        "indexer_rope_interleave": true,
        "index_share_for_mtp_iteration": true,
        "moe_router_dtype": "float32",
    });
    with(&glm_5(), &added)
}

#[test]
fn layers_with_an_indexer_have_its_weights_and_a_cache_of_index_keys() {
    let spec = spec(&glm_5_2()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(spec.max_position_embeddings, 1_048_576);
    assert!((735_000_000_000..750_000_000_000).contains(&parameters(&spec)));
    let [latents, index_keys] = spec.kv_groups.as_slice() else {
        panic!("{:?}", spec.kv_groups);
    };
    assert_eq!([latents.num_layers, latents.head_dim], [78, 576]);
    assert_eq!([index_keys.num_layers, index_keys.head_dim], [21, 128]);
    assert!(latents.has_values && !index_keys.has_values);
    let expected = spec.weights.expected(|_| false);
    let tensor = |name: &str| expected.iter().find(|tensor| tensor.name == name);
    for (name, shape) in [
        ("wq_b.weight", [32 * 128, 2048].as_slice()),
        ("wk.weight", &[128, 6144]),
        ("k_norm.bias", &[128]),
        ("weights_proj.weight", &[32, 6144]),
    ] {
        for (layer, needed) in [(0, true), (2, true), (3, false), (6, true), (77, false)] {
            let name = format!("model.layers.{layer}.self_attn.indexer.{name}");
            let tensor = tensor(&name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(tensor.shape, shape, "{name}");
            assert_eq!(tensor.required, needed, "{name}");
        }
    }
}

/// Layers with an indexer, of a model of five.
fn selecting_layers(fields: &Value) -> Result<u32, String> {
    let config = with(&glm_5(), &json!({"num_hidden_layers": 5}));
    let spec = spec(&with(&config, fields)).map_err(|error| error.to_string())?;
    let has_one = |layer: u32| {
        let name = format!("model.layers.{layer}.self_attn.indexer.wk.weight");
        let matrices = spec.weights.matrices.iter();
        u32::from(
            matrices
                .flat_map(|matrix| &matrix.parts)
                .any(|part| part.name == name),
        )
    };
    Ok((0..5).fold(0, |layers, layer| 2 * layers + has_one(layer)))
}

#[test]
fn indexers_are_where_the_list_or_the_pattern_or_the_period_says() {
    let listed = json!(["full", "shared", "full", "shared", "shared"]);
    for (fields, layers) in [
        (json!({}), 0b11111),
        (json!({"index_topk_freq": 0}), 0b11111),
        (json!({"index_topk_freq": 2}), 0b11010),
        (
            json!({"index_topk_freq": 3, "index_skip_topk_offset": 0}),
            0b00100,
        ),
        (
            json!({"index_topk_freq": 3, "index_skip_topk_offset": 1}),
            0b10010,
        ),
        (
            json!({"index_topk_freq": 2, "index_topk_pattern": "FSSFSS"}),
            0b10010,
        ),
        (json!({"index_topk_pattern": listed}), 0b10100),
        (
            json!({"index_topk_pattern": "FSSFS", "indexer_types": listed}),
            0b10100,
        ),
    ] {
        let found = selecting_layers(&fields);
        // Without one before them the first layers have nothing to share.
        match layers & 0b10000 {
            0 => assert!(found.unwrap_err().contains("first layer"), "{fields}"),
            _ => assert_eq!(found, Ok(layers), "{fields}"),
        }
    }
    for (fields, complaint) in [
        (
            json!({"indexer_types": ["full", "shared"]}),
            "indexer_types",
        ),
        (
            json!({"indexer_types": ["full", "none", "full", "full", "full"]}),
            "indexer_types",
        ),
        (json!({"index_topk_pattern": "FXFFF"}), "index_topk_pattern"),
        (json!({"index_topk_pattern": 3}), "index_topk_pattern"),
        (json!({"index_topk_freq": -1}), "index_topk_freq"),
        (json!({"index_topk": 0}), "index_topk"),
        (json!({"index_head_dim": 32}), "index_head_dim"),
        (
            json!({"indexer_rope_interleave": false}),
            "indexer_rope_interleave",
        ),
        (json!({"moe_router_dtype": "bfloat16"}), "moe_router_dtype"),
    ] {
        let error = selecting_layers(&fields).unwrap_err();
        assert!(error.contains(complaint), "{fields}: {error}");
    }
}

#[test]
fn transformers_may_have_written_the_configuration_anew() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/decoders");
    let mut count = 0;
    for entry in std::fs::read_dir(goldens).expect("goldens are part of the repository") {
        let directory = entry.expect("readable").path();
        let Ok(saved) = std::fs::read_to_string(directory.join("config_as_saved.json")) else {
            continue;
        };
        let original = std::fs::read_to_string(directory.join("config.json")).expect("readable");
        let [original, saved] = [original, saved].map(|text| {
            let config = serde_json::from_str(&text).expect("JSON");
            spec(&config).unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        });
        let [original, saved] = [original, saved].map(|spec| format!("{spec:?}"));
        assert_eq!(original, saved, "{}", directory.display());
        count += 1;
    }
    assert!(count >= 20, "only {count} configurations");
}

#[test]
fn what_would_change_the_mathematics_is_refused_by_name() {
    for (base, change, named) in [
        (
            published("llama_3_1_8b"),
            json!({"mlp_bias": true}),
            "mlp_bias",
        ),
        (
            published("smollm3_3b"),
            json!({"no_rope_layers": [1, 0]}),
            "no_rope_layers",
        ),
        (
            published("smollm3_3b"),
            json!({"no_rope_layer_interval": 0}),
            "no_rope_layer_interval",
        ),
        (
            published("smollm3_3b"),
            json!({"layer_types": vec!["sliding_attention"; 36]}),
            "use_sliding_window",
        ),
        (
            published("granite_3_3_8b"),
            json!({"residual_multiplier": 0.0}),
            "residual_multiplier",
        ),
        (
            published("granite_3_3_8b"),
            json!({"logits_scaling": -8.0}),
            "logits_scaling",
        ),
        (
            published("llama_3_1_8b"),
            json!({"hidden_act": "gelu"}),
            "hidden_act",
        ),
        (
            published("llama_3_1_8b"),
            json!({"is_causal": false}),
            "is_causal",
        ),
        (
            published("gpt_oss_20b"),
            json!({"rope_scaling": null}),
            "rope_scaling",
        ),
        (
            published("gpt_oss_20b"),
            json!({"experts_per_token": 2}),
            "experts_per_token",
        ),
        (
            published("gpt_oss_20b"),
            json!({"swiglu_limit": 0.0}),
            "swiglu_limit",
        ),
        (
            published("glm_4_7_flash"),
            json!({"topk_method": "greedy"}),
            "topk_method",
        ),
        (
            published("glm_4_7_flash"),
            json!({"scoring_func": "softmax"}),
            "scoring_func",
        ),
        (published("glm_4_7_flash"), json!({"n_group": 3}), "n_group"),
        (glm_5(), json!({"q_lora_rank": null}), "q_lora_rank"),
        (
            glm_5(),
            json!({"rope_interleave": false}),
            "rope_interleave",
        ),
        (
            glm_5(),
            json!({"layer_types": ["full_attention"]}),
            "layer_types",
        ),
        (
            published("glm_4_7_flash"),
            json!({"num_key_value_heads": 4}),
            "num_key_value_heads",
        ),
    ] {
        let error = spec(&with(&base, &change)).expect_err(named).to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn numbers_that_no_model_has_are_refused_before_anything_is_made_of_them() {
    let huge = u64::from(u32::MAX);
    for (base, fields) in [
        (
            published("llama_3_1_8b"),
            vec![
                "hidden_size",
                "intermediate_size",
                "num_attention_heads",
                "num_hidden_layers",
            ],
        ),
        (
            published("qwen3_coder_30b_a3b"),
            vec![
                "num_experts",
                "moe_intermediate_size",
                "head_dim",
                "num_experts_per_tok",
            ],
        ),
        (
            published("gpt_oss_20b"),
            vec![
                "num_local_experts",
                "intermediate_size",
                "num_experts_per_tok",
            ],
        ),
        (glm_5(), vec!["index_n_heads", "index_head_dim"]),
        (
            published("glm_4_7_flash"),
            vec![
                "kv_lora_rank",
                "qk_rope_head_dim",
                "qk_nope_head_dim",
                "v_head_dim",
                "n_routed_experts",
                "n_shared_experts",
                "n_group",
                "topk_group",
                "q_lora_rank",
            ],
        ),
    ] {
        for field in fields {
            for value in [0, huge - 1] {
                let config = with(&base, &json!({field: value}));
                assert!(spec(&config).is_err(), "{field} = {value}");
            }
        }
    }
}
