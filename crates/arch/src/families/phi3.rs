//! Phi-3 (`phi3`), which is also Phi-4's: Llama with fused projections.
//!
//! Reference implementation: `models/phi3` of Hugging Face transformers 5.23. Rotary embeddings of a part of each head and
//! LongRoPE, which Phi-4-mini and the long variants of Phi-3 have, are refused. A window of `w` means `w` visible keys.

use backstop_weights::{GgufConventions, GgufField};

use crate::config::{self, ShapeDefaults, UnreadFields};
use crate::decoder::MlpPlan;
use crate::family::Family;

pub(crate) const FAMILY: Family = Family {
    // Noise of the training, a promise about attention, and what only LongRoPE looks at.
    unread: UnreadFields {
        inert: &[
            "embd_pdrop",
            "interpolate_factor",
            "original_max_position_embeddings",
            "resid_pdrop",
        ],
        ..UnreadFields::NONE
    },
    shape: ShapeDefaults::new(4096),
    rms_norm_epsilon: 1e-5,
    differ: |fields, plan, heads| {
        heads.is_fused = true;
        let width = config::width(fields, "intermediate_size");
        plan.set_mlps(|_| MlpPlan::DenseFused(width));
        let window = config::common_window(fields, None);
        plan.set_windows(|_| window);
    },
    gguf: Some(GgufConventions {
        names: &[("ffn_up", "mlp.gate_up_proj")],
        fields: &[GgufField::IntegerUnlessZero {
            key: "attention.sliding_window",
            field: "sliding_window",
        }],
        ..GgufConventions::new("phi3", "Phi3ForCausalLM")
    }),
    ..Family::new("phi3")
};
