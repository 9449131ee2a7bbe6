//! The one quantisation scheme that is accepted, and all that are refused.

use safetensors::Dtype;
use serde_json::{Value, json};

use super::support::{Directory, Tensor, assert_mentions, zeros};
use crate::QuantizationScheme;

/// The section as llm-compressor writes it for FP8 with dynamic activations.
fn fp8() -> Value {
    json!({
        "config_groups": {"group_0": {
            "format": "float-quantized",
            "input_activations": {
                "actorder": null, "block_structure": null, "dynamic": true, "group_size": null,
                "num_bits": 8, "observer": null, "observer_kwargs": {}, "strategy": "token",
                "symmetric": true, "type": "float", "scale_dtype": null, "zp_dtype": null
            },
            "output_activations": null,
            "targets": ["Linear"],
            "weights": {
                "actorder": null, "block_structure": null, "dynamic": false, "group_size": null,
                "num_bits": 8, "observer": "minmax", "observer_kwargs": {}, "strategy": "channel",
                "symmetric": true, "type": "float", "scale_dtype": null, "zp_dtype": null
            }
        }},
        "format": "float-quantized",
        "global_compression_ratio": null,
        "ignore": ["lm_head", "re:.*self_attn.*", "re:.*mlp\\.gate$", "model.layers.0.mlp.up_proj"],
        "kv_cache_scheme": null,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "sparsity_config": {},
        "transform_config": {},
        "version": "0.12.2"
    })
}

fn parse(section: &Value) -> Result<QuantizationScheme, String> {
    let config = json!({ "quantization_config": section });
    QuantizationScheme::parse(config.as_object().unwrap()).map_err(|error| error.to_string())
}

#[test]
fn no_section_means_no_quantisation() {
    for config in [json!({}), json!({"quantization_config": null})] {
        let scheme = QuantizationScheme::parse(config.as_object().unwrap()).unwrap();
        assert!(matches!(scheme, QuantizationScheme::None));
        assert!(!scheme.is_quantized("x"));
    }
}

#[test]
fn experts_in_mxfp4_are_accepted_as_gpt_oss_says_it() {
    let left_alone = [
        "model.layers.*.self_attn",
        "model.layers.*.mlp.router",
        "lm_head",
    ];
    let mut section = json!({"quant_method": "mxfp4", "modules_to_not_convert": left_alone});
    let scheme = parse(&section).unwrap();
    assert!(matches!(scheme, QuantizationScheme::Mxfp4Experts));
    assert!(scheme.is_quantized("model.layers.3.mlp.experts.gate_up_proj"));
    assert!(!scheme.is_quantized("model.layers.3.mlp.router"));
    section["modules_to_not_convert"] = json!(["model.layers.0.mlp.experts"]);
    assert_mentions(
        &parse(&section).unwrap_err(),
        &["modules_to_not_convert", "layers.0.mlp"],
    );
    let section = json!({"quant_method": "mxfp4", "group_size": 16});
    assert_mentions(&parse(&section).unwrap_err(), &["group_size"]);
}

#[test]
fn modules_are_matched_as_python_matches_them() {
    let scheme = parse(&fp8()).unwrap();
    assert!(scheme.is_quantized("model.layers.1.mlp.experts.3.gate_proj"));
    assert!(scheme.is_quantized("model.layers.1.mlp.up_proj"));
    for ignored in [
        "lm_head",
        "model.layers.7.self_attn.q_proj",
        "model.layers.7.mlp.gate",
        "model.layers.0.mlp.up_proj",
    ] {
        assert!(!scheme.is_quantized(ignored), "{ignored}");
    }
    // From the start of the name, but not to its end.
    let mut section = fp8();
    section["ignore"] = json!(["re:model.norm"]);
    let scheme = parse(&section).unwrap();
    assert!(!scheme.is_quantized("model.norm.weight"));
    assert!(scheme.is_quantized("the.model.norm"));
    section["config_groups"]["group_0"]["targets"] = json!(["re:.*experts.*"]);
    let scheme = parse(&section).unwrap();
    assert!(scheme.is_quantized("a.experts.1"));
    assert!(!scheme.is_quantized("a.mlp"));
}

