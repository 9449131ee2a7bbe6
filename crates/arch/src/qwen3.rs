//! Qwen3 (`qwen3`), dense: Llama with a norm of each head of queries and keys.
//!
//! Reference implementation: `models/qwen3` of Hugging Face transformers 5.23. Later layers may
//! slide; a window of `w` means `w` visible keys, the query's own among them.

use serde_json::{Map, Value};

use crate::attention::{AttentionPlan, HeadsPlan};
use crate::config::{self, Shape, ShapeDefaults};
use crate::decoder::{Decoder, DecoderPlan, LayerPlan, MlpPlan};
use crate::registry::ArchError;
use crate::rope::{self, RopeDefaults};

const ARCHITECTURE: &str = "qwen3";

const DEFAULTS: ShapeDefaults = ShapeDefaults {
    head_dim: Some(128),
    kv_heads: Some(32),
    max_position_embeddings: 32_768,
    tied: false,
};

/// Reads the configuration and lays out the weights.
pub(crate) fn from_config(config: &Map<String, Value>) -> Result<Decoder, ArchError> {
    let plan = config::read(ARCHITECTURE, config, &[], |fields| {
        let shape = Shape::read(fields, DEFAULTS);
        fields.only("hidden_act", &Value::from("silu"));
        let bias = config::flag(fields, "attention_bias");
        let mlp = MlpPlan::Dense(config::width(fields, "intermediate_size"));
        let windows = config::optional_windows(fields, &shape);
        let layer = |&visible_keys: &Option<u32>| LayerPlan {
            visible_keys,
            selects_keys: false,
            mlp,
        };
        let norm = config::rms_norm(fields, 1e-6);
        DecoderPlan {
            architecture: ARCHITECTURE,
            chat_format: "plain",
            norm,
            attention: AttentionPlan::Heads(HeadsPlan {
                shape: shape.attention,
                rope: Some(rope::read(fields, RopeDefaults::halves(&shape, 10_000.0))),
                norm_epsilon: Some(norm.epsilon()),
                qkv_bias: bias,
                output_bias: bias,
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
