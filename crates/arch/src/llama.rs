//! Llama (`llama`): Llama 2 and 3.x with their RoPE scaling, SmolLM2 and many others.
//!
//! Reference implementation: `models/llama` of Hugging Face transformers 5.23.

use serde_json::{Map, Value};

use crate::attention::{AttentionPlan, HeadsPlan};
use crate::config::{self, Shape, ShapeDefaults};
use crate::decoder::{Decoder, DecoderPlan, LayerPlan, MlpPlan};
use crate::registry::ArchError;
use crate::rope::{self, RopeDefaults};

const ARCHITECTURE: &str = "llama";

const DEFAULTS: ShapeDefaults = ShapeDefaults {
    head_dim: None,
    kv_heads: None,
    max_position_embeddings: 2048,
    tied: false,
};

/// Reads the configuration and lays out the weights.
pub(crate) fn from_config(config: &Map<String, Value>) -> Result<Decoder, ArchError> {
    // How the training was cut between machines.
    let inert = &["pretraining_tp", "rope_interleaved", "is_llama_config"];
    let plan = config::read(ARCHITECTURE, config, inert, |fields| {
        let shape = Shape::read(fields, DEFAULTS);
        fields.only("hidden_act", &Value::from("silu"));
        fields.only("mlp_bias", &Value::from(false));
        fields.only("rope_interleaved", &Value::from(false));
        let bias = config::flag(fields, "attention_bias");
        let mlp = MlpPlan::Dense(config::width(fields, "intermediate_size"));
        DecoderPlan {
            architecture: ARCHITECTURE,
            chat_format: "plain",
            norm: config::rms_norm(fields, 1e-6),
            attention: AttentionPlan::Heads(HeadsPlan {
                shape: shape.attention,
                rope: Some(rope::read(fields, RopeDefaults::halves(&shape, 10_000.0))),
                norm_epsilon: None,
                qkv_bias: bias,
                output_bias: bias,
                sinks: false,
            }),
            layers: shape.layers(|_| LayerPlan {
                visible_keys: None,
                selects_keys: false,
                mlp,
            }),
            sparse_name: "mlp",
            prediction_layers: 0,
            shape,
        }
    })?;
    Ok(Decoder::new(&plan))
}
