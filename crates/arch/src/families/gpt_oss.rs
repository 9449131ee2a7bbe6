//! gpt-oss (`gpt_oss`): attention with sinks, of which every other layer sees a window, and experts
//! with biases between which activations are cut.
//!
//! Reference implementation: `models/gpt_oss` of Hugging Face transformers 5.23. Its softmax over
//! the chosen experts is the one over all, renormalised. A window of `w` means `w` visible keys.

use backstop_kernels::backend::GatedActivation;
use backstop_weights::{GgufConventions, GgufExperts, GgufField, StrictFields};
use serde_json::Value;

use crate::config::{self, DecoderShape, ShapeDefaults, UnreadFields};
use crate::decoder::MlpPlan;
use crate::family::Family;
use crate::mlp::{RouterNames, SparsePlan, softmax_rule};

pub(crate) const FAMILY: Family = Family {
    chat_format: "harmony",
    // The length of the first training, which the rotary embedding states as well.
    unread: UnreadFields {
        inert: &["initial_context_length"],
        // Another name for `num_local_experts`.
        not_computed: &["num_experts"],
    },
    shape: ShapeDefaults {
        head_dim: Some(64),
        kv_heads: Some(8),
        ..ShapeDefaults::new(131_072)
    },
    rms_norm_epsilon: 1e-5,
    rope_theta: 150_000.0,
    differ: |fields, plan, heads| {
        if !["rope_parameters", "rope_scaling"]
            .iter()
            .any(|name| fields.value(name).is_some())
        {
            fields.problem("rope_scaling is missing");
        }
        heads.set_biases(fields.optional_bool("attention_bias").unwrap_or(true));
        heads.sinks = true;
        let experts = MlpPlan::Sparse(read_experts(fields));
        plan.set_mlps(|_| experts);
        let windows = read_windows(fields, &plan.shape);
        plan.set_windows(|layer| windows[layer]);
    },
    // Numbers of the activation stand in no file: llama.cpp computes with the published ones, which are the defaults here.
    gguf: Some(GgufConventions {
        names: &[
            ("attn_sinks.weight", "self_attn.sinks"),
            ("post_attention_norm", "post_attention_layernorm"),
        ],
        experts: Some(GgufExperts {
            router: "router",
            ..GgufExperts::USUAL
        }),
        fields: &[
            GgufField::integer("expert_count", "num_local_experts"),
            GgufField::integer("expert_used_count", "num_experts_per_tok"),
            GgufField::integer("expert_feed_forward_length", "intermediate_size"),
            GgufField::SlidingLayers {
                period: 2,
                full_first: false,
            },
            GgufField::RampNotRounded,
        ],
        ..GgufConventions::new("gpt-oss", "GptOssForCausalLM")
    }),
    ..Family::new("gpt_oss")
};

/// Without a list the layers slide and do not, in turns.
fn read_windows(fields: &mut StrictFields<'_>, shape: &DecoderShape) -> Vec<Option<u32>> {
    let window = fields.optional_u32("sliding_window").unwrap_or(128);
    if window == 0 {
        fields.problem("sliding_window must be positive");
    }
    let kinds = config::sliding_layers(fields, shape.num_layers);
    shape.layers(|layer| {
        let in_turn = layer.is_multiple_of(2);
        let slides = kinds.as_ref().map_or(in_turn, |kinds| kinds[layer]);
        slides.then_some(window)
    })
}

fn read_experts(fields: &mut StrictFields<'_>) -> SparsePlan {
    let num_experts = config::num_experts(fields, "num_local_experts", Some(128));
    let top_k = config::experts_per_token(fields, Some(4), num_experts);
    // Published configurations say it in this way, too.
    fields.only("experts_per_token", &Value::from(top_k));
    let mut positive = |name: &str, default: f64| {
        let value = fields.optional_f64(name).unwrap_or(default) as f32;
        if !(value > 0.0 && value.is_finite()) {
            fields.problem(format!("{name} must be positive"));
        }
        value
    };
    let activation = GatedActivation::ClampedSwiglu {
        alpha: positive("swiglu_alpha", 1.702),
        limit: positive("swiglu_limit", 7.0),
    };
    let width = config::width(fields, "intermediate_size");
    SparsePlan {
        router: RouterNames::Biased,
        activation,
        alternating: true,
        ..SparsePlan::new(num_experts, width, softmax_rule(top_k, true))
    }
}
