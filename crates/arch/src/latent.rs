//! Latent attention (DeepSeek-AI 2024, "DeepSeek-V2", section 2.1), under the names of its
//! checkpoints. The cache holds latents; see `latent_input` of [`Backend`].

use backstop_kernels::backend::{
    AttentionShape, Backend, Indexer, KvLayer, LatentShape, LatentWeights, MatrixId, Norm,
    QueryKeyTransform, Rope, VectorId,
};

use crate::WeightMap;
use crate::attention::LayerCache;

/// Of the layer norm of index keys.
const INDEXER_EPSILON: f32 = 1e-6;

/// The weights of a layer's attention and what is done with them.
#[derive(Debug)]
pub(crate) struct LatentAttention {
    queries: Queries,
    latents: MatrixId,
    latents_bias: Option<VectorId>,
    weights: LatentWeights,
    indexer: Option<LayerIndexer>,
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
    /// What selects the keys of sparse attention, in the layers that have a cache of index keys.
    pub(crate) indexer: Option<IndexerPlan>,
}

/// Sizes of an indexer (DeepSeek-AI 2025, "DeepSeek-V3.2", section 2.1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexerPlan {
    /// Query heads.
    pub(crate) heads: u32,
    /// Elements of a head and of the key.
    pub(crate) head_dim: u32,
    /// Keys that a query attends to at most.
    pub(crate) chosen: u32,
}

/// The weights of a layer's indexer.
#[derive(Debug)]
struct LayerIndexer {
    queries: MatrixId,
    keys: MatrixId,
    head_weights: MatrixId,
    indexer: Indexer,
    index_keys: KvLayer,
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

impl LayerIndexer {
    /// Names the weights of the indexer at `prefix`, which reads queries' latents of `query_rank`
    /// elements.
    fn new(
        weights: &mut WeightMap,
        prefix: &str,
        [hidden, query_rank]: [usize; 2],
        plan: IndexerPlan,
        rope: Rope,
        index_keys: KvLayer,
    ) -> Self {
        let (heads, head_dim) = (plan.heads as usize, plan.head_dim as usize);
        let mut matrix = |name: &str, rows, columns| {
            weights.matrix(&[(format!("{prefix}.{name}.weight"), rows)], columns)
        };
        let queries = matrix("wq_b", heads * head_dim, query_rank);
        let keys = matrix("wk", head_dim, hidden);
        let head_weights = matrix("weights_proj", heads, hidden);
        Self {
            queries,
            keys,
            head_weights,
            indexer: Indexer {
                heads: plan.heads,
                head_dim: plan.head_dim,
                chosen: plan.chosen,
                key_gain: weights.vector(format!("{prefix}.k_norm.weight"), head_dim),
                key_bias: weights.bias(&[(format!("{prefix}.k_norm.bias"), head_dim)]),
                epsilon: INDEXER_EPSILON,
                rope,
            },
            index_keys,
        }
    }

    /// The keys that are attended to. The factors `head_dim^-0.5` and `heads^-0.5` of the
    /// reference implementation change no order.
    fn select<B: Backend>(
        &self,
        backend: &mut B,
        normed: &B::Activation,
        query_latents: &B::Activation,
    ) -> B::Selection {
        let queries = backend.linear(query_latents, self.queries, None);
        let keys = backend.linear(normed, self.keys, None);
        let head_weights = backend.linear(normed, self.head_weights, None);
        backend.select_keys(queries, &keys, &head_weights, self.indexer, self.index_keys)
    }
}

impl LatentAttention {
    pub(crate) fn new(
        weights: &mut WeightMap,
        prefix: &str,
        hidden: usize,
        plan: LatentPlan,
        cache: LayerCache,
    ) -> Self {
        let LatentShape {
            heads,
            rank,
            rope_dim,
            content_dim,
            value_dim,
        } = plan.shape;
        let indexer = plan.indexer.and_then(|indexer| {
            let prefix = format!("{prefix}.indexer");
            let columns = [hidden, plan.query_rank.unwrap_or(hidden)];
            let rope = plan.rope;
            if let Some(keys) = cache.index_keys {
                return Some(LayerIndexer::new(
                    weights, &prefix, columns, indexer, rope, keys,
                ));
            }
            // Some checkpoints have indexers in layers that do not need them.
            let mut others = WeightMap::default();
            LayerIndexer::new(&mut others, &prefix, columns, indexer, rope, cache.kv);
            weights.ignore(others);
            None
        });
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
            indexer,
            output: weights.matrix(&part("o_proj", "weight", hidden), values),
            output_bias: plan
                .bias
                .then(|| weights.bias(&part("o_proj", "bias", hidden))),
            plan,
            kv: cache.kv,
        }
    }

    /// `selection` holds the keys that the last layer with an indexer selected.
    pub(crate) fn forward<B: Backend>(
        &self,
        backend: &mut B,
        normed: &B::Activation,
        selection: &mut Option<B::Selection>,
    ) -> B::Activation {
        let (shape, cached) = (self.plan.shape, self.plan.cached());
        let queries = self.queries(backend, normed, selection);
        let latents = backend.linear(normed, self.latents, self.latents_bias);
        let mut qkv = backend.latent_input(&queries, &latents, self.weights, shape);
        let transform = QueryKeyTransform {
            norm: None,
            rope: Some(self.plan.rope),
        };
        backend.rope_and_cache(&mut qkv, cached, transform, self.kv);
        let attended = match selection {
            Some(selection) => backend.selected_attention(&qkv, cached, selection, self.kv),
            None => backend.paged_attention(&qkv, cached, None, self.kv),
        };
        let values = backend.latent_output(&attended, self.weights, shape);
        backend.linear(&values, self.output, self.output_bias)
    }

    /// The queries; an indexer selects keys by their latents.
    fn queries<B: Backend>(
        &self,
        backend: &mut B,
        normed: &B::Activation,
        selection: &mut Option<B::Selection>,
    ) -> B::Activation {
        let (down, bias, gain, up) = match self.queries {
            Queries::Direct(matrix) => return backend.linear(normed, matrix, None),
            Queries::Latent {
                down,
                bias,
                gain,
                up,
            } => (down, bias, gain, up),
        };
        let epsilon = self.plan.epsilon;
        let latents = backend.linear(normed, down, bias);
        let latents = backend.norm(&latents, gain, Norm::Rms { epsilon });
        if let Some(indexer) = &self.indexer {
            *selection = Some(indexer.select(backend, normed, &latents));
        }
        backend.linear(&latents, up, None)
    }
}
