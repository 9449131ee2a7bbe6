//! Which tensors are passed over, and which are not.

use safetensors::Dtype;

use super::*;
use crate::census;
use crate::test_support::{Directory, assert_mentions, floats, zeros};

const PLAIN: &[ElementType] = &[ElementType::F32];

/// What a model of two layers reads.
fn expected() -> Vec<ExpectedTensor> {
    let names = [
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.1.self_attn.q_proj.weight",
    ];
    let tensor = |name: &str| ExpectedTensor {
        name: name.to_owned(),
        shape: vec![1],
        allowed: PLAIN,
        required: true,
    };
    names.map(tensor).to_vec()
}

/// A checkpoint of that model and one tensor more, and what was passed over of it.
fn with(name: &str, dtype: Dtype, shape: &[usize]) -> (Checkpoint, Surplus) {
    let directory = Directory::with_config();
    let expected = expected();
    let mut tensors: Vec<_> = expected
        .iter()
        .map(|tensor| floats(&tensor.name, &[1.0]))
        .collect();
    tensors.push(zeros(name, dtype, shape));
    directory.write_tensors("model.safetensors", &tensors);
    let mut checkpoint = directory.open().unwrap();
    let mut surplus = Surplus::default();
    checkpoint.pass_over(&expected, &mut surplus);
    (checkpoint, surplus)
}

/// Kind, type and shape of tensors, and their names.
type Unread = (
    SurplusKind,
    Dtype,
    &'static [usize],
    &'static [&'static str],
);

const UNREAD: &[Unread] = &[
    (
        SurplusKind::RotaryTables,
        Dtype::F32,
        &[4],
        &[
            "model.layers.0.self_attn.rotary_emb.inv_freq",
            "model.rotary_emb.inv_freq",
            "blk.0.attn_rot_embd.weight",
        ],
    ),
    (
        SurplusKind::RotaryTables,
        Dtype::F32,
        &[1, 1, 8, 4],
        &["model.layers.1.self_attn.rotary_emb.cos_cached"],
    ),
    (
        SurplusKind::CausalMasks,
        Dtype::U8,
        &[1, 1, 8, 8],
        &["transformer.h.0.attn.bias"],
    ),
    (
        SurplusKind::CausalMasks,
        Dtype::F32,
        &[],
        &["transformer.h.0.attn.masked_bias"],
    ),
    (
        SurplusKind::CausalMasks,
        Dtype::BOOL,
        &[1, 1, 8, 8],
        &["gpt_neox.layers.0.attention.bias"],
    ),
    (
        SurplusKind::Positions,
        Dtype::I64,
        &[1, 8],
        &["model.embeddings.position_ids"],
    ),
    (
        SurplusKind::LayersBeyond,
        Dtype::F32,
        &[1],
        &[
            "model.layers.2.self_attn.q_proj.weight",
            "model.layers.61.eh_proj.weight",
            "blk.2.nextn.eh_proj.weight",
            "mtp.layers.0.mlp.experts.3.up_proj.weight",
            "model.mtp_layers.0.input_layernorm.weight",
        ],
    ),
    (
        SurplusKind::LayersBeyond,
        Dtype::I32,
        &[1],
        &["model.layers.61.shared_head.head.weight_packed"],
    ),
    (
        SurplusKind::OtherModalities,
        Dtype::F32,
        &[1],
        &[
            "vision_tower.encoder.layers.0.self_attn.q_proj.bias",
            "model.vision_model.encoder.layers.0.norm.weight",
            "multi_modal_projector.linear_1.weight",
            "mm_projector.proj.0.weight",
            "audio_tower.conv1.weight",
            "v.blk.0.attn_q.weight",
            "mm.input_projection.weight",
        ],
    ),
    (
        SurplusKind::OtherModalities,
        Dtype::F8_E4M3,
        &[1],
        &["visual.blocks.0.attn.qkv.weight"],
    ),
    (
        SurplusKind::ActivationScales,
        Dtype::F32,
        &[],
        &[
            "model.layers.0.self_attn.k_scale",
            "model.layers.0.self_attn.attn.v_scale",
            "model.layers.0.self_attn.k_proj.output_scale",
            "model.layers.0.self_attn.q_proj.input_scale",
        ],
    ),
    (
        SurplusKind::Counters,
        Dtype::I64,
        &[],
        &["model.norm.num_batches_tracked"],
    ),
];

#[test]
fn what_no_forward_pass_reads_is_passed_over_by_kind() {
    for &(kind, dtype, shape, names) in UNREAD {
        for name in names {
            let (checkpoint, surplus) = with(name, dtype, shape);
            assert_eq!(surplus.count(kind), 1, "{name}: {surplus}");
            assert!(checkpoint.tensor(name).is_none(), "{name}");
            census(&checkpoint, &expected()).unwrap();
        }
    }
}

#[test]
fn what_a_forward_pass_might_read_is_an_error_that_names_it() {
    for (name, dtype, shape) in [
        ("model.layers.0.self_attn.q_proj.bias", Dtype::F32, vec![8]),
        ("model.layers.1.extra_norm.weight", Dtype::F32, vec![8]),
        (
            "model.layers.0.self_attn.q_norm.weight",
            Dtype::F32,
            vec![8],
        ),
        ("model.layers.0.attn.bias", Dtype::F32, vec![8]),
        ("model.layers.0.attn.bias", Dtype::F32, vec![1, 1, 8, 4]),
        ("model.layers.0.self_attn.masked_bias", Dtype::F32, vec![8]),
        (
            "model.layers.0.mlp.up_proj.weight_scale",
            Dtype::F32,
            vec![8],
        ),
        ("model.layers.0.mlp.k_scale", Dtype::F32, vec![]),
        (
            "model.layers.0.mlp.up_proj.weight_g_idx",
            Dtype::I32,
            vec![8],
        ),
        ("model.position_ids", Dtype::F32, vec![8]),
        ("model.embed_positions.weight", Dtype::F32, vec![8]),
        ("lm_head.bias", Dtype::F32, vec![8]),
        ("score.weight", Dtype::F32, vec![8]),
        ("blk.1.attn_q.bias", Dtype::F32, vec![8]),
        ("model.vision_like", Dtype::F32, vec![8]),
        ("encoder.layers.7.up_proj.weight", Dtype::F32, vec![8]),
    ] {
        let (checkpoint, surplus) = with(name, dtype, &shape);
        assert!(surplus.is_empty(), "{name}: {surplus}");
        let error = census(&checkpoint, &expected()).unwrap_err().to_string();
        assert_mentions(&error, &[&format!("1 not expected: {name}")]);
    }
}

#[test]
fn what_was_passed_over_is_told_in_one_line() {
    let (_, mut surplus) = with("model.layers.2.enorm.weight", Dtype::F32, &[4]);
    surplus.add(SurplusKind::RotaryTables, 8);
    surplus.add(SurplusKind::RotaryTables, 8);
    assert_eq!(
        surplus.to_string(),
        "3 tensors of 32 bytes are passed over, for nothing here reads them (tables of rotary embeddings: 2; layers beyond \
         num_hidden_layers: 1)"
    );
}
