//! Granite (`granite`): Llama with four factors, on embeddings, scores, branches and logits.
//!
//! Reference implementation: `models/granite` of Hugging Face transformers 5.23.

use backstop_weights::{GgufConventions, GgufField, StrictFields};
use serde_json::Value;

use crate::config;
use crate::decoder::Multipliers;
use crate::family::Family;

pub(crate) const FAMILY: Family = Family {
    differ: |fields, plan, heads| {
        fields.only("mlp_bias", &Value::from(false));
        heads.set_biases(config::flag(fields, "attention_bias"));
        heads.shape.scale = read_factor(fields, "attention_multiplier");
        plan.multipliers = Multipliers {
            embedding: read_factor(fields, "embedding_multiplier"),
            residual: read_factor(fields, "residual_multiplier"),
            logits: read_factor(fields, "logits_scaling").recip(),
        };
    },
    gguf: Some(GgufConventions {
        pairs_together: true,
        fields: &[
            GgufField::number("attention.scale", "attention_multiplier"),
            GgufField::number("embedding_scale", "embedding_multiplier"),
            GgufField::number("residual_scale", "residual_multiplier"),
            GgufField::number("logit_scale", "logits_scaling"),
        ],
        ..GgufConventions::new("granite", "GraniteForCausalLM")
    }),
    ..Family::new("granite")
};

fn read_factor(fields: &mut StrictFields<'_>, name: &str) -> f32 {
    let factor = fields.optional_f64(name).unwrap_or(1.0);
    if !(1e-6..=1e6).contains(&factor) {
        fields.problem(format!("{name} must lie between 0.000001 and 1000000"));
    }
    factor as f32
}
