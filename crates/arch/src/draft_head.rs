//! Draft heads: small models that guess a model's next tokens from its hidden states (Li et al.
//! 2024, "EAGLE"). One file each and one line in [`build_draft_head`]'s list.

use backstop_kernels::backend::DraftBackend;
use serde_json::{Map, Value};

use crate::{ArchError, KvGroup, ModelSpec, WeightMap, cohere_eagle};

/// A draft head that computes on backend `B`.
pub trait DraftHead<B: DraftBackend>: Send + Sync {
    /// Its description.
    fn spec(&self) -> &DraftHeadSpec;

    /// Computes the batch that `backend` holds, up to the logits of the rows that it samples. The
    /// row at position `p` has the token at `p + 1` and a hidden state for `p`: that of the model,
    /// or behind the model's last position that of the head. Row `i`'s is row `rows[i]` of
    /// `hidden`. Returns the hidden states of the head.
    fn forward(&self, backend: &mut B, hidden: &B::Activation, rows: &[u32]) -> B::Activation;
}

/// A draft head as its configuration describes it.
#[derive(Clone, Debug)]
pub struct DraftHeadSpec {
    /// Its own weights, by the id that `forward` uses. Behind its matrices come two of the
    /// model's: the embedding and the output head.
    pub weights: WeightMap,
    /// Groups of its layers.
    pub kv_groups: Vec<KvGroup>,
    /// For each of them the group of the model whose block tables it uses.
    pub table_groups: Vec<usize>,
}

impl DraftHeadSpec {
    /// The groups of the model, whose blocks have room for the keys and values of the head as
    /// well.
    pub fn with_room(&self, model: &[KvGroup]) -> Vec<KvGroup> {
        let mut groups = model.to_vec();
        for (own, &table) in self.kv_groups.iter().zip(&self.table_groups) {
            let numbers = |group: &KvGroup| group.num_layers * group.kv_heads * group.head_dim;
            groups[table] = KvGroup {
                span: groups[table].span,
                num_layers: 1,
                kv_heads: 1,
                head_dim: numbers(&groups[table]) + numbers(own),
                has_values: true,
            };
        }
        groups
    }
}

macro_rules! draft_heads {
    ($($name:literal => $from_config:path),+ $(,)?) => {
        /// Builds the draft head that `config` (the content of its `config.json`) describes, for
        /// this model.
        pub fn build_draft_head<B: DraftBackend>(
            config: &Map<String, Value>,
            model: &ModelSpec,
        ) -> Result<Box<dyn DraftHead<B>>, ArchError> {
            let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
            match model_type {
                $($name => Ok(Box::new($from_config(config, model)?)),)+
                _ => Err(ArchError::UnsupportedHead {
                    model_type: model_type.chars().take(64).collect(),
                    supported: vec![$($name),+],
                }),
            }
        }
    };
}

draft_heads! {
    "cohere2" => cohere_eagle::CohereEagle::from_config,
}
