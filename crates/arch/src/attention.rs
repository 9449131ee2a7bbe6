//! Attention: with separate query, key, value and output projections, under the names that most
//! checkpoints give them, or over latents.

use backstop_kernels::backend::{
    AttentionShape, Backend, KvLayer, MatrixId, QueryKeyNorm, QueryKeyTransform, Rope, VectorId,
};

use crate::WeightMap;
use crate::latent::{LatentAttention, LatentPlan};

/// A layer's parts of the cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerCache {
    /// Keys and values.
    pub(crate) kv: KvLayer,
    /// The keys of its indexer, if it has one.
    pub(crate) index_keys: Option<KvLayer>,
}

/// A layer's attention.
#[derive(Debug)]
pub(crate) enum Attention {
    Heads(HeadsAttention),
    Latent(LatentAttention),
}

/// What differs between models.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AttentionPlan {
    Heads(HeadsPlan),
    Latent(LatentPlan),
}

impl AttentionPlan {
    /// What the cache holds.
    pub(crate) fn cached(&self) -> AttentionShape {
        match self {
            Self::Heads(plan) => plan.shape,
            Self::Latent(plan) => plan.cached(),
        }
    }

    /// The same without a rotation of whole heads.
    pub(crate) fn without_rope(self) -> Self {
        match self {
            Self::Heads(plan) => Self::Heads(HeadsPlan { rope: None, ..plan }),
            Self::Latent(_) => self,
        }
    }

    /// Elements of an index key, of layers that select keys.
    pub(crate) fn index_dim(&self) -> u32 {
        match self {
            Self::Heads(_) => 0,
            Self::Latent(plan) => plan.indexer.map_or(0, |indexer| indexer.head_dim),
        }
    }
}

impl Attention {
    /// Names the weights of the attention at `prefix`.
    pub(crate) fn new(
        weights: &mut WeightMap,
        prefix: &str,
        hidden: usize,
        plan: AttentionPlan,
        cache: LayerCache,
    ) -> Self {
        match plan {
            AttentionPlan::Heads(plan) => Self::heads(weights, prefix, hidden, plan, cache.kv),
            AttentionPlan::Latent(plan) => {
                Self::Latent(LatentAttention::new(weights, prefix, hidden, plan, cache))
            }
        }
    }

    /// The same for attention with projections of its own.
    pub(crate) fn heads(
        weights: &mut WeightMap,
        prefix: &str,
        hidden: usize,
        plan: HeadsPlan,
        kv: KvLayer,
    ) -> Self {
        Self::Heads(HeadsAttention::new(weights, prefix, hidden, plan, kv))
    }

    /// `selection` holds the keys that the last layer with an indexer selected.
    pub(crate) fn forward<B: Backend>(
        &self,
        backend: &mut B,
        normed: &B::Activation,
        selection: &mut Option<B::Selection>,
    ) -> B::Activation {
        match self {
            Self::Heads(attention) => attention.forward(backend, normed),
            Self::Latent(attention) => attention.forward(backend, normed, selection),
        }
    }
}

/// The weights of attention with projections, and what is done with them.
#[derive(Debug)]
pub(crate) struct HeadsAttention {
    qkv: MatrixId,
    qkv_bias: Option<VectorId>,
    output: MatrixId,
    output_bias: Option<VectorId>,
    sinks: Option<VectorId>,
    shape: AttentionShape,
    transform: QueryKeyTransform,
    kv: KvLayer,
}

/// Heads with projections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadsPlan {
    pub(crate) shape: AttentionShape,
    pub(crate) rope: Option<Rope>,
    /// Queries and keys are normed, with this epsilon.
    pub(crate) norm_epsilon: Option<f32>,
    pub(crate) qkv_bias: bool,
    pub(crate) output_bias: bool,
    /// Each head has one; see `paged_attention` of [`Backend`].
    pub(crate) sinks: bool,
    /// Checkpoints have queries, keys and values as one tensor, `qkv_proj`.
    pub(crate) is_fused: bool,
}

impl HeadsPlan {
    /// Without norms, biases and sinks.
    pub(crate) fn new(shape: AttentionShape, rope: Option<Rope>) -> Self {
        Self {
            shape,
            rope,
            norm_epsilon: None,
            qkv_bias: false,
            output_bias: false,
            sinks: false,
            is_fused: false,
        }
    }

    /// Queries, keys, values and the output have biases, or none of them has.
    pub(crate) fn set_biases(&mut self, bias: bool) {
        (self.qkv_bias, self.output_bias) = (bias, bias);
    }
}

impl HeadsAttention {
    fn new(
        weights: &mut WeightMap,
        prefix: &str,
        hidden: usize,
        plan: HeadsPlan,
        kv: KvLayer,
    ) -> Self {
        let shape = plan.shape;
        let query_rows = (shape.heads * shape.head_dim) as usize;
        let kv_rows = (shape.kv_heads * shape.head_dim) as usize;
        let (fused, own) = (
            [("qkv", query_rows + 2 * kv_rows)],
            [("q", query_rows), ("k", kv_rows), ("v", kv_rows)],
        );
        let parts = |kind: &str| {
            let parts: &[(&str, usize)] = if plan.is_fused { &fused } else { &own };
            let part =
                |(name, rows): &(&str, usize)| (format!("{prefix}.{name}_proj.{kind}"), *rows);
            parts.iter().map(part).collect::<Vec<_>>()
        };
        let output = |kind: &str| [(format!("{prefix}.o_proj.{kind}"), hidden)];
        let norm = plan.norm_epsilon.map(|epsilon| {
            let mut gain =
                |name: &str| weights.vector(format!("{prefix}.{name}"), shape.head_dim as usize);
            QueryKeyNorm {
                query: gain("q_norm.weight"),
                key: gain("k_norm.weight"),
                epsilon,
            }
        });
        Self {
            qkv: weights.matrix(&parts("weight"), hidden),
            qkv_bias: plan.qkv_bias.then(|| weights.bias(&parts("bias"))),
            output: weights.matrix(&output("weight"), query_rows),
            output_bias: plan.output_bias.then(|| weights.bias(&output("bias"))),
            sinks: plan
                .sinks
                .then(|| weights.bias(&[(format!("{prefix}.sinks"), shape.heads as usize)])),
            shape,
            transform: QueryKeyTransform {
                norm,
                rope: plan.rope,
            },
            kv,
        }
    }

    fn forward<B: Backend>(&self, backend: &mut B, normed: &B::Activation) -> B::Activation {
        let mut qkv = backend.linear(normed, self.qkv, self.qkv_bias);
        backend.rope_and_cache(&mut qkv, self.shape, self.transform, self.kv);
        let attended = backend.paged_attention(&qkv, self.shape, self.sinks, self.kv);
        backend.linear(&attended, self.output, self.output_bias)
    }
}
