//! The usual decoder: `h += attention(norm(h))`, then `h += mlp(norm(h))`.

use backstop_kernels::backend::{Backend, Norm, VectorId};

use crate::attention::{Attention, AttentionPlan, LayerCache};
use crate::config::DecoderShape;
use crate::kv_groups::KvGroups;
use crate::mlp::{Mlp, SparsePlan};
use crate::registry::Model;
use crate::{ModelSpec, WeightMap};

/// A model of sequential blocks with a norm before each branch.
#[derive(Debug)]
pub(crate) struct Decoder {
    spec: ModelSpec,
    embedding_factor: f32,
    norm: Norm,
    layers: Vec<Layer>,
    final_norm: VectorId,
    logit_factor: f32,
}

#[derive(Debug)]
struct Layer {
    attention_norm: VectorId,
    attention: Attention,
    mlp_norm: VectorId,
    mlp: Mlp,
}

/// What an architecture file decides.
#[derive(Debug)]
pub(crate) struct DecoderPlan {
    pub(crate) architecture: &'static str,
    pub(crate) chat_format: &'static str,
    pub(crate) shape: DecoderShape,
    pub(crate) norm: Norm,
    pub(crate) multipliers: Multipliers,
    pub(crate) attention: AttentionPlan,
    pub(crate) layers: Vec<LayerPlan>,
    /// Name of a layer's experts.
    pub(crate) sparse_name: &'static str,
    /// What the names of all tensors begin with, of a model that reads more than text.
    pub(crate) prefix: &'static str,
}

/// Positive factors on what is added up and on what comes of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Multipliers {
    /// On embeddings.
    pub(crate) embedding: f32,
    /// On what attention and MLP add.
    pub(crate) residual: f32,
    /// On logits.
    pub(crate) logits: f32,
}

/// What differs between the layers of a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerPlan {
    /// Keys that its queries see, if not all.
    pub(crate) visible_keys: Option<u32>,
    /// It knows of positions only what its window says (NoPE, Kazemnejad et al. 2023).
    pub(crate) without_rope: bool,
    /// It selects the keys that it and the layers behind it attend to, up to the next that does.
    pub(crate) selects_keys: bool,
    pub(crate) mlp: MlpPlan,
}

impl DecoderPlan {
    /// Without any layers yet, and plain in everything else.
    pub(crate) fn new(
        architecture: &'static str,
        shape: DecoderShape,
        norm: Norm,
        attention: AttentionPlan,
    ) -> Self {
        Self {
            architecture,
            chat_format: "plain",
            shape,
            norm,
            multipliers: Multipliers {
                embedding: 1.0,
                residual: 1.0,
                logits: 1.0,
            },
            attention,
            layers: Vec::new(),
            sparse_name: "mlp",
            prefix: "",
        }
    }

    /// Lets each layer see so many keys, if not all.
    pub(crate) fn set_windows(&mut self, visible_keys: impl Fn(usize) -> Option<u32>) {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.visible_keys = visible_keys(index);
        }
    }

    /// Leaves queries and keys of these layers unrotated.
    pub(crate) fn set_without_rope(&mut self, without_rope: impl Fn(usize) -> bool) {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.without_rope = without_rope(index);
        }
    }

    /// Gives each layer this MLP.
    pub(crate) fn set_mlps(&mut self, mlp: impl Fn(usize) -> MlpPlan) {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.mlp = mlp(index);
        }
    }
}

impl LayerPlan {
    /// A layer that rotates queries and keys, and attends to everything.
    pub(crate) fn new(mlp: MlpPlan) -> Self {
        Self {
            visible_keys: None,
            without_rope: false,
            selects_keys: false,
            mlp,
        }
    }
}

/// A layer's feed-forward block.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MlpPlan {
    /// One gated MLP of this width.
    Dense(usize),
    /// The same in checkpoints that have gate and up as one tensor, `gate_up_proj`.
    DenseFused(usize),
    Sparse(SparsePlan),
}

