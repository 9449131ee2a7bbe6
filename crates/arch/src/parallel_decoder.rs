//! Decoders of parallel blocks with one norm each, as Cohere's models are: a file for each family says what differs.

use backstop_kernels::backend::{Backend, Norm, Rope, VectorId};

use crate::attention::{Attention, HeadsPlan};
use crate::config::DecoderShape;
use crate::decoder::MlpPlan;
use crate::kv_groups::KvGroups;
use crate::mlp::Mlp;
use crate::parallel_block::{self, ParallelBlock};
use crate::registry::Model;
use crate::{ModelSpec, WeightMap};

/// A decoder before its weights are named.
#[derive(Debug)]
pub(crate) struct ParallelPlan {
    pub(crate) name: &'static str,
    pub(crate) chat_format: &'static str,
    pub(crate) shape: DecoderShape,
    /// Of all layers, and the last.
    pub(crate) norm: Norm,
    /// Of the layers that have one.
    pub(crate) rope: Rope,
    pub(crate) layers: Vec<ParallelLayer>,
    /// What logits are multiplied with.
    pub(crate) logit_scale: f32,
}

/// A layer before its weights are named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ParallelLayer {
    pub(crate) rope: bool,
    /// All, if it does not slide.
    pub(crate) visible_keys: Option<u32>,
    pub(crate) mlp: MlpPlan,
}

/// The model: its description and the weights of its layers.
#[derive(Debug)]
pub(crate) struct ParallelDecoder {
    spec: ModelSpec,
    norm: Norm,
    layers: Vec<ParallelBlock>,
    final_norm: VectorId,
    logit_scale: f32,
}

impl<B: Backend> Model<B> for ParallelDecoder {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn forward(&self, backend: &mut B) -> B::Activation {
        let hidden = backend.embed(self.spec.embedding);
        let last = (self.final_norm, self.norm);
        let normed = parallel_block::forward(backend, hidden, &self.layers, self.norm, last);
        backend.head(&normed, self.spec.head, self.logit_scale);
        normed
    }
}

impl ParallelDecoder {
    /// Names the weights.
    pub(crate) fn new(plan: &ParallelPlan) -> Self {
        let shape = &plan.shape;
        let mut weights = WeightMap::default();
        let embedding = weights.embedding(shape.vocabulary as usize, shape.hidden);
        let windows = plan.layers.iter().map(|layer| layer.visible_keys);
        let kv = KvGroups::new(&windows.collect::<Vec<_>>(), shape.attention);
        let layers = (0..plan.layers.len())
            .map(|index| block(plan, &kv, index, &mut weights))
            .collect();
        let final_norm = weights.vector("model.norm.weight", shape.hidden);
        let head = weights.head(embedding, shape.tied);
        let spec = ModelSpec {
            architecture: plan.name,
            vocabulary_size: shape.vocabulary,
            max_position_embeddings: shape.max_position_embeddings,
            kv_groups: kv.groups,
            chat_format: plan.chat_format,
            embedding,
            head,
            weights,
        };
        Self {
            spec,
            norm: plan.norm,
            layers,
            final_norm,
            logit_scale: plan.logit_scale,
        }
    }
}

fn block(
    plan: &ParallelPlan,
    kv: &KvGroups,
    index: usize,
    weights: &mut WeightMap,
) -> ParallelBlock {
    let layer = plan.layers[index];
    let hidden = plan.shape.hidden;
    let rope = layer.rope.then_some(plan.rope);
    let heads = HeadsPlan::new(plan.shape.attention, rope);
    let prefix = format!("model.layers.{index}");
    ParallelBlock::new(weights, &prefix, hidden, |weights, [attention, mlp]| {
        (
            Attention::heads(weights, attention, hidden, heads, kv.layers[index]),
            match layer.mlp {
                MlpPlan::Dense(width) => Mlp::dense(weights, mlp, hidden, width),
                MlpPlan::DenseFused(width) => Mlp::dense_fused(weights, mlp, hidden, width),
                MlpPlan::Sparse(experts) => Mlp::sparse(weights, mlp, hidden, experts),
            },
        )
    })
}
