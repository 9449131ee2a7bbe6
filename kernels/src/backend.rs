//! The operations that model architectures are written in.
//!
//! An architecture names its weights once ([`MatrixId`], [`VectorId`], [`ExpertsId`]) and then
//! computes with them through [`Backend`]; where the weights live and in which number format is
//! the backend's business. Shapes are written `[rows, columns]`, row-major.
//!
//! Rule for every implementation: one row's result never depends on the other rows of the batch,
//! not even in the last bit. Accumulation order is fixed per output element.

use crate::Feature;

/// A one-dimensional weight, such as a norm's gain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorId(pub u32);

/// A weight matrix `[outputs, inputs]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixId(pub u32);

/// The routed experts of one layer: gate and up `[experts, 2 * width, hidden]` (gate rows first,
/// then up rows) and down `[experts, hidden, width]`, both with or without biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertsId(pub u32);

/// One layer's part of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayer {
    /// Index of the attention group in `KvSpec::groups`.
    pub group: u32,
    /// Index of the layer within its group.
    pub layer_in_group: u32,
}

/// Which normalisation, over the last dimension, in f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// `x / sqrt(mean(x^2) + epsilon) * weight` (Zhang & Sennrich 2019).
    Rms {
        /// Added to the mean square.
        epsilon: f32,
    },
    /// `(x - mean(x)) / sqrt(var(x) + epsilon) * weight`, without a bias.
    LayerWithoutBias {
        /// Added to the variance.
        epsilon: f32,
    },
}

impl Norm {
    /// What is added to the mean square or to the variance.
    pub fn epsilon(&self) -> f32 {
        match *self {
            Self::Rms { epsilon } | Self::LayerWithoutBias { epsilon } => epsilon,
        }
    }
}

/// Head counts of a layer. Query head `h` reads key-value head `h / (heads / kv_heads)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: u32,
    /// Key-value heads; divides `heads`.
    pub kv_heads: u32,
    /// Elements of one head.
    pub head_dim: u32,
    /// Factor on query-key products, usually `head_dim^-0.5`.
    pub scale: f32,
}

/// Rotary position embedding (Su et al. 2021) of the first elements of each head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of wavelengths.
    pub theta: f32,
    /// Elements of a head that are rotated, an even number; those behind them are left alone.
    pub dimensions: u32,
    /// How elements are paired.
    pub pairing: RopePairing,
    /// How the wavelengths are stretched for sequences longer than those of the training.
    pub scaling: RopeScaling,
}

/// What is done to the inverse frequencies `theta^(-2i / dimensions)`; the formulas are those of
/// `modeling_rope_utils.py` of Hugging Face transformers 5.23.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Nothing.
    None,
    /// All are divided by `factor` (position interpolation, Chen et al. 2023).
    Linear {
        /// How much longer sequences may be.
        factor: f32,
    },
    /// Llama 3.1: long wavelengths are divided by `factor`, short ones kept, and those between
    /// interpolated.
    Llama3 {
        /// How much longer sequences may be.
        factor: f32,
        /// Wavelengths of more than `original_positions` over this are long.
        low_frequency_factor: f32,
        /// Wavelengths of less than `original_positions` over this are short.
        high_frequency_factor: f32,
        /// Longest sequence of the first training.
        original_positions: f32,
    },
    /// YaRN (Peng et al. 2023): interpolated by dimension, and both functions scaled.
    Yarn {
        /// How much longer sequences may be.
        factor: f32,
        /// Turns over `original_positions` above which nothing is interpolated.
        beta_fast: f32,
        /// Turns over `original_positions` below which everything is.
        beta_slow: f32,
        /// Longest sequence of the first training.
        original_positions: f32,
        /// Round the bounds between the two to whole dimensions.
        truncate: bool,
        /// Factor on cosines and sines.
        magnitude: f32,
    },
}

/// What is done to queries and keys before they are compared, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QueryKeyTransform {
    /// RMSNorm of each head.
    pub norm: Option<QueryKeyNorm>,
    /// Rotation.
    pub rope: Option<Rope>,
}

/// RMSNorm over the elements of each head of the queries and of the keys (Henry et al. 2020;
/// Qwen3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueryKeyNorm {
    /// Gain of all query heads, `[head_dim]`.
    pub query: VectorId,
    /// Gain of all key heads, `[head_dim]`.
    pub key: VectorId,
    /// Added to the mean square.
    pub epsilon: f32,
}

/// Which two elements of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairing {
    /// Elements `2i` and `2i + 1` (GPT-J; Cohere).
    Interleaved,
    /// Elements `i` and `i + dimensions / 2` (GPT-NeoX; Llama).
    Halves,
}

