//! GLM-5 (`glm_moe_dsa`): DeepSeek-V3 with sparse attention, computed for sequences of which it
//! selects all keys.
//!
//! Reference implementation: `models/glm_moe_dsa` of Hugging Face transformers 5.23. For each query
//! an indexer selects `index_topk` keys; sequences that are no longer are attended to as a whole,
//! whatever it does, so that its weights are not needed.

use backstop_weights::StrictFields;
use serde_json::{Map, Value};

use crate::config;
use crate::decoder::Decoder;
use crate::deepseek_v3::{self, Family, Indexer, SIZE_MAX};
use crate::latent::IndexerShape;
use crate::registry::ArchError;

/// Reads the configuration and lays out the weights.
pub(crate) fn from_config(config: &Map<String, Value>) -> Result<Decoder, ArchError> {
    let family = Family {
        architecture: "glm_moe_dsa",
        chat_format: "glm47",
        rms_norm_epsilon: 1e-5,
        max_position_embeddings: 202_752,
        read_dense,
        read_indexer: Some(read_indexer),
    };
    deepseek_v3::read(family, config)
}

/// Without a list the first layers are dense.
fn read_dense(fields: &mut StrictFields<'_>, num_layers: usize) -> Vec<bool> {
    let first = deepseek_v3::read_dense_prefix(fields, num_layers);
    let kinds = ["sparse", "dense"];
    let listed = config::kinds(fields, "mlp_layer_types", kinds, num_layers);
    listed.unwrap_or(first)
}

fn read_indexer(fields: &mut StrictFields<'_>) -> Indexer {
    fields.only("mlp_bias", &Value::from(false));
    fields.only("rope_interleave", &Value::from(true));
    if fields.optional_u32("q_lora_rank").is_none() {
        fields.problem("q_lora_rank must be a number: the indexer reads the queries' latents");
    }
    let layers = fields.optional_string_list("layer_types");
    if layers.is_some_and(|kinds| kinds.iter().any(|kind| kind != "indexed_attention")) {
        fields.problem("layer_types may hold only \"indexed_attention\"");
    }
    // In which layers it selects and how, none of which matters where all is selected.
    for name in [
        "indexer_types",
        "indexer_rope_interleave",
        "index_topk_freq",
        "index_topk_pattern",
        "index_skip_topk_offset",
    ] {
        fields.value(name);
    }
    let mut size = |name: &str, default: u32, most: u32| {
        let size = fields.optional_u32(name).unwrap_or(default);
        if size == 0 || size > most {
            fields.problem(format!("{name} must lie between 1 and {most}"));
        }
        size.clamp(1, most)
    };
    Indexer {
        chosen: size("index_topk", 2048, u32::MAX),
        shape: IndexerShape {
            heads: size("index_n_heads", 32, SIZE_MAX) as usize,
            head_dim: size("index_head_dim", 128, SIZE_MAX) as usize,
        },
    }
}
