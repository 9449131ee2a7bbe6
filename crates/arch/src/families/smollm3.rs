//! SmolLM3 (`smollm3`): Llama, of which every fourth layer has no rotary embedding (Yang et al. 2025).
//!
//! Reference implementation: `models/smollm3` of Hugging Face transformers 5.23. Layers without
//! rotary embedding may slide; a window of `w` means `w` visible keys, the query's own among them.

use backstop_weights::{GgufConventions, StrictFields};
use serde_json::Value;

use crate::config::{self, DecoderShape, ShapeDefaults, UnreadFields};
use crate::family::Family;

pub(crate) const FAMILY: Family = Family {
    // The reference implementation does not read them.
    unread: UnreadFields {
        inert: &["max_window_layers", "pretraining_tp"],
        ..UnreadFields::NONE
    },
    shape: ShapeDefaults {
        kv_heads: Some(4),
        tied: true,
        ..ShapeDefaults::new(32_768)
    },
    rope_theta: 2e6,
    differ: |fields, plan, heads| {
        fields.only("mlp_bias", &Value::from(false));
        heads.set_biases(config::flag(fields, "attention_bias"));
        let without_rope = read_without_rope(fields, &plan.shape);
        plan.set_without_rope(|layer| without_rope[layer]);
        let windows =
            config::optional_windows(fields, &plan.shape, None, |layer| without_rope[layer]);
        plan.set_windows(|layer| windows[layer]);
    },
    // Its files state no interval: of all published models it is the usual one.
    gguf: Some(GgufConventions {
        pairs_together: true,
        ..GgufConventions::new("smollm3", "SmolLM3ForCausalLM")
    }),
    ..Family::new("smollm3")
};

/// Which layers have none: those that a list gives a zero, or every so manieth.
fn read_without_rope(fields: &mut StrictFields<'_>, shape: &DecoderShape) -> Vec<bool> {
    let listed = fields.optional_u32_list("no_rope_layers");
    let interval = fields.optional_u32("no_rope_layer_interval").unwrap_or(4);
    if interval == 0 {
        fields.problem("no_rope_layer_interval must be positive");
    }
    let periodic = shape.layers(|layer| (layer + 1).checked_rem(interval as usize) == Some(0));
    let Some(listed) = listed else {
        return periodic;
    };
    if listed.len() < periodic.len() {
        fields.problem("no_rope_layers has fewer than num_hidden_layers entries");
        return periodic;
    }
    shape.layers(|layer| listed[layer] == 0)
}