/// How router logits become expert weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RouterRule {
    /// Experts per token.
    pub top_k: u32,
    /// Score of an expert.
    pub scoring: RouterScoring,
    /// Divide the chosen scores by their sum.
    pub renormalise: bool,
    /// Factor on the weights, at last.
    pub factor: f32,
    /// Choose among the best groups of experts only.
    pub groups: Option<RouterGroups>,
}

/// Groups of experts with consecutive numbers (DeepSeek-AI 2024, "DeepSeek-V3", section 2.1.2). A
/// group is as good as its two best experts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterGroups {
    /// How many; divides the number of experts, and leaves two for each.
    pub count: u32,
    /// How many are chosen from.
    pub chosen: u32,
}

/// The weights of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterWeights {
    /// `[experts, hidden]`: the logits' factor.
    pub gate: MatrixId,
    /// `[experts]`: added to the logits.
    pub bias: Option<VectorId>,
    /// `[experts]`: added to the scores when experts are chosen, and not when they are weighed.
    pub correction: Option<VectorId>,
}

/// Sizes of latent attention (DeepSeek-AI 2024, "DeepSeek-V2", section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatentShape {
    /// Query heads; all read the same latents.
    pub heads: u32,
    /// Elements of a latent.
    pub rank: u32,
    /// Elements of a head's key that are rotated, and that all heads share.
    pub rope_dim: u32,
    /// Elements of a head's key that come from the latent.
    pub content_dim: u32,
    /// Elements of a head's value.
    pub value_dim: u32,
}

impl LatentShape {
    /// Elements that the cache keeps for a position, as one key-value head.
    pub fn head_dim(&self) -> u32 {
        self.rope_dim + self.rank
    }
}

/// The weights between latents and heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatentWeights {
    /// `[heads * (content_dim + value_dim), rank]`.
    pub up: MatrixId,
    /// `[rank]`: gain of the latents' RMSNorm.
    pub gain: VectorId,
    /// Added to the mean square.
    pub epsilon: f32,
}

/// What chooses the keys of sparse attention (DeepSeek-AI 2025, "DeepSeek-V3.2", section 2.1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Indexer {
    /// Query heads; all read the same key.
    pub heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// Positions that a query attends to at most.
    pub chosen: u32,
    /// `[head_dim]`: gain of the keys' layer norm.
    pub key_gain: VectorId,
    /// `[head_dim]`: bias of the keys' layer norm.
    pub key_bias: VectorId,
    /// Added to the variance.
    pub epsilon: f32,
    /// Rotation of the first elements of heads and keys.
    pub rope: Rope,
}

/// Score of an expert given its router logit. Ties go to the expert with the smaller index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterScoring {
    /// `1 / (1 + exp(-logit))`, each expert by itself.
    Sigmoid,
    /// Softmax over all experts.
    Softmax,
}

/// How the gate and up projections of an expert become the input of its down projection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GatedActivation {
    /// `silu(gate) * up` (Shazeer 2020).
    Swiglu,
    /// `gate * sigmoid(alpha * gate) * (up + 1)`, of a gate that is at most `limit` and an up of
    /// at most that magnitude (gpt-oss; `models/gpt_oss` of Hugging Face transformers 5.23).
    ClampedSwiglu {
        /// Steepness of the sigmoid.
        alpha: f32,
        /// Where both projections are cut.
        limit: f32,
    },
}

/// The selections of backends without sparse attention: there are none.
#[derive(Debug)]
pub enum NoSelection {}

/// The fused operations of a transformer step over one batch.
///
/// The batch (token ids, positions, block tables, rows whose logits are wanted) is set on the
/// backend before a step. Activations have one row for each token of the batch. What a backend is able to do of all this
/// it states as [`Abilities`](crate::Abilities); of the operations at the end, it implements those whose [`Feature`] it
/// has.
pub trait Backend {
    /// A `[tokens, width]` matrix of activations.
    type Activation;
    /// Chosen experts and their weights for each token.
    type Routing;
    /// The positions that each token attends to; [`NoSelection`] of those without sparse attention.
    type Selection;

    /// Rows of `table` for the batch's token ids.
    fn embed(&mut self, table: MatrixId) -> Self::Activation;

    /// `norm(hidden) * weight`.
    fn norm(&mut self, hidden: &Self::Activation, weight: VectorId, norm: Norm)
    -> Self::Activation;

    /// `hidden += a` (and `+= b`), then `norm(hidden) * weight`.
    fn add_norm(
        &mut self,
        hidden: &mut Self::Activation,
        addends: [Option<Self::Activation>; 2],
        weight: VectorId,
        norm: Norm,
    ) -> Self::Activation;

    /// `input * weight^T`, and `+ bias` (`[outputs]`) if there is one.
    fn linear(
        &mut self,
        input: &Self::Activation,
        weight: MatrixId,
        bias: Option<VectorId>,
    ) -> Self::Activation;