/// Where the section deviates, the JSON there, and what the message must say.
type Deviation = (&'static str, &'static str, &'static str);

#[track_caller]
fn assert_refused(prefix: &str, deviations: &[Deviation]) {
    for (pointer, value, part) in deviations {
        let mut section = fp8();
        *section.pointer_mut(&format!("{prefix}{pointer}")).unwrap() =
            serde_json::from_str(value).unwrap();
        let message = parse(&section).unwrap_err();
        assert_mentions(&message, &["compressed-tensors", part, "supported are"]);
    }
}

#[test]
fn each_deviation_of_the_section_is_refused_by_name() {
    assert_refused(
        "",
        &[
            (
                "/format",
                r#""nvfp4-pack-quantized""#,
                "format is \"nvfp4-pack-quantized\"",
            ),
            ("/format", "null", "format is missing"),
            (
                "/kv_cache_scheme",
                r#"{"num_bits": 8}"#,
                "quantised KV cache",
            ),
            (
                "/sparsity_config",
                r#"{"format": "sparse"}"#,
                "sparsity_config is",
            ),
            (
                "/transform_config",
                r#"{"config_groups": {}}"#,
                "transform_config is",
            ),
            (
                "/ignore",
                r#"["re:(?!x)"]"#,
                "\"re:(?!x)\" cannot be understood",
            ),
            ("/ignore", r#""lm_head""#, "ignore must be a list of texts"),
            ("/config_groups", "{}", "config_groups is missing"),
            ("/config_groups/group_0", "3", "group_0 is not an object"),
        ],
    );
    let mut section = fp8();
    section["rotation"] = json!("hadamard");
    assert_mentions(
        &parse(&section).unwrap_err(),
        &["rotation = \"hadamard\" is not"],
    );
}

#[test]
fn each_deviation_of_a_group_is_refused_by_name() {
    const GROUP: &str = "/config_groups/group_0";
    assert_refused(
        GROUP,
        &[
            ("/targets", "[]", "targets names no modules"),
            ("/weights", "null", "weights is missing"),
            ("/weights/num_bits", "4", "num_bits is 4"),
            ("/weights/type", r#""int""#, "type is \"int\""),
            ("/weights/strategy", r#""block""#, "strategy is \"block\""),
            ("/weights/strategy", "null", "strategy is missing"),
            ("/weights/symmetric", "false", "symmetric is false"),
            ("/weights/dynamic", "true", "dynamic is true"),
            ("/weights/group_size", "128", "group_size is 128"),
            ("/weights/block_structure", "[128]", "block_structure is"),
            ("/weights/actorder", r#""group""#, "actorder is"),
            ("/output_activations", "{}", "output_activations is"),
            ("/input_activations", "null", "input_activations is missing"),
            ("/input_activations/dynamic", "false", "dynamic is false"),
            ("/input_activations/strategy", r#""tensor""#, "strategy is"),
        ],
    );
}

#[test]
fn other_methods_are_named() {
    for (section, name) in [
        (json!({"quant_method": "gptq", "bits": 4}), "gptq bits 4"),
        (json!({"quant_method": "awq"}), "awq"),
        (
            json!({"quant_method": "fp8", "weight_block_size": [128, 128]}),
            "fp8 block [128,128]",
        ),
        (
            json!({"quant_method": "bitsandbytes", "load_in_4bit": true}),
            "bitsandbytes 4-bit",
        ),
        (
            json!({"quant_method": "modelopt", "quant_algo": "NVFP4"}),
            "modelopt NVFP4",
        ),
        (json!({}), "a format without a name"),
        (json!("fp8"), "a format without a name"),
    ] {
        assert_mentions(
            &parse(&section).unwrap_err(),
            &["quantised as", name, "supported are"],
        );
    }
}

fn check(tensors: &[Tensor], section: Value) -> Result<(), String> {
    let directory = Directory::new();
    directory.write(
        "config.json",
        json!({ "quantization_config": section }).to_string(),
    );
    directory.write_tensors("model.safetensors", tensors);
    let checkpoint = directory.open().unwrap();
    let scheme = checkpoint.quantization().unwrap();
    scheme
        .check_tensors(&checkpoint)
        .map_err(|error| error.to_string())
}

#[test]
fn weights_and_scales_must_pair_up() {
    let weight = || zeros("m.weight", Dtype::F8_E4M3, &[4, 2]);
    for (dtype, shape) in [
        (Dtype::BF16, vec![4, 1]),
        (Dtype::F32, vec![4, 1]),
        (Dtype::F32, vec![4]),
    ] {
        let scale = zeros("m.weight_scale", dtype, &shape);
        check(
            &[weight(), scale, zeros("plain.weight", Dtype::BF16, &[2])],
            fp8(),
        )
        .unwrap();
    }
    let refused = |tensors: &[Tensor], parts: &[&str]| {
        assert_mentions(&check(tensors, fp8()).unwrap_err(), parts);
    };
    refused(
        &[weight()],
        &["m.weight is F8_E4M3 but has no .weight_scale"],
    );
    let scale = zeros("m.weight_scale", Dtype::BF16, &[2, 1]);
    refused(
        &[weight(), scale],
        &["m.weight_scale is BF16 [2, 1]", "[4, 1]"],
    );
    let scale = zeros("m.weight_scale", Dtype::F16, &[4, 1]);
    refused(&[weight(), scale], &["m.weight_scale is F16"]);
    let scale = zeros("m.weight_scale", Dtype::BF16, &[4, 1]);
    refused(&[scale], &["m.weight_scale has no F8_E4M3 weight"]);
    refused(
        &[zeros("lm_head.weight", Dtype::F8_E4M3, &[1, 1])],
        &["does not quantise it"],
    );
    refused(
        &[zeros("m.weight", Dtype::F8_E4M3, &[4])],
        &["not a matrix"],
    );
    refused(
        &[zeros("m.bias", Dtype::F8_E4M3, &[4])],
        &["does not end in .weight"],
    );
    let message = check(&[weight()], Value::Null).unwrap_err();
    assert_mentions(&message, &["does not quantise it"]);
}
