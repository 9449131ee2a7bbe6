//! The quantisation schemes that are accepted, and those that are refused.

use safetensors::Dtype;
use serde_json::{Value, json};

use crate::test_support::{Directory, Tensor, assert_mentions, zeros};
use crate::{
    Codes, ElementType, ExpectedTensor, QuantizationScheme, Scales, WeightQuantization, census,
};

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

fn is_quantized(scheme: &QuantizationScheme, module: &str) -> bool {
    scheme.of_module(module).is_some()
}

#[test]
fn no_section_means_no_quantisation() {
    for config in [json!({}), json!({"quantization_config": null})] {
        let scheme = QuantizationScheme::parse(config.as_object().unwrap()).unwrap();
        assert_eq!(scheme.of_module("x"), None);
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
    assert!(scheme.has_mxfp4_experts());
    assert!(!is_quantized(&scheme, "model.layers.3.mlp.router"));
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
    assert!(is_quantized(
        &scheme,
        "model.layers.1.mlp.experts.3.gate_proj"
    ));
    assert!(is_quantized(&scheme, "model.layers.1.mlp.up_proj"));
    for ignored in [
        "lm_head",
        "model.layers.7.self_attn.q_proj",
        "model.layers.7.mlp.gate",
        "model.layers.0.mlp.up_proj",
    ] {
        assert!(!is_quantized(&scheme, ignored), "{ignored}");
    }
    // From the start of the name, but not to its end.
    let mut section = fp8();
    section["ignore"] = json!(["re:model.norm"]);
    let scheme = parse(&section).unwrap();
    assert!(!is_quantized(&scheme, "model.norm.weight"));
    assert!(is_quantized(&scheme, "the.model.norm"));
    section["config_groups"]["group_0"]["targets"] = json!(["re:.*experts.*"]);
    let scheme = parse(&section).unwrap();
    assert!(is_quantized(&scheme, "a.experts.1"));
    assert!(!is_quantized(&scheme, "a.mlp"));
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
            (
                "/format",
                r#""marlin-24""#,
                "format is \"marlin-24\", type is \"float\" and num_bits is 8",
            ),
            ("/weights/num_bits", "4", "num_bits is 4"),
            ("/weights/type", r#""int""#, "type is \"int\""),
            ("/weights/strategy", r#""block""#, "strategy is \"block\""),
            ("/weights/strategy", r#""group""#, "strategy is \"group\""),
            ("/weights/strategy", "null", "strategy is missing"),
            ("/weights/symmetric", "false", "symmetric is false"),
            ("/weights/dynamic", "true", "dynamic is true"),
            ("/weights/group_size", "128", "group_size is 128"),
            ("/weights/block_structure", "[128]", "block_structure is"),
            ("/weights/actorder", r#""group""#, "actorder is"),
            ("/output_activations", "{}", "output_activations is"),
            ("/input_activations", "4", "input_activations must be"),
        ],
    );
}

#[test]
fn other_methods_are_named() {
    for (section, name) in [
        (json!({"quant_method": "gptq", "bits": 4}), "gptq bits 4"),
        (json!({"quant_method": "awq"}), "awq"),
        (
            json!({"quant_method": "fp8", "weight_block_size": [128]}),
            "fp8 block [128]",
        ),
        (
            json!({"quant_method": "fp8", "expert_dtype": "fp4"}),
            "expert_dtype is \"fp4\"",
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

/// What a compressed-tensors section of one group says of a module's weights.
fn of_weights(format: &str, changes: &[(&str, Value)]) -> Result<WeightQuantization, String> {
    let mut section = fp8();
    section["format"] = json!(format);
    let group = &mut section["config_groups"]["group_0"];
    group["format"] = Value::Null;
    for (name, value) in changes {
        group["weights"][name] = value.clone();
    }
    parse(&section).map(|scheme| scheme.of_module("m").expect("a linear module"))
}

#[test]
fn formats_and_strategies_say_what_weights_are_stored_as() {
    let integer = |bits: u32, strategy: &str, size: Value| {
        vec![
            ("type", json!("int")),
            ("num_bits", json!(bits)),
            ("strategy", json!(strategy)),
            ("group_size", size),
        ]
    };
    let tiles = [
        ("strategy", json!("block")),
        ("block_structure", json!([128, 64])),
    ];
    let nvfp4 = [
        ("num_bits", json!(4)),
        ("strategy", json!("tensor_group")),
        ("group_size", json!(16)),
    ];
    let tensor = [("strategy", json!("tensor"))];
    for (format, changes, codes, scales) in [
        ("float-quantized", &[][..], Codes::F8E4M3, Scales::Row),
        ("float-quantized", &tensor, Codes::F8E4M3, Scales::Tensor),
        (
            "naive-quantized",
            &tiles,
            Codes::F8E4M3,
            Scales::Block([128, 64]),
        ),
        (
            "int-quantized",
            &integer(8, "channel", json!(-1)),
            Codes::I8,
            Scales::Row,
        ),
        (
            "pack-quantized",
            &integer(8, "group", json!(64)),
            Codes::PackedI8,
            Scales::Group(64),
        ),
        (
            "pack-quantized",
            &integer(4, "group", json!(32)),
            Codes::PackedI4,
            Scales::Group(32),
        ),
        (
            "nvfp4-pack-quantized",
            &nvfp4,
            Codes::PackedE2M1,
            Scales::Group(16),
        ),
    ] {
        let found = of_weights(format, changes).unwrap();
        assert_eq!((found.codes, found.scales), (codes, scales), "{format}");
        assert!(found.quantises_tokens);
    }
    for (format, changes, part) in [
        (
            "pack-quantized",
            integer(3, "channel", Value::Null),
            "num_bits is 3",
        ),
        (
            "pack-quantized",
            integer(4, "group", Value::Null),
            "strategy is \"group\"",
        ),
        (
            "pack-quantized",
            integer(4, "group", json!(0)),
            "strategy is \"group\"",
        ),
        (
            "nvfp4-pack-quantized",
            vec![("num_bits", json!(4))],
            "NVFP4 with such scales",
        ),
    ] {
        assert_mentions(&of_weights(format, &changes).unwrap_err(), &[part]);
    }
}

#[test]
fn the_first_group_that_fits_counts_and_inputs_are_rounded_only_token_by_token() {
    let mut section = fp8();
    section["format"] = json!("mixed-precision");
    let mut second = section["config_groups"]["group_0"].clone();
    second["format"] = json!("int-quantized");
    second["weights"]["type"] = json!("int");
    second["input_activations"]["dynamic"] = json!(false);
    section["config_groups"]["group_0"]["targets"] = json!(["re:.*experts.*"]);
    section["config_groups"]["group_1"] = second;
    let scheme = parse(&section).unwrap();
    let of = |module: &str| scheme.of_module(module).expect("quantised");
    assert_eq!(of("a.experts.0").codes, Codes::F8E4M3);
    assert!(of("a.experts.0").quantises_tokens);
    assert_eq!(of("a.up_proj").codes, Codes::I8);
    assert!(!of("a.up_proj").quantises_tokens);
}

#[test]
fn the_method_fp8_has_scales_for_tiles_or_tensors() {
    let section = |size: Value, activations: &str| {
        json!({
            "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": activations,
            "weight_block_size": size, "modules_to_not_convert": ["lm_head"]
        })
    };
    let of = |section: &Value| parse(section).unwrap().of_module("m").expect("quantised");
    let tiles = of(&section(json!([128, 128]), "dynamic"));
    assert_eq!(
        (tiles.codes, tiles.scales),
        (Codes::F8E4M3, Scales::Block([128, 128]))
    );
    assert!(!tiles.quantises_tokens);
    assert_eq!(of(&section(Value::Null, "static")).scales, Scales::Tensor);
    assert!(!of(&section(Value::Null, "static")).quantises_tokens);
    assert!(of(&section(Value::Null, "dynamic")).quantises_tokens);
    for (pointer, value, part) in [
        ("/weight_block_size", json!([128, 0]), "two numbers above 0"),
        ("/activation_scheme", json!("int"), "dynamic or static"),
        ("/fmt", json!("e5m2"), "fmt is"),
    ] {
        let mut section = section(json!([128, 128]), "dynamic");
        *section.pointer_mut(pointer).unwrap() = value;
        assert_mentions(&parse(&section).unwrap_err(), &[part]);
    }
}

/// Looks at a checkpoint of one matrix `m.weight` `[4, 64]`, and of a plain one.
fn check(tensors: &[Tensor], section: Value) -> Result<(), String> {
    let directory = Directory::new();
    directory.write(
        "config.json",
        json!({ "quantization_config": section }).to_string(),
    );
    directory.write_tensors("model.safetensors", tensors);
    let checkpoint = directory.open().unwrap();
    let scheme = checkpoint
        .quantization()
        .map_err(|error| error.to_string())?;
    let expected = ["m.weight", "lm_head.weight"].map(|name| ExpectedTensor {
        name: name.to_owned(),
        shape: vec![4, 64],
        allowed: &[ElementType::BF16, ElementType::F8E4M3],
        required: name == "m.weight",
    });
    let expected = scheme.expected(&checkpoint, expected.to_vec());
    census(&checkpoint, &expected).map_err(|error| error.to_string())?;
    scheme
        .check_tensors(&checkpoint)
        .map_err(|error| error.to_string())
}

#[test]
fn weights_and_scales_must_pair_up() {
    let weight = || zeros("m.weight", Dtype::F8_E4M3, &[4, 64]);
    for (dtype, shape) in [
        (Dtype::BF16, vec![4, 1]),
        (Dtype::F32, vec![4]),
        (Dtype::F16, vec![4, 1]),
    ] {
        let scale = zeros("m.weight_scale", dtype, &shape);
        let unused = zeros("m.input_scale", Dtype::F32, &[]);
        let plain = zeros("lm_head.weight", Dtype::BF16, &[4, 64]);
        check(&[weight(), scale, unused, plain], fp8()).unwrap();
    }
    let refused = |tensors: &[Tensor], parts: &[&str]| {
        assert_mentions(&check(tensors, fp8()).unwrap_err(), parts);
    };
    refused(&[weight()], &["missing: m.weight_scale"]);
    let scale = zeros("m.weight_scale", Dtype::BF16, &[2, 1]);
    refused(&[weight(), scale], &["m.weight_scale is [2, 1]", "[4, 1]"]);
    let scale = zeros("m.weight_scale", Dtype::F64, &[4, 1]);
    refused(&[weight(), scale], &["m.weight_scale is F64"]);
    let scale = || zeros("m.weight_scale", Dtype::BF16, &[4, 1]);
    let plain = zeros("m.weight", Dtype::BF16, &[4, 64]);
    refused(&[plain, scale()], &["not expected: m.weight_scale"]);
    let ignored = zeros("lm_head.weight", Dtype::F8_E4M3, &[4, 64]);
    refused(
        &[weight(), scale(), ignored],
        &["lm_head.weight is F8_E4M3 but the configuration does not quantise it"],
    );
    let message = check(&[weight()], Value::Null).unwrap_err();
    assert_mentions(&message, &["does not quantise it"]);
}

#[test]
fn packed_weights_have_the_shape_of_what_they_pack() {
    let section = |size: u32| {
        let mut section = fp8();
        section["format"] = json!("pack-quantized");
        let group = &mut section["config_groups"]["group_0"];
        group["format"] = Value::Null;
        for (name, value) in [
            ("type", json!("int")),
            ("num_bits", json!(4)),
            ("strategy", json!("group")),
            ("group_size", json!(size)),
        ] {
            group["weights"][name] = value;
        }
        section
    };
    let packed = |columns: usize| zeros("m.weight_packed", Dtype::I32, &[4, columns]);
    let scale = |columns: usize| zeros("m.weight_scale", Dtype::BF16, &[4, columns]);
    let shape = || zeros("m.weight_shape", Dtype::I64, &[2]);
    check(&[packed(8), scale(2), shape()], section(32)).unwrap();
    check(&[packed(8), scale(1)], section(128)).unwrap();
    for (tensors, part) in [
        (vec![packed(9), scale(2)], "m.weight_packed is [4, 9]"),
        (vec![packed(8), scale(1)], "m.weight_scale is [4, 1]"),
        (vec![packed(8)], "missing: m.weight_scale"),
        (
            vec![
                packed(8),
                scale(2),
                zeros("m.weight_g_idx", Dtype::I32, &[64]),
            ],
            "not expected: m.weight_g_idx",
        ),
        (
            vec![
                packed(8),
                scale(2),
                zeros("m.weight_zero_point", Dtype::I32, &[1, 2]),
            ],
            "not expected: m.weight_zero_point",
        ),
    ] {
        assert_mentions(&check(&tensors, section(32)).unwrap_err(), &[part]);
    }
}

#[test]
fn the_text_model_within_another_may_say_how_it_is_quantised() {
    let config = json!({ "text_config": { "quantization_config": fp8() } });
    let scheme = QuantizationScheme::parse(config.as_object().unwrap()).unwrap();
    assert!(
        scheme
            .of_module("language_model.model.layers.0.m")
            .is_some()
    );
}
