//! gpt-oss (`gpt_oss`): attention with sinks, of which every other layer sees a window, and experts
//! with biases between which activations are cut.
//!
//! Reference implementation: `models/gpt_oss` of Hugging Face transformers 5.23. Its softmax over
//! the chosen experts is the one over all, renormalised. A window of `w` means `w` visible keys.

use backstop_kernels::backend::{GatedActivation, RouterRule, RouterScoring};
use backstop_weights::StrictFields;
use serde_json::{Map, Value};

use crate::attention::{AttentionPlan, HeadsPlan};
use crate::config::{self, Shape, ShapeDefaults};
use crate::decoder::{Decoder, DecoderPlan, LayerPlan, MlpPlan};
use crate::mlp::{PROJECTIONS, RouterNames, SparsePlan};
use crate::registry::ArchError;
use crate::rope::{self, RopeDefaults};

const ARCHITECTURE: &str = "gpt_oss";

const DEFAULTS: ShapeDefaults = ShapeDefaults {
    head_dim: Some(64),
    kv_heads: Some(8),
    max_position_embeddings: 131_072,
    tied: false,
};

/// The length of the first training, which the rotary embedding states as well.
const INERT: &[&str] = &["initial_context_length"];

/// Reads the configuration and lays out the weights.
pub(crate) fn from_config(config: &Map<String, Value>) -> Result<Decoder, ArchError> {
    let plan = config::read(ARCHITECTURE, config, INERT, |fields| {
        let shape = Shape::read(fields, DEFAULTS);
        // The name of a part of the activation, whose rest is in `swiglu_*`.
        fields.only("hidden_act", &Value::from("silu"));
        let bias = fields.optional_bool("attention_bias").unwrap_or(true);
        let layers = read_layers(fields, &shape);
        if !["rope_parameters", "rope_scaling"]
            .iter()
            .any(|name| fields.value(name).is_some())
        {
            fields.problem("rope_scaling is missing");
        }
        DecoderPlan {
            architecture: ARCHITECTURE,
            chat_format: "harmony",
            norm: config::rms_norm(fields, 1e-5),
            attention: AttentionPlan::Heads(HeadsPlan {
                shape: shape.attention,
                rope: Some(rope::read(fields, RopeDefaults::halves(&shape, 150_000.0))),
                norm_epsilon: None,
                qkv_bias: bias,
                output_bias: bias,
                sinks: true,
            }),
            layers,
            sparse_name: "mlp",
            prediction_layers: 0,
            shape,
        }
    })?;
    Ok(Decoder::new(&plan))
}

/// Without a list the layers slide and do not, in turns.
fn read_layers(fields: &mut StrictFields<'_>, shape: &Shape) -> Vec<LayerPlan> {
    let mlp = MlpPlan::Sparse(read_experts(fields));
    let window = fields.optional_u32("sliding_window").unwrap_or(128);
    if window == 0 {
        fields.problem("sliding_window must be positive");
    }
    let kinds = config::sliding_layers(fields, shape.num_layers);
    shape.layers(|layer| {
        let slides = kinds
            .as_ref()
            .map_or(layer.is_multiple_of(2), |kinds| kinds[layer]);
        LayerPlan {
            visible_keys: slides.then_some(window),
            selects_keys: false,
            mlp,
        }
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
    SparsePlan {
        num_experts,
        width: config::width(fields, "intermediate_size"),
        rule: RouterRule {
            top_k,
            scoring: RouterScoring::Softmax,
            renormalise: true,
            factor: 1.0,
            groups: None,
        },
        router: RouterNames::Biased,
        activation,
        alternating: true,
        projections: PROJECTIONS,
        shared: None,
    }
}
