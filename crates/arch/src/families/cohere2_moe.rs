//! Cohere2-MoE (`cohere2_moe`), the architecture of Cohere North Mini Code.
//!
//! Reference implementation: `models/cohere2_moe` of Hugging Face transformers 5.23. A layer is a
//! parallel block with one norm: `h = h + attention(norm(h)) + mlp(norm(h))`. Sliding-window layers
//! rotate queries and keys; full-attention layers use no position embedding, except in the dense
//! prefix when `prefix_dense_sliding_window_pattern` is 1.
//!
//! One deliberate difference: a layer with `sliding_window` w sees w + 1 keys, positions
//! `p - w ..= p`. That is how the model was trained (and what vLLM and SGLang compute);
//! transformers attends to w keys.

use backstop_kernels::backend::{Norm, RouterRule, RouterScoring};
use backstop_weights::{GgufConventions, GgufExperts, GgufField, GgufNorm, StrictFields};
use serde_json::{Map, Value};

use super::cohere::{read_logit_scale, read_rope};
use crate::AnyModel;
use crate::config::{self, DecoderShape, ShapeDefaults, UnreadFields, WithUnread};
use crate::decoder::MlpPlan;
use crate::mlp::{SparsePlan, softmax_rule};
use crate::parallel_decoder::{ParallelDecoder, ParallelLayer, ParallelPlan};
use crate::registry::{ArchError, Architecture};

pub(crate) const FAMILY: Family = Family;

const NAME: &str = "cohere2_moe";
const GGUF_NAME: &str = "cohere2moe";

pub(crate) const UNREAD: UnreadFields = UnreadFields {
    inert: &[
        "order_of_interleaved_layers",
        "position_embedding_type",
        "rotary_pct",
        "use_gated_activation",
        "use_embedding_sharing",
        "use_parallel_embedding",
    ],
    ..UnreadFields::NONE
};

const DEFAULTS: ShapeDefaults = ShapeDefaults {
    head_dim: Some(128),
    tied: true,
    ..ShapeDefaults::new(8192)
};

/// The family, of one model type.
pub(crate) struct Family;

impl Architecture for Family {
    fn name(&self) -> &'static str {
        NAME
    }

    fn read(&self, config: &Map<String, Value>) -> Result<WithUnread<AnyModel>, ArchError> {
        let read = config::read(NAME, config, UNREAD, plan);
        read.map(|(plan, unread)| (ParallelDecoder::new(&plan).into(), unread))
    }

    fn gguf(&self) -> Option<GgufConventions> {
        Some(GGUF)
    }
}

/// As llama.cpp's converter writes it (`conversion/command_r.py`).
const GGUF: GgufConventions = GgufConventions {
    norm: GgufNorm::RmsOrLayer,
    feed_forward: "prefix_dense_intermediate_size",
    experts: Some(GgufExperts {
        shared: Some("shared_experts"),
        ..GgufExperts::USUAL
    }),
    fields: &[
        GgufField::integer("expert_count", "num_experts"),
        GgufField::integer("expert_used_count", "num_experts_per_tok"),
        GgufField::integer("expert_feed_forward_length", "intermediate_size"),
        GgufField::integer("leading_dense_block_count", "first_k_dense_replace"),
        GgufField::IntegerUnlessZero {
            key: "expert_shared_count",
            field: "num_shared_experts",
        },
        GgufField::Inert("expert_shared_feed_forward_length"),
        GgufField::RouterScores {
            field: "expert_selection_fn",
            default: "sigmoid",
        },
        GgufField::Flag {
            key: "expert_weights_norm",
            field: "norm_topk_prob",
        },
        GgufField::Only {
            key: "expert_weights_scale",
            number: 1.0,
        },
        GgufField::SlidingLayers {
            period: 4,
            full_first: true,
        },
        GgufField::number("logit_scale", "logit_scale"),
    ],
    ..GgufConventions::new(GGUF_NAME, "Cohere2MoeForCausalLM")
};

/// What differs between layers.
#[derive(Clone, Copy, Debug, PartialEq)]
struct LayerKind {
    sliding: bool,
    dense: bool,
    rope: bool,
}

