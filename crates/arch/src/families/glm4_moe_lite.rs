//! GLM-4.7-Flash (`glm4_moe_lite`): DeepSeek-V3 with other numbers, and a list that says which layers
//! are dense.
//!
//! Reference implementation: `models/glm4_moe_lite` of Hugging Face transformers 5.23.

use backstop_weights::StrictFields;
use serde_json::Value;

use super::deepseek_v3::Family;
use crate::config;

pub(crate) const FAMILY: Family = Family {
    rms_norm_epsilon: 1e-5,
    max_position_embeddings: 202_752,
    read_dense,
    ..Family::new("glm4_moe_lite")
};

/// Without a list the first layer is dense.
fn read_dense(fields: &mut StrictFields<'_>, num_layers: usize) -> Vec<bool> {
    // Published configurations say it in this way, too.
    fields.only("first_k_dense_replace", &Value::from(1));
    let kinds = ["sparse", "dense"];
    let listed = config::kinds(fields, "mlp_layer_types", kinds, num_layers);
    listed.unwrap_or_else(|| (0..num_layers).map(|layer| layer == 0).collect())
}
