//! Mixtral (`mixtral`): Mistral with experts.
//!
//! Reference implementation: `models/mixtral` of Hugging Face transformers 5.23. The softmax over
//! all experts is renormalised over the chosen ones. A window of `w` means `w` visible keys.

use serde_json::{Map, Value};

use crate::config::{self, ShapeDefaults};
use crate::decoder::{Decoder, MlpPlan};
use crate::family::Family;
use crate::mlp::{SparsePlan, softmax_rule};
use crate::registry::ArchError;

const FAMILY: Family = Family {
    // Noise of the training.
    inert: &["router_jitter_noise"],
    shape: ShapeDefaults {
        head_dim: None,
        kv_heads: Some(8),
        max_position_embeddings: 131_072,
        tied: false,
    },
    rms_norm_epsilon: 1e-5,
    rope_theta: 1e6,
    ..Family::new("mixtral")
};

/// Reads the configuration and lays out the weights.
pub(crate) fn from_config(config: &Map<String, Value>) -> Result<Decoder, ArchError> {
    FAMILY.read(config, |fields, plan, _| {
        let num_experts = config::num_experts(fields, "num_local_experts", Some(8));
        let width = config::width(fields, "intermediate_size");
        let top_k = config::experts_per_token(fields, Some(2), num_experts);
        let experts = SparsePlan {
            projections: ["w1", "w3", "w2"],
            ..SparsePlan::new(num_experts, width, softmax_rule(top_k, true))
        };
        plan.set_mlps(|_| MlpPlan::Sparse(experts));
        plan.sparse_name = "block_sparse_moe";
        let visible_keys = config::common_window(fields, config, None);
        plan.set_windows(|_| visible_keys);
    })
}
