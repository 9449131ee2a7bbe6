//! Qwen3 (`qwen3`), dense: Llama with a norm of each head of queries and keys.
//!
//! Reference implementation: `models/qwen3` of Hugging Face transformers 5.23. Later layers may
//! slide; a window of `w` means `w` visible keys, the query's own among them.

use backstop_weights::GgufConventions;

use crate::config::{self, ShapeDefaults};
use crate::family::Family;

pub(crate) const FAMILY: Family = Family {
    shape: ShapeDefaults {
        head_dim: Some(128),
        kv_heads: Some(32),
        ..ShapeDefaults::new(32_768)
    },
    differ: |fields, plan, heads| {
        heads.norm_epsilon = Some(plan.norm.epsilon());
        heads.set_biases(config::flag(fields, "attention_bias"));
        let windows = config::later_windows(fields, &plan.shape);
        plan.set_windows(|layer| windows[layer]);
    },
    gguf: Some(GgufConventions::new("qwen3", "Qwen3ForCausalLM")),
    ..Family::new("qwen3")
};
