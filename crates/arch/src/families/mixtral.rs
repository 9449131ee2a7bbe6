//! Mixtral (`mixtral`): Mistral with experts.
//!
//! Reference implementation: `models/mixtral` of Hugging Face transformers 5.23. The softmax over
//! all experts is renormalised over the chosen ones. A window of `w` means `w` visible keys.

use backstop_weights::{GgufConventions, GgufExperts, GgufField};

use crate::config::{self, ShapeDefaults, UnreadFields};
use crate::decoder::MlpPlan;
use crate::family::Family;
use crate::mlp::{SparsePlan, softmax_rule};

/// What checkpoints call the experts of a layer, and an expert's gate, up and down.
const EXPERTS: GgufExperts = GgufExperts {
    module: "block_sparse_moe",
    router: "gate",
    projections: ["w1", "w3", "w2"],
    shared: None,
};

pub(crate) const FAMILY: Family = Family {
    // Noise of the training.
    unread: UnreadFields {
        inert: &["router_jitter_noise"],
        // Another name for `num_local_experts`.
        not_computed: &["num_experts"],
    },
    shape: ShapeDefaults {
        kv_heads: Some(8),
        ..ShapeDefaults::new(131_072)
    },
    rms_norm_epsilon: 1e-5,
    rope_theta: 1e6,
    differ: |fields, plan, _| {
        let num_experts = config::num_experts(fields, "num_local_experts", Some(8));
        let width = config::width(fields, "intermediate_size");
        let top_k = config::experts_per_token(fields, Some(2), num_experts);
        let experts = SparsePlan {
            projections: EXPERTS.projections,
            ..SparsePlan::new(num_experts, width, softmax_rule(top_k, true))
        };
        plan.set_mlps(|_| MlpPlan::Sparse(experts));
        plan.sparse_name = EXPERTS.module;
        let visible_keys = config::common_window(fields, None);
        plan.set_windows(|_| visible_keys);
    },
    gguf: Some(GgufConventions {
        pairs_together: true,
        experts: Some(EXPERTS),
        fields: &[
            GgufField::integer("expert_count", "num_local_experts"),
            GgufField::integer("expert_used_count", "num_experts_per_tok"),
        ],
        ..GgufConventions::new("llama", "MixtralForCausalLM")
    }),
    ..Family::new("mixtral")
};
