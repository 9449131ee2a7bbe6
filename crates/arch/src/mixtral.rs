//! Mixtral (`mixtral`): Mistral with experts.
//!
//! Reference implementation: `models/mixtral` of Hugging Face transformers 5.23. The softmax over
//! all experts is renormalised over the chosen ones. A window of `w` means `w` visible keys.

use backstop_kernels::backend::{GatedActivation, RouterRule, RouterScoring};
use serde_json::{Map, Value};

use crate::attention::{AttentionPlan, HeadsPlan};
use crate::config::{self, Shape, ShapeDefaults};
use crate::decoder::{Decoder, DecoderPlan, LayerPlan, MlpPlan};
use crate::mlp::{RouterNames, SparsePlan};
use crate::registry::ArchError;
use crate::rope::{self, RopeDefaults};

const ARCHITECTURE: &str = "mixtral";

const DEFAULTS: ShapeDefaults = ShapeDefaults {
    head_dim: None,
    kv_heads: Some(8),
    max_position_embeddings: 131_072,
    tied: false,
};

/// Reads the configuration and lays out the weights.
pub(crate) fn from_config(config: &Map<String, Value>) -> Result<Decoder, ArchError> {
    // Noise of the training.
    let inert = &["router_jitter_noise"];
    let plan = config::read(ARCHITECTURE, config, inert, |fields| {
        let shape = Shape::read(fields, DEFAULTS);
        fields.only("hidden_act", &Value::from("silu"));
        let num_experts = config::num_experts(fields, "num_local_experts", Some(8));
        let mlp = MlpPlan::Sparse(SparsePlan {
            num_experts,
            width: config::width(fields, "intermediate_size"),
            rule: RouterRule {
                top_k: config::experts_per_token(fields, Some(2), num_experts),
                scoring: RouterScoring::Softmax,
                renormalise: true,
                factor: 1.0,
                groups: None,
            },
            router: RouterNames::Plain,
            activation: GatedActivation::Swiglu,
            alternating: false,
            projections: ["w1", "w3", "w2"],
            shared: None,
        });
        let visible_keys = config::common_window(fields, config, None);
        DecoderPlan {
            architecture: ARCHITECTURE,
            chat_format: "plain",
            norm: config::rms_norm(fields, 1e-5),
            attention: AttentionPlan::Heads(HeadsPlan {
                shape: shape.attention,
                rope: Some(rope::read(fields, RopeDefaults::halves(&shape, 1e6))),
                norm_epsilon: None,
                qkv_bias: false,
                output_bias: false,
                sinks: false,
            }),
            layers: shape.layers(|_| LayerPlan {
                visible_keys,
                selects_keys: false,
                mlp,
            }),
            sparse_name: "block_sparse_moe",
            prediction_layers: 0,
            shape,
        }
    })?;
    Ok(Decoder::new(&plan))
}