impl Decoder {
    /// Names the weights.
    pub(crate) fn new(plan: &DecoderPlan) -> Self {
        let (shape, multipliers) = (&plan.shape, plan.multipliers);
        let mut weights = WeightMap::default();
        let embedding = weights.embedding(shape.vocabulary as usize, shape.hidden);
        let windows: Vec<Option<u32>> =
            plan.layers.iter().map(|layer| layer.visible_keys).collect();
        let mut kv = KvGroups::new(&windows, plan.attention.cached());
        let selects_keys: Vec<bool> = plan.layers.iter().map(|layer| layer.selects_keys).collect();
        let index_keys = kv.add_index_keys(&selects_keys, plan.attention.index_dim());
        let caches = kv.layers.iter().zip(index_keys);
        let caches = caches.map(|(&kv, index_keys)| LayerCache { kv, index_keys });
        let layers = plan.layers.iter().zip(caches).enumerate();
        let layers = layers
            .map(|(index, (layer, cache))| Layer::new(&mut weights, plan, *layer, index, cache));
        let layers = layers.collect();
        let final_norm = weights.vector("model.norm.weight", shape.hidden);
        let head = weights.head(embedding, shape.tied);
        weights.set_prefix(plan.prefix);
        Self {
            spec: ModelSpec {
                architecture: plan.architecture,
                vocabulary_size: shape.vocabulary,
                max_position_embeddings: shape.max_position_embeddings,
                kv_groups: kv.groups,
                chat_format: plan.chat_format,
                embedding,
                head,
                weights,
            },
            // Hidden states are kept in units of what branches are multiplied by, so that these are
            // added as they are.
            embedding_factor: multipliers.embedding / multipliers.residual,
            norm: of_hidden_states_in(multipliers.residual, plan.norm),
            layers,
            final_norm,
            logit_factor: multipliers.logits,
        }
    }

    fn embed<B: Backend>(&self, backend: &mut B) -> B::Activation {
        let hidden = backend.embed(self.spec.embedding);
        if self.embedding_factor == 1.0 {
            return hidden;
        }
        // Both doubling and halving are exact.
        let again = backend.embed(self.spec.embedding);
        backend.add_scaled(hidden, again, self.embedding_factor / 2.0)
    }
}

/// The same norm of numbers that are given in multiples of `unit`: norms see no factor, but for
/// what they add to the mean square.
fn of_hidden_states_in(unit: f32, norm: Norm) -> Norm {
    let in_units = |epsilon: f32| epsilon / (unit * unit);
    match norm {
        Norm::Rms { epsilon } => Norm::Rms {
            epsilon: in_units(epsilon),
        },
        Norm::LayerWithoutBias { epsilon } => Norm::LayerWithoutBias {
            epsilon: in_units(epsilon),
        },
    }
}

impl Layer {
    fn new(
        weights: &mut WeightMap,
        plan: &DecoderPlan,
        layer: LayerPlan,
        index: usize,
        cache: LayerCache,
    ) -> Self {
        let hidden = plan.shape.hidden;
        let prefix = format!("model.layers.{index}");
        let mut norm = |name: &str| weights.vector(format!("{prefix}.{name}.weight"), hidden);
        let (attention_norm, mlp_norm) =
            (norm("input_layernorm"), norm("post_attention_layernorm"));
        let attention = match layer.without_rope {
            true => plan.attention.without_rope(),
            false => plan.attention,
        };
        let attention_prefix = format!("{prefix}.self_attn");
        let attention = Attention::new(weights, &attention_prefix, hidden, attention, cache);
        let mlp = match layer.mlp {
            MlpPlan::Dense(width) => Mlp::dense(weights, &format!("{prefix}.mlp"), hidden, width),
            MlpPlan::DenseFused(width) => {
                Mlp::dense_fused(weights, &format!("{prefix}.mlp"), hidden, width)
            }
            MlpPlan::Sparse(experts) => {
                let name = format!("{prefix}.{}", plan.sparse_name);
                Mlp::sparse(weights, &name, hidden, experts)
            }
        };
        Self {
            attention_norm,
            attention,
            mlp_norm,
            mlp,
        }
    }
}

impl<B: Backend> Model<B> for Decoder {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn forward(&self, backend: &mut B) -> B::Activation {
        let mut hidden = self.embed(backend);
        let mut normed = backend.norm(&hidden, self.layers[0].attention_norm, self.norm);
        let mut selection = None;
        for (index, layer) in self.layers.iter().enumerate() {
            let attended = layer.attention.forward(backend, &normed, &mut selection);
            normed = backend.add_norm(
                &mut hidden,
                [Some(attended), None],
                layer.mlp_norm,
                self.norm,
            );
            let mlp = layer.mlp.forward(backend, &normed);
            let next_norm = self
                .layers
                .get(index + 1)
                .map_or(self.final_norm, |next| next.attention_norm);
            normed = backend.add_norm(&mut hidden, [Some(mlp), None], next_norm, self.norm);
        }
        backend.head(&normed, self.spec.head, self.logit_factor);
        normed
    }
}