/// Defaults are those of the reference implementation's configuration class.
fn plan(fields: &mut StrictFields<'_>) -> ParallelPlan {
    let shape = DecoderShape::read(fields, DEFAULTS);
    let kinds = read_layers(fields, &shape);
    let width = config::width(fields, "intermediate_size");
    let num_experts = config::num_experts(fields, "num_experts", Some(8));
    let rule = read_router(fields);
    let chosen = rule.top_k as usize;
    if kinds.iter().any(|layer| !layer.dense) && !(1..=num_experts).contains(&chosen) {
        fields.problem("num_experts_per_tok must lie between 1 and num_experts");
    }
    let num_shared = fields.optional_u32("num_shared_experts").unwrap_or(0) as usize;
    let shared_scale = read_shared_scale(fields);
    refuse_unimplemented(fields);
    let dense = fields.optional_u32("prefix_dense_intermediate_size");
    let dense = MlpPlan::Dense(dense.map_or(width, |width| width as usize));
    let sparse = MlpPlan::Sparse(SparsePlan {
        shared: (num_shared > 0).then_some((width * num_shared, shared_scale)),
        ..SparsePlan::new(num_experts, width, rule)
    });
    let window = fields.optional_u32("sliding_window").unwrap_or(4096);
    let visible_keys = window.saturating_add(1);
    let layer = |kind: &LayerKind| ParallelLayer {
        rope: kind.rope,
        visible_keys: kind.sliding.then_some(visible_keys),
        mlp: if kind.dense { dense } else { sparse },
    };
    ParallelPlan {
        name: NAME,
        chat_format: "cohere_cmd4",
        norm: read_norm(fields),
        rope: read_rope(fields, &shape),
        layers: kinds.iter().map(layer).collect(),
        logit_scale: read_logit_scale(fields),
        shape,
    }
}

/// RMSNorm if `rms_norm_eps` is set, else LayerNorm. Both have the same parameters, so that the
/// wrong one would load silently.
pub(crate) fn read_norm(fields: &mut StrictFields<'_>) -> Norm {
    let layer_norm_eps = fields.optional_f64("layer_norm_eps").unwrap_or(1e-5) as f32;
    match fields.optional_f64("rms_norm_eps") {
        Some(epsilon) => Norm::Rms {
            epsilon: epsilon as f32,
        },
        None => Norm::LayerWithoutBias {
            epsilon: layer_norm_eps,
        },
    }
}

fn read_router(fields: &mut StrictFields<'_>) -> RouterRule {
    let top_k = fields.optional_u32("num_experts_per_tok").unwrap_or(2);
    let norm_topk_prob = fields.optional_bool("norm_topk_prob").unwrap_or(true);
    let selection = fields.optional_string("expert_selection_fn");
    match selection.as_deref().unwrap_or("softmax") {
        "sigmoid" => RouterRule {
            top_k,
            scoring: RouterScoring::Sigmoid,
            renormalise: norm_topk_prob,
            factor: 1.0,
            groups: None,
        },
        other => {
            if other != "softmax" {
                fields.problem("expert_selection_fn must be \"softmax\" or \"sigmoid\"");
            }
            // The reference takes the softmax over the chosen logits alone and reads
            // `norm_topk_prob` for sigmoid only. That softmax is the one over all experts,
            // renormalised.
            softmax_rule(top_k, true)
        }
    }
}

fn read_shared_scale(fields: &mut StrictFields<'_>) -> f32 {
    match fields
        .optional_string("shared_expert_combination_strategy")
        .as_deref()
    {
        None | Some("average") => 0.5,
        Some("sum") => 1.0,
        Some(_) => {
            fields.problem("shared_expert_combination_strategy must be \"average\" or \"sum\"");
            0.0
        }
    }
}

pub(crate) fn refuse_unimplemented(fields: &mut StrictFields<'_>) {
    fields.only("attention_bias", &Value::from(false));
    fields.only("use_qk_norm", &Value::from(false));
    fields.only("use_parallel_block", &Value::from(true));
    fields.only("hidden_act", &Value::from("silu"));
}

/// Attention and MLP kind of each layer, from explicit lists or from the patterns that the
/// reference implementation derives them from.
fn read_layers(fields: &mut StrictFields<'_>, shape: &DecoderShape) -> Vec<LayerKind> {
    let prefix = fields.optional_u32("first_k_dense_replace").unwrap_or(0) as usize;
    let prefix_pattern = fields
        .optional_u32("prefix_dense_sliding_window_pattern")
        .unwrap_or(1);
    let pattern = fields.optional_u32("sliding_window_pattern").unwrap_or(4);
    if pattern == 0 || prefix_pattern == 0 {
        fields.problem("sliding-window patterns must be positive");
        return Vec::new();
    }
    let sliding = config::sliding_layers(fields, shape.num_layers);
    let kinds = ["sparse", "dense"];
    let dense = config::kinds(fields, "mlp_layer_types", kinds, shape.num_layers);
    let layer = |index: usize| {
        let dense = dense.as_ref().map_or(index < prefix, |kinds| kinds[index]);
        let derived = match index.checked_sub(prefix) {
            None => !(index + 1).is_multiple_of(prefix_pattern as usize),
            Some(rest) => !(rest + 1).is_multiple_of(pattern as usize),
        };
        let sliding = sliding.as_ref().map_or(derived, |kinds| kinds[index]);
        LayerKind {
            sliding,
            dense,
            rope: sliding || (dense && prefix_pattern == 1),
        }
    };
    shape.layers(layer)
}
