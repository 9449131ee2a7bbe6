//! Latent attention (DeepSeek-AI 2024, "DeepSeek-V2", section 2.1), under the names of its
//! checkpoints. The cache holds latents; see `latent_input` of [`Backend`].

use backstop_kernels::backend::{
    AttentionShape, Backend, KvLayer, LatentShape, LatentWeights, MatrixId, Norm,
    QueryKeyTransform, Rope, VectorId,
};

use crate::WeightMap;

/// The weights of a layer's attention and what is done with them.
#[derive(Debug)]
pub(crate) struct LatentAttention {
    queries: Queries,
    latents: MatrixId,
    latents_bias: Option<VectorId>,
    weights: LatentWeights,
    output: MatrixId,
    output_bias: Option<VectorId>,
    plan: LatentPlan,
    kv: KvLayer,
}

/// How queries are made: at once, or over latents of their own.
#[derive(Debug)]
enum Queries {
    Direct(MatrixId),
    Latent {
        down: MatrixId,
        bias: Option<VectorId>,
        gain: VectorId,
        up: MatrixId,
    },
}

/// What differs between models.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LatentPlan {
    pub(crate) shape: LatentShape,
    /// Elements of the queries' latents, if they have any.
    pub(crate) query_rank: Option<usize>,
    /// Factor on query-key products.
    pub(crate) scale: f32,
    /// Of the rotated part of heads.
    pub(crate) rope: Rope,
    /// The way down and the output have biases.
    pub(crate) bias: bool,
    /// Of the latents' norms.
    pub(crate) epsilon: f32,
    /// Checkpoints carry an indexer, which is ignored.
    pub(crate) indexer: Option<IndexerShape>,
}

/// Sizes of an indexer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexerShape {
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
}

impl LatentPlan {
    /// Attention as the cache sees it.
    pub(crate) fn cached(&self) -> AttentionShape {
        AttentionShape {
            heads: self.shape.heads,
            kv_heads: 1,
            head_dim: self.shape.head_dim(),
            scale: self.scale,
        }
    }
}

impl IndexerShape {
    fn weights(self, prefix: &str, hidden: usize, query_rank: usize) -> WeightMap {
        let Self { heads, head_dim } = self;
        let mut weights = WeightMap::default();
        for (name, rows, columns) in [
            ("wq_b", heads * head_dim, query_rank),
            ("wk", head_dim, hidden),
            ("weights_proj", heads, hidden),
        ] {
            weights.matrix(&[(format!("{prefix}.{name}.weight"), rows)], columns);
        }
        for kind in ["weight", "bias"] {
            weights.vector(format!("{prefix}.k_norm.{kind}"), head_dim);
        }
        weights
    }
}

impl LatentAttention {
    pub(crate) fn new(
        weights: &mut WeightMap,
        prefix: &str,
        hidden: usize,
        plan: LatentPlan,
        kv: KvLayer,
    ) -> Self {
        let LatentShape {
            heads,
            rank,
            rope_dim,
            content_dim,
            value_dim,
        } = plan.shape;
        if let Some(indexer) = plan.indexer {
            let query_rank = plan.query_rank.unwrap_or(hidden);
            weights.ignore(indexer.weights(&format!("{prefix}.indexer"), hidden, query_rank));
        }
        let name = |name: &str| format!("{prefix}.{name}");
        let part = |name: &str, kind: &str, rows| [(format!("{prefix}.{name}.{kind}"), rows)];
        let query_rows = (heads * (content_dim + rope_dim)) as usize;
        let queries = match plan.query_rank {
            None => Queries::Direct(weights.matrix(&part("q_proj", "weight", query_rows), hidden)),
            Some(rank) => Queries::Latent {
                down: weights.matrix(&part("q_a_proj", "weight", rank), hidden),
                bias: plan
                    .bias
                    .then(|| weights.bias(&part("q_a_proj", "bias", rank))),
                gain: weights.vector(name("q_a_layernorm.weight"), rank),
                up: weights.matrix(&part("q_b_proj", "weight", query_rows), rank),
            },
        };
        let down = "kv_a_proj_with_mqa";
        let down_rows = (rank + rope_dim) as usize;
        let up_rows = (heads * (content_dim + value_dim)) as usize;
        let values = (heads * value_dim) as usize;
        Self {
            queries,
            latents: weights.matrix(&part(down, "weight", down_rows), hidden),
            latents_bias: plan
                .bias
                .then(|| weights.bias(&part(down, "bias", down_rows))),
            weights: LatentWeights {
                up: weights.matrix(&part("kv_b_proj", "weight", up_rows), rank as usize),
                gain: weights.vector(name("kv_a_layernorm.weight"), rank as usize),
                epsilon: plan.epsilon,
            },
            output: weights.matrix(&part("o_proj", "weight", hidden), values),
            output_bias: plan
                .bias
                .then(|| weights.bias(&part("o_proj", "bias", hidden))),
            plan,
            kv,
        }
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        backend: &mut B,
        normed: &B::Activation,
    ) -> B::Activation {
        let (shape, cached) = (self.plan.shape, self.plan.cached());
        let queries = match &self.queries {
            Queries::Direct(matrix) => backend.linear(normed, *matrix, None),
            Queries::Latent {
                down,
                bias,
                gain,
                up,
            } => {
                let epsilon = self.plan.epsilon;
                let latents = backend.linear(normed, *down, *bias);
                let latents = backend.norm(&latents, *gain, Norm::Rms { epsilon });
                backend.linear(&latents, *up, None)
            }
        };
        let latents = backend.linear(normed, self.latents, self.latents_bias);
        let mut qkv = backend.latent_input(&queries, &latents, self.weights, shape);
        let transform = QueryKeyTransform {
            norm: None,
            rope: Some(self.plan.rope),
        };
        backend.rope_and_cache(&mut qkv, cached, transform, self.kv);
        let attended = backend.paged_attention(&qkv, cached, None, self.kv);
        let values = backend.latent_output(&attended, self.weights, shape);
        backend.linear(&values, self.output, self.output_bias)
    }
}
