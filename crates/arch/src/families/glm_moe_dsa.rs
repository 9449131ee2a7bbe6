//! GLM-5 (`glm_moe_dsa`): DeepSeek-V3 with sparse attention.
//!
//! Reference implementation: `models/glm_moe_dsa` of Hugging Face transformers 5.23. For each query
//! the indexer of a layer selects `index_topk` keys; layers without one take the selection of the
//! last before them that has one.

use backstop_weights::StrictFields;
use serde_json::Value;

use super::deepseek_v3::{Family, Indexers, SIZE_MAX, read_dense_prefix};
use crate::config;
use crate::latent::IndexerPlan;

pub(crate) const FAMILY: Family = Family {
    chat_format: "glm47",
    rms_norm_epsilon: 1e-5,
    max_position_embeddings: 202_752,
    read_dense,
    read_indexers: Some(read_indexers),
    ..Family::new("glm_moe_dsa")
};

/// Without a list the first layers are dense.
fn read_dense(fields: &mut StrictFields<'_>, num_layers: usize) -> Vec<bool> {
    let first = read_dense_prefix(fields, num_layers);
    let kinds = ["sparse", "dense"];
    let listed = config::kinds(fields, "mlp_layer_types", kinds, num_layers);
    listed.unwrap_or(first)
}

fn read_indexers(fields: &mut StrictFields<'_>, num_layers: usize) -> Indexers {
    fields.only("mlp_bias", &Value::from(false));
    fields.only("moe_router_dtype", &Value::from("float32"));
    for name in ["rope_interleave", "indexer_rope_interleave"] {
        fields.only(name, &Value::from(true));
    }
    // Of the layers that predict further tokens, which are left out.
    fields.value("index_share_for_mtp_iteration");
    if fields.optional_u32("q_lora_rank").is_none() {
        fields.problem("q_lora_rank must be a number: the indexer reads the queries' latents");
    }
    let kinds = fields.optional_string_list("layer_types");
    if kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind != "indexed_attention")) {
        fields.problem("layer_types may hold only \"indexed_attention\"");
    }
    let mut size = |name: &str, default: u32, most: u32| {
        let size = fields.optional_u32(name).unwrap_or(default);
        if size == 0 || size > most {
            fields.problem(format!("{name} must lie between 1 and {most}"));
        }
        size.clamp(1, most)
    };
    let plan = IndexerPlan {
        heads: size("index_n_heads", 32, SIZE_MAX),
        head_dim: size("index_head_dim", 128, SIZE_MAX),
        chosen: size("index_topk", 2048, u32::MAX),
    };
    let layers = read_layers(fields, num_layers);
    if layers.first() == Some(&false) {
        fields.problem("the first layer must select its keys itself (\"full\"), not share others'");
    }
    Indexers { plan, layers }
}

/// Which layers have an indexer: as a list says, or else a pattern, or else every so manieth layer.
fn read_layers(fields: &mut StrictFields<'_>, num_layers: usize) -> Vec<bool> {
    let listed = fields.optional_string_list("indexer_types");
    let listed = listed.map(|kinds| kinds_of(fields, "indexer_types", &kinds, ["full", "shared"]));
    let name = "index_topk_pattern";
    let pattern = match fields.value(name) {
        Some(Value::String(letters)) => {
            let letters: Vec<String> = letters.chars().map(String::from).collect();
            Some(kinds_of(fields, name, &letters, ["F", "S"]))
        }
        Some(_) => {
            let kinds = fields.optional_string_list(name);
            kinds.map(|kinds| kinds_of(fields, name, &kinds, ["full", "shared"]))
        }
        None => None,
    };
    let period = fields.optional_u32("index_topk_freq").unwrap_or(1).max(1);
    let offset = fields.optional_u32("index_skip_topk_offset").unwrap_or(2);
    let behind = |layer: usize| (layer + 1).saturating_sub(offset as usize);
    let periodic = (0..num_layers).map(|layer| behind(layer).is_multiple_of(period as usize));
    let mut layers = listed.or(pattern).unwrap_or_else(|| periodic.collect());
    if layers.len() < num_layers {
        fields.problem(
            "indexer_types or index_topk_pattern has fewer than num_hidden_layers entries",
        );
    }
    layers.resize(num_layers, true);
    layers
}

/// Whether each is the first of the two that there are.
fn kinds_of(
    fields: &mut StrictFields<'_>,
    name: &str,
    kinds: &[String],
    [full, shared]: [&str; 2],
) -> Vec<bool> {
    if kinds.iter().any(|kind| kind != full && kind != shared) {
        fields.problem(format!("{name} may hold only {full:?} and {shared:?}"));
    }
    kinds.iter().map(|kind| kind == full).collect()
}
