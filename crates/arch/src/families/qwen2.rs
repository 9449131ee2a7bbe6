//! Qwen2 (`qwen2`): Qwen2, Qwen2.5 and Qwen2.5-Coder. Llama with biases on queries, keys and values.
//!
//! Reference implementation: `models/qwen2` of Hugging Face transformers 5.23. Later layers may
//! slide; a window of `w` means `w` visible keys, the query's own among them.

use backstop_weights::GgufConventions;
use serde_json::Value;

use crate::config::{self, ShapeDefaults};
use crate::family::Family;

pub(crate) const FAMILY: Family = Family {
    shape: ShapeDefaults {
        kv_heads: Some(32),
        ..ShapeDefaults::new(32_768)
    },
    differ: |fields, plan, heads| {
        fields.only("use_mrope", &Value::from(false));
        heads.qkv_bias = true;
        let windows = config::later_windows(fields, &plan.shape);
        plan.set_windows(|layer| windows[layer]);
    },
    gguf: Some(GgufConventions {
        states_biases: false,
        ..GgufConventions::new("qwen2", "Qwen2ForCausalLM")
    }),
    ..Family::new("qwen2")
};
