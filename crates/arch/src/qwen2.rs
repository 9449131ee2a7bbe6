//! Qwen2 (`qwen2`): Qwen2, Qwen2.5 and Qwen2.5-Coder. Llama with biases on queries, keys and values.
//!
//! Reference implementation: `models/qwen2` of Hugging Face transformers 5.23. Later layers may
//! slide; a window of `w` means `w` visible keys, the query's own among them.

use serde_json::{Map, Value};

use crate::attention::{AttentionPlan, HeadsPlan};
use crate::config::{self, Shape, ShapeDefaults};
use crate::decoder::{Decoder, DecoderPlan, LayerPlan, MlpPlan};
use crate::registry::ArchError;
use crate::rope::{self, RopeDefaults};

const ARCHITECTURE: &str = "qwen2";

const DEFAULTS: ShapeDefaults = ShapeDefaults {
    head_dim: None,
    kv_heads: Some(32),
    max_position_embeddings: 32_768,
    tied: false,
};

/// Reads the configuration and lays out the weights.
pub(crate) fn from_config(config: &Map<String, Value>) -> Result<Decoder, ArchError> {
    let plan = config::read(ARCHITECTURE, config, &["use_mrope"], |fields| {
        let shape = Shape::read(fields, DEFAULTS);
        fields.only("hidden_act", &Value::from("silu"));
        fields.only("use_mrope", &Value::from(false));
        let mlp = MlpPlan::Dense(config::width(fields, "intermediate_size"));
        let windows = config::optional_windows(fields, &shape);
        let layer = |&visible_keys: &Option<u32>| LayerPlan {
            visible_keys,
            selects_keys: false,
            mlp,
        };
        DecoderPlan {
            architecture: ARCHITECTURE,
            chat_format: "plain",
            norm: config::rms_norm(fields, 1e-6),
            attention: AttentionPlan::Heads(HeadsPlan {
                shape: shape.attention,
                rope: Some(rope::read(fields, RopeDefaults::halves(&shape, 10_000.0))),
                norm_epsilon: None,
                qkv_bias: true,
                output_bias: false,
                sinks: false,
            }),
            layers: windows.iter().map(layer).collect(),
            sparse_name: "mlp",
            prediction_layers: 0,
            shape,
        }
    })?;
    Ok(Decoder::new(&plan))
}
