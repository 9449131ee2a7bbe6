//! Qwen3-MoE (`qwen3_moe`), such as Qwen3-Coder-30B-A3B: Qwen3 with experts.
//!
//! Reference implementation: `models/qwen3_moe` of Hugging Face transformers 5.23. All layers
//! slide if `use_sliding_window` is set; a window of `w` means `w` visible keys.

use backstop_weights::{GgufConventions, GgufExperts, GgufField, StrictFields};
use serde_json::Value;

use crate::config::{self, ShapeDefaults, UnreadFields};
use crate::decoder::MlpPlan;
use crate::family::Family;
use crate::mlp::{SparsePlan, softmax_rule};

pub(crate) const FAMILY: Family = Family {
    // The reference implementation does not read them.
    unread: UnreadFields {
        inert: &["max_window_layers", "rope_interleaved"],
        ..UnreadFields::NONE
    },
    shape: ShapeDefaults {
        kv_heads: Some(4),
        ..ShapeDefaults::new(32_768)
    },
    differ: |fields, plan, heads| {
        // The reference implementation does not read these; they say what it does.
        fields.only("qkv_bias", &Value::from(false));
        fields.only("use_qk_norm", &Value::from(true));
        fields.only("shared_expert_intermediate_size", &Value::from(0));
        heads.norm_epsilon = Some(plan.norm.epsilon());
        heads.set_biases(config::flag(fields, "attention_bias"));
        let window = config::common_window(fields, Some(4096));
        let slides = config::flag(fields, "use_sliding_window");
        let visible_keys = window.filter(|_| slides);
        plan.set_windows(|_| visible_keys);
        let dense = plan.layers.first().map(|layer| layer.mlp);
        let is_sparse = read_sparse_layers(fields);
        let experts = MlpPlan::Sparse(read_experts(fields));
        plan.set_mlps(|layer| dense.filter(|_| !is_sparse(layer)).unwrap_or(experts));
    },
    gguf: Some(GgufConventions {
        experts: Some(GgufExperts::USUAL),
        fields: &[
            GgufField::integer("expert_count", "num_experts"),
            GgufField::integer("expert_used_count", "num_experts_per_tok"),
            GgufField::integer("expert_feed_forward_length", "moe_intermediate_size"),
            // As llama.cpp computes all of them.
            GgufField::True("norm_topk_prob"),
        ],
        ..GgufConventions::new("qwen3moe", "Qwen3MoeForCausalLM")
    }),
    ..Family::new("qwen3_moe")
};

/// Layers are sparse but for those that are named and those that the step leaves out.
fn read_sparse_layers(fields: &mut StrictFields<'_>) -> impl Fn(usize) -> bool + use<> {
    let dense_only = fields.optional_u32_list("mlp_only_layers");
    let dense_only = dense_only.unwrap_or_default();
    let step = fields.optional_u32("decoder_sparse_step").unwrap_or(1) as usize;
    if step == 0 {
        fields.problem("decoder_sparse_step must be positive");
    }
    move |layer| {
        let named = dense_only.iter().any(|&named| named as usize == layer);
        !named && (layer + 1).checked_rem(step) == Some(0)
    }
}

fn read_experts(fields: &mut StrictFields<'_>) -> SparsePlan {
    // transformers 5 writes the second name.
    let newer = fields.optional_u32("num_local_experts");
    let num_experts = config::num_experts(fields, "num_experts", newer.or(Some(128)));
    let width = config::width(fields, "moe_intermediate_size");
    let top_k = config::experts_per_token(fields, Some(8), num_experts);
    let rule = softmax_rule(top_k, config::flag(fields, "norm_topk_prob"));
    SparsePlan::new(num_experts, width, rule)
}
