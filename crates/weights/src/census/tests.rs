//! The comparison of expected tensors with those there are.

use safetensors::Dtype;

use crate::test_support::{Directory, assert_mentions, zeros};
use crate::{CheckpointSummary, ElementType, ExpectedTensor, census};

const PLAIN: &[ElementType] = &[ElementType::BF16, ElementType::F32];

fn expected(name: &str, shape: &[usize]) -> ExpectedTensor {
    ExpectedTensor {
        name: name.to_owned(),
        shape: shape.to_vec(),
        allowed: PLAIN,
        required: true,
    }
}

#[test]
fn a_fitting_checkpoint_passes() {
    let directory = Directory::with_config();
    let tensors = [
        zeros("a", Dtype::BF16, &[2, 3]),
        zeros("s", Dtype::F32, &[2]),
        zeros("n", Dtype::F32, &[]),
    ];
    directory.write_tensors("model.safetensors", &tensors);
    let checkpoint = directory.open().unwrap();
    let optional = ExpectedTensor {
        required: false,
        ..expected("absent", &[1])
    };
    let all = [
        expected("a", &[2, 3]),
        expected("s", &[2, 1]),
        expected("n", &[]),
        optional,
    ];
    census(&checkpoint, &all).unwrap();
    assert!(census(&checkpoint, &all[..2]).is_err());
}

#[test]
fn every_difference_is_listed() {
    let directory = Directory::new();
    directory.write(
        "config.json",
        r#"{"architectures": ["Odd"],
            "quantization_config": {"quant_method": "gptq", "bits": 4}}"#,
    );
    let mut tensors = vec![
        zeros("bent", Dtype::BF16, &[3, 2]),
        zeros("typed", Dtype::I32, &[2]),
        zeros(
            "model.layers.0.mlp.experts.0.up_proj.weight",
            Dtype::BF16,
            &[2],
        ),
    ];
    tensors.extend((0..30).map(|index| zeros(&format!("extra.{index:02}"), Dtype::U8, &[1])));
    directory.write_tensors("model.safetensors", &tensors);
    let checkpoint = directory.open().unwrap();

    let mut all = vec![expected("bent", &[2, 3]), expected("typed", &[2])];
    all.extend((0..25).map(|index| expected(&format!("gone.{index:02}"), &[1])));
    let error = census(&checkpoint, &all).unwrap_err();
    assert_eq!((error.missing.len(), error.surplus.len()), (25, 31));
    let message = error.to_string();
    assert_mentions(
        &message,
        &[
            "25 missing: gone.00; gone.01",
            "gone.19; and 5 more",
            "31 not expected: extra.00",
            "and 11 more",
            "1 of another shape: bent is [3, 2], expected [2, 3]",
            "1 of another element type: typed is I32, expected BF16 or F32",
            "33 tensors (2 BF16, 1 I32, 30 U8)",
            "architecture: Odd",
            "quantisation: gptq bits 4",
            "one tensor per expert",
        ],
    );
    assert!(!message.contains("gone.20"));
}

#[test]
fn the_summary_tells_packed_experts_from_unfused_ones() {
    for (name, experts) in [
        (
            "model.layers.0.mlp.experts.gate_up_proj",
            Some("all experts of a layer packed in one tensor"),
        ),
        (
            "model.layers.0.mlp.experts.17.w1.weight",
            Some("one tensor per expert"),
        ),
        ("model.layers.0.mlp.shared_experts.up_proj.weight", None),
        ("model.norm.weight", None),
    ] {
        let directory = Directory::with_config();
        directory.write_tensors("model.safetensors", &[zeros(name, Dtype::BF16, &[1])]);
        let summary = CheckpointSummary::of(&directory.open().unwrap());
        assert_eq!(summary.experts, experts, "{name}");
        assert_mentions(
            &summary.to_string(),
            &["architecture: not stated", "quantisation: none"],
        );
    }
}
