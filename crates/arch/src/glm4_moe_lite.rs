//! GLM-4.7-Flash (`glm4_moe_lite`): DeepSeek-V3 with other numbers, and a list that says which layers
//! are dense.
//!
//! Reference implementation: `models/glm4_moe_lite` of Hugging Face transformers 5.23.

use backstop_weights::StrictFields;
use serde_json::{Map, Value};

use crate::config;
use crate::decoder::Decoder;
use crate::deepseek_v3::{self, Family};
use crate::registry::ArchError;

/// Reads the configuration and lays out the weights.
pub(crate) fn from_config(config: &Map<String, Value>) -> Result<Decoder, ArchError> {
    let family = Family {
        architecture: "glm4_moe_lite",
        chat_format: "plain",
        rms_norm_epsilon: 1e-5,
        max_position_embeddings: 202_752,
        read_dense,
        read_indexers: None,
    };
    deepseek_v3::read(family, config)
}

/// Without a list the first layer is dense.
fn read_dense(fields: &mut StrictFields<'_>, num_layers: usize) -> Vec<bool> {
    // Published configurations say it in this way, too.
    fields.only("first_k_dense_replace", &Value::from(1));
    let kinds = ["sparse", "dense"];
    let listed = config::kinds(fields, "mlp_layer_types", kinds, num_layers);
    listed.unwrap_or_else(|| (0..num_layers).map(|layer| layer == 0).collect())
}
