//! Mistral (`mistral`): Llama with a sliding window in all layers, or in none.
//!
//! Reference implementation: `models/mistral` of Hugging Face transformers 5.23. A window of `w`
//! means `w` visible keys, the query's own among them.

use serde_json::{Map, Value};

use crate::attention::{AttentionPlan, HeadsPlan};
use crate::config::{self, Shape, ShapeDefaults};
use crate::decoder::{Decoder, DecoderPlan, LayerPlan, MlpPlan};
use crate::registry::ArchError;
use crate::rope::{self, RopeDefaults};

const ARCHITECTURE: &str = "mistral";

const DEFAULTS: ShapeDefaults = ShapeDefaults {
    head_dim: None,
    kv_heads: Some(8),
    max_position_embeddings: 131_072,
    tied: false,
};

/// Reads the configuration and lays out the weights.
pub(crate) fn from_config(config: &Map<String, Value>) -> Result<Decoder, ArchError> {
    let plan = config::read(ARCHITECTURE, config, &[], |fields| {
        let shape = Shape::read(fields, DEFAULTS);
        fields.only("hidden_act", &Value::from("silu"));
        let mlp = MlpPlan::Dense(config::width(fields, "intermediate_size"));
        let visible_keys = config::common_window(fields, config, Some(4096));
        DecoderPlan {
            architecture: ARCHITECTURE,
            chat_format: "plain",
            norm: config::rms_norm(fields, 1e-6),
            attention: AttentionPlan::Heads(HeadsPlan {
                shape: shape.attention,
                rope: Some(rope::read(fields, RopeDefaults::halves(&shape, 10_000.0))),
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
            sparse_name: "mlp",
            prediction_layers: 0,
            shape,
        }
    })?;
    Ok(Decoder::new(&plan))
}
