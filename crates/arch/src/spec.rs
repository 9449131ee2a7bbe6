//! What the rest of the server must know of a model, whatever its architecture.

use backstop_kernels::KvGroupLayout;
use backstop_kernels::backend::MatrixId;
use backstop_types::AttentionSpan;

use crate::WeightMap;

/// A model as its configuration describes it.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    /// Name of the architecture, as in `model_type`.
    pub architecture: &'static str,
    /// Rows of the output head.
    pub vocabulary_size: u32,
    /// Longest sequence that the model was made for.
    pub max_position_embeddings: u32,
    /// Groups of layers that share a block table.
    pub kv_groups: Vec<KvGroup>,
    /// Which output parser the model's chat format needs; an id of the text crate's registry.
    pub chat_format: &'static str,
    /// The table of token embeddings.
    pub embedding: MatrixId,
    /// What the logits are made with; the embedding, if the two are tied.
    pub head: MatrixId,
    /// Every weight, by the id that `forward` uses.
    pub weights: WeightMap,
}

/// Layers that attend to the same positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvGroup {
    /// The positions that they see.
    pub span: AttentionSpan,
    /// How many layers.
    pub num_layers: u32,
    /// Key-value heads of each.
    pub kv_heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// There are values beside the keys.
    pub has_values: bool,
}

impl KvGroup {
    /// The group's share of a KV cache, with a pool of so many blocks.
    pub fn layout(&self, num_blocks: u32) -> KvGroupLayout {
        KvGroupLayout {
            span: self.span,
            num_blocks,
            num_layers: self.num_layers,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            has_values: self.has_values,
        }
    }
}