    /// Transforms queries and keys of `qkv` (`[tokens, (heads + 2 * kv_heads) * head_dim]`,
    /// queries first, then keys, then values), and writes keys and values to the cache.
    fn rope_and_cache(
        &mut self,
        qkv: &mut Self::Activation,
        shape: AttentionShape,
        transform: QueryKeyTransform,
        layer: KvLayer,
    );

    /// Attention of the queries in `qkv` over the cache; `[tokens, heads * head_dim]`.
    /// The layer's group says which positions are visible. `sinks` (`[heads]`) are scores, one for
    /// each head, that take part in the softmax beside those of the keys and have no value (Xiao
    /// et al. 2023; gpt-oss).
    fn paged_attention(
        &mut self,
        qkv: &Self::Activation,
        shape: AttentionShape,
        sinks: Option<VectorId>,
        layer: KvLayer,
    ) -> Self::Activation;

    /// Chooses experts from the logits `input * gate^T` (`+ bias`), all in f32.
    fn router(
        &mut self,
        input: &Self::Activation,
        weights: RouterWeights,
        rule: RouterRule,
    ) -> Self::Routing;

    /// Weighted sum over each token's experts of `down(activation(gate(x), up(x)))`.
    fn experts(
        &mut self,
        input: &Self::Activation,
        routing: Self::Routing,
        experts: ExpertsId,
        activation: GatedActivation,
    ) -> Self::Activation;

    /// `down(silu(gate(x)) * up(x))`; `gate_up` holds the gate rows first, then the up rows.
    fn gated_mlp(
        &mut self,
        input: &Self::Activation,
        gate_up: MatrixId,
        down: MatrixId,
    ) -> Self::Activation;

    /// `(a + b) * scale`.
    fn add_scaled(
        &mut self,
        a: Self::Activation,
        b: Self::Activation,
        scale: f32,
    ) -> Self::Activation;

    /// Logits `(input * head^T) * scale` of the rows that the batch samples, kept in f32 on the
    /// backend for the sampling operation.
    fn head(&mut self, input: &Self::Activation, head: MatrixId, scale: f32);

    /// Norms, rotates and caches the index keys (`[tokens, head_dim]`), and chooses for each token
    /// the `chosen` positions, its own among those to choose from, with the largest
    /// `sum over heads h of head_weights_h * max(0, query_h . key)`; of equal ones the earlier.
    /// `queries` is `[tokens, heads * head_dim]`, `head_weights` is `[tokens, heads]`. The layer's
    /// group keeps keys alone.
    #[expect(
        unused_variables,
        reason = "only models that need the feature come here"
    )]
    fn select_keys(
        &mut self,
        queries: Self::Activation,
        keys: &Self::Activation,
        head_weights: &Self::Activation,
        indexer: Indexer,
        layer: KvLayer,
    ) -> Self::Selection {
        unreachable!("{}", Feature::SparseAttention)
    }

    /// As `paged_attention`, of each token over the positions that were chosen for it.
    #[expect(
        unused_variables,
        reason = "only models that need the feature come here"
    )]
    fn selected_attention(
        &mut self,
        qkv: &Self::Activation,
        shape: AttentionShape,
        selection: &Self::Selection,
        layer: KvLayer,
    ) -> Self::Activation {
        unreachable!("{}", Feature::SparseAttention)
    }

    /// Queries, key and value of latent attention over latents, for `rope_and_cache` with one
    /// key-value head of [`LatentShape::head_dim`] elements, of which the first `rope_dim` are to
    /// be rotated. `queries` is `[tokens, heads * (content_dim + rope_dim)]`, `latents` is
    /// `[tokens, rank + rope_dim]`.
    #[expect(
        unused_variables,
        reason = "only models that need the feature come here"
    )]
    fn latent_input(
        &mut self,
        queries: &Self::Activation,
        latents: &Self::Activation,
        weights: LatentWeights,
        shape: LatentShape,
    ) -> Self::Activation {
        unreachable!("{}", Feature::LatentAttention)
    }

    /// Values `[tokens, heads * value_dim]` from what attention over latents gives.
    #[expect(
        unused_variables,
        reason = "only models that need the feature come here"
    )]
    fn latent_output(
        &mut self,
        attended: &Self::Activation,
        weights: LatentWeights,
        shape: LatentShape,
    ) -> Self::Activation {
        unreachable!("{}", Feature::LatentAttention)
    }
}

/// What draft heads compute with beside the operations of models.
pub trait DraftBackend: Backend {
    /// Rows beside one another: row `i` of `left`, and behind it row `rows[i]` of `right`.
    fn concatenate(
        &mut self,
        left: &Self::Activation,
        right: &Self::Activation,
        rows: &[u32],
    ) -> Self::Activation;
}
