//! Cohere2-MoE (`cohere2_moe`), the architecture of Cohere North Mini Code.
//!
//! Reference implementation: `models/cohere2_moe` of Hugging Face transformers 5.23. A layer is a
//! parallel block with one norm: `h = h + attention(norm(h)) + mlp(norm(h))`. Sliding-window layers
//! rotate queries and keys; full-attention layers use no position embedding, except in the dense
//! prefix when `prefix_dense_sliding_window_pattern` is 1.
//!
//! One deliberate difference: a layer with `sliding_window` w sees w + 1 keys, positions
//! `p - w ..= p`. That is how the model was trained (and what vLLM and SGLang compute);
//! transformers attends to w keys.

use backstop_kernels::backend::{
    AttentionShape, Backend, ExpertsId, KvLayer, MatrixId, Norm, Rope, RopePairing, RouterRule,
    RouterScoring, VectorId,
};
use backstop_types::AttentionSpan;
use backstop_weights::StrictFields;
use serde_json::{Map, Value};

use crate::registry::{ArchError, Model};
use crate::{ExpertsRequest, KvGroup, ModelSpec, WeightMap};

const ARCHITECTURE: &str = "cohere2_moe";

/// Fields that change nothing about inference, or that are read elsewhere.
const INERT: &[&str] = &[
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "bos_token_id",
    "cache_implementation",
    "dtype",
    "eos_token_id",
    "initializer_range",
    "model_type",
    "order_of_interleaved_layers",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "pad_token_id",
    "position_embedding_type",
    "quantization_config",
    "return_dict",
    "rotary_pct",
    "router_aux_loss_coef",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "use_gated_activation",
    "use_embedding_sharing",
    "use_parallel_embedding",
];

/// The model: its description and the weights of its layers.
#[derive(Debug)]
pub(crate) struct Cohere2Moe {
    spec: ModelSpec,
    norm: Norm,
    attention: AttentionShape,
    embedding: MatrixId,
    layers: Vec<Layer>,
    final_norm: VectorId,
    head: MatrixId,
    logit_scale: f32,
}

#[derive(Debug)]
struct Layer {
    norm: VectorId,
    qkv: MatrixId,
    output: MatrixId,
    rope: Option<Rope>,
    kv: KvLayer,
    mlp: Mlp,
}

#[derive(Debug)]
enum Mlp {
    Dense {
        gate_up: MatrixId,
        down: MatrixId,
    },
    Sparse {
        gate: MatrixId,
        rule: RouterRule,
        experts: ExpertsId,
        shared: Option<Shared>,
    },
}

/// Experts that every token passes through. Their sum with the routed ones is multiplied by
/// `scale`: 1 to sum, 1/2 to average.
#[derive(Debug)]
struct Shared {
    gate_up: MatrixId,
    down: MatrixId,
    scale: f32,
}

impl<B: Backend> Model<B> for Cohere2Moe {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn forward(&self, backend: &mut B) {
        let mut hidden = backend.embed(self.embedding);
        let mut normed = backend.norm(&hidden, self.layers[0].norm, self.norm);
        for (index, layer) in self.layers.iter().enumerate() {
            let attention = self.attend(backend, layer, &normed);
            let mlp = layer.mlp.forward(backend, &normed);
            let next_norm = self
                .layers
                .get(index + 1)
                .map_or(self.final_norm, |next| next.norm);
            normed = backend.add_norm(
                &mut hidden,
                [Some(attention), Some(mlp)],
                next_norm,
                self.norm,
            );
        }
        backend.head(&normed, self.head, self.logit_scale);
    }
}

impl Cohere2Moe {
    fn attend<B: Backend>(
        &self,
        backend: &mut B,
        layer: &Layer,
        normed: &B::Activation,
    ) -> B::Activation {
        let mut qkv = backend.linear(normed, layer.qkv);
        backend.rope_and_cache(&mut qkv, self.attention, layer.rope, layer.kv);
        let attended = backend.paged_attention(&qkv, self.attention, layer.kv);
        backend.linear(&attended, layer.output)
    }
}

impl Mlp {
    fn forward<B: Backend>(&self, backend: &mut B, normed: &B::Activation) -> B::Activation {
        match self {
            Self::Dense { gate_up, down } => backend.gated_mlp(normed, *gate_up, *down),
            Self::Sparse {
                gate,
                rule,
                experts,
                shared,
            } => {
                let routing = backend.router(normed, *gate, *rule);
                let routed = backend.experts(normed, routing, *experts);
                match shared {
                    None => routed,
                    Some(Shared {
                        gate_up,
                        down,
                        scale,
                    }) => {
                        let shared = backend.gated_mlp(normed, *gate_up, *down);
                        backend.add_scaled(routed, shared, *scale)
                    }
                }
            }
        }
    }
}

/// `config.json`, read and checked.
#[derive(Debug)]
struct Config {
    vocab_size: u32,
    max_position_embeddings: u32,
    hidden: usize,
    expert_width: usize,
    dense_width: usize,
    norm: Norm,
    attention: AttentionShape,
    rope: Rope,
    layers: Vec<LayerKind>,
    /// Keys that a sliding layer sees.
    visible_keys: u32,
    rule: RouterRule,
    num_experts: usize,
    num_shared_experts: usize,
    shared_scale: f32,
    tied: bool,
    logit_scale: f32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct LayerKind {
    sliding: bool,
    dense: bool,
    rope: bool,
}

impl Config {
    fn read(config: &Map<String, Value>) -> Result<Self, ArchError> {
        let mut fields = StrictFields::new("config.json", config);
        let read = Self::read_fields(&mut fields);
        match (read, fields.finish(INERT)) {
            (Some(config), Ok(())) => Ok(config),
            (_, result) => Err(ArchError::Config {
                architecture: ARCHITECTURE,
                problems: result.err().unwrap_or_default(),
            }),
        }
    }

    /// Reads every field, so that all problems are reported at once; `None` if there were any.
    /// Defaults are those of the reference implementation's configuration class.
    fn read_fields(fields: &mut StrictFields<'_>) -> Option<Self> {
        let heads = fields.u32("num_attention_heads");
        let attention = AttentionShape {
            heads,
            kv_heads: fields.optional_u32("num_key_value_heads").unwrap_or(heads),
            head_dim: fields.optional_u32("head_dim").unwrap_or(128),
            scale: 0.0,
        };
        let attention = AttentionShape {
            scale: (attention.head_dim as f32).powf(-0.5),
            ..attention
        };
        let layers = read_layers(fields);
        let intermediate_size = fields.u32("intermediate_size") as usize;
        let config = Self {
            vocab_size: fields.u32("vocab_size"),
            max_position_embeddings: fields
                .optional_u32("max_position_embeddings")
                .unwrap_or(8192),
            hidden: fields.u32("hidden_size") as usize,
            expert_width: intermediate_size,
            dense_width: fields
                .optional_u32("prefix_dense_intermediate_size")
                .map_or(intermediate_size, |width| width as usize),
            norm: read_norm(fields),
            attention,
            rope: read_rope(fields),
            visible_keys: fields
                .optional_u32("sliding_window")
                .unwrap_or(4096)
                .saturating_add(1),
            layers,
            rule: read_router(fields),
            num_experts: fields.optional_u32("num_experts").unwrap_or(8) as usize,
            num_shared_experts: fields.optional_u32("num_shared_experts").unwrap_or(0) as usize,
            shared_scale: read_shared_scale(fields),
            tied: fields.optional_bool("tie_word_embeddings").unwrap_or(true),
            logit_scale: fields.optional_f64("logit_scale").unwrap_or(0.0625) as f32,
        };
        refuse_unimplemented(fields);
        config.check(fields);
        fields.problems().is_empty().then_some(config)
    }

    fn check(&self, fields: &mut StrictFields<'_>) {
        let attention = self.attention;
        if attention.kv_heads == 0 || !attention.heads.is_multiple_of(attention.kv_heads) {
            fields.problem("num_attention_heads must be a multiple of num_key_value_heads");
        }
        if attention.head_dim == 0 || !attention.head_dim.is_multiple_of(2) {
            fields.problem("head_dim must be even and positive");
        }
        if self.hidden == 0 || self.vocab_size == 0 || self.expert_width == 0 {
            fields.problem("hidden_size, vocab_size and intermediate_size must be positive");
        }
        if self.layers.is_empty() {
            fields.problem("num_hidden_layers must be positive");
        }
        let chosen = self.rule.top_k as usize;
        if self.layers.iter().any(|layer| !layer.dense) && !(1..=self.num_experts).contains(&chosen)
        {
            fields.problem("num_experts_per_tok must lie between 1 and num_experts");
        }
    }
}

/// RMSNorm if `rms_norm_eps` is set, else LayerNorm. Both have the same parameters, so that the
/// wrong one would load silently.
fn read_norm(fields: &mut StrictFields<'_>) -> Norm {
    let layer_norm_eps = fields.optional_f64("layer_norm_eps").unwrap_or(1e-5) as f32;
    match fields.optional_f64("rms_norm_eps") {
        Some(epsilon) => Norm::Rms {
            epsilon: epsilon as f32,
        },
        None => Norm::LayerWithoutBias {
            epsilon: layer_norm_eps,
        },
    }
}

/// Newer configurations write `rope_parameters`, older ones `rope_theta` and `rope_scaling`.
fn read_rope(fields: &mut StrictFields<'_>) -> Rope {
    let theta = fields.optional_f64("rope_theta");
    let mut nested_theta = None;
    for name in ["rope_parameters", "rope_scaling"] {
        let Some(mut nested) = fields.optional_object(name) else {
            continue;
        };
        nested_theta = nested_theta.or(nested.optional_f64("rope_theta"));
        nested.only("rope_type", &Value::from("default"));
        nested.only("type", &Value::from("default"));
        nested.only("partial_rotary_factor", &Value::from(1.0));
        fields.absorb(nested, &[]);
    }
    if let (Some(a), Some(b)) = (theta, nested_theta)
        && (a - b).abs() > 1e-6 * a.abs()
    {
        fields.problem("rope_theta and rope_parameters.rope_theta contradict each other");
    }
    let theta = theta.or(nested_theta).unwrap_or(10_000.0) as f32;
    Rope {
        theta,
        pairing: RopePairing::Interleaved,
    }
}

fn read_router(fields: &mut StrictFields<'_>) -> RouterRule {
    let top_k = fields.optional_u32("num_experts_per_tok").unwrap_or(2);
    let norm_topk_prob = fields.optional_bool("norm_topk_prob").unwrap_or(true);
    let selection = fields.optional_string("expert_selection_fn");
    match selection.as_deref().unwrap_or("softmax") {
        "sigmoid" => RouterRule {
            top_k,
            scoring: RouterScoring::Sigmoid,
            renormalise: norm_topk_prob,
        },
        other => {
            if other != "softmax" {
                fields.problem("expert_selection_fn must be \"softmax\" or \"sigmoid\"");
            }
            // The reference takes the softmax over the chosen logits alone and reads
            // `norm_topk_prob` for sigmoid only. That softmax is the one over all experts,
            // renormalised.
            RouterRule {
                top_k,
                scoring: RouterScoring::Softmax,
                renormalise: true,
            }
        }
    }
}

fn read_shared_scale(fields: &mut StrictFields<'_>) -> f32 {
    match fields
        .optional_string("shared_expert_combination_strategy")
        .as_deref()
    {
        None | Some("average") => 0.5,
        Some("sum") => 1.0,
        Some(_) => {
            fields.problem("shared_expert_combination_strategy must be \"average\" or \"sum\"");
            0.0
        }
    }
}

fn refuse_unimplemented(fields: &mut StrictFields<'_>) {
    fields.only("attention_bias", &Value::from(false));
    fields.only("use_qk_norm", &Value::from(false));
    fields.only("use_parallel_block", &Value::from(true));
    fields.only("hidden_act", &Value::from("silu"));
}

/// Attention and MLP kind of each layer, from explicit lists or from the patterns that the
/// reference implementation derives them from.
fn read_layers(fields: &mut StrictFields<'_>) -> Vec<LayerKind> {
    let num_layers = fields.u32("num_hidden_layers") as usize;
    if num_layers > 4096 {
        fields.problem("num_hidden_layers must be at most 4096");
        return Vec::new();
    }
    let prefix = fields.optional_u32("first_k_dense_replace").unwrap_or(0) as usize;
    let prefix_pattern = fields
        .optional_u32("prefix_dense_sliding_window_pattern")
        .unwrap_or(1);
    let pattern = fields.optional_u32("sliding_window_pattern").unwrap_or(4);
    if pattern == 0 || prefix_pattern == 0 {
        fields.problem("sliding-window patterns must be positive");
        return Vec::new();
    }
    let sliding = read_kinds(
        fields,
        "layer_types",
        ["full_attention", "sliding_attention"],
    );
    let dense = read_kinds(fields, "mlp_layer_types", ["sparse", "dense"]);
    for (name, kinds) in [("layer_types", &sliding), ("mlp_layer_types", &dense)] {
        if kinds
            .as_ref()
            .is_some_and(|kinds| kinds.len() != num_layers)
        {
            fields.problem(format!("{name} must have num_hidden_layers entries"));
            return Vec::new();
        }
    }
    let layer = |index: usize| {
        let dense = dense.as_ref().map_or(index < prefix, |kinds| kinds[index]);
        let derived = match index.checked_sub(prefix) {
            None => !(index + 1).is_multiple_of(prefix_pattern as usize),
            Some(rest) => !(rest + 1).is_multiple_of(pattern as usize),
        };
        let sliding = sliding.as_ref().map_or(derived, |kinds| kinds[index]);
        LayerKind {
            sliding,
            dense,
            rope: sliding || (dense && prefix_pattern == 1),
        }
    };
    (0..num_layers).map(layer).collect()
}

/// A list of two-valued strings: `true` where the second value stands.
fn read_kinds(fields: &mut StrictFields<'_>, name: &str, values: [&str; 2]) -> Option<Vec<bool>> {
    let strings = fields.optional_string_list(name)?;
    if strings.iter().any(|kind| !values.contains(&kind.as_str())) {
        fields.problem(format!(
            "{name} may hold only {:?} and {:?}",
            values[0], values[1]
        ));
    }
    Some(strings.iter().map(|kind| kind == values[1]).collect())
}

impl Cohere2Moe {
    /// Reads the configuration and lays out the weights.
    pub(crate) fn from_config(config: &Map<String, Value>) -> Result<Self, ArchError> {
        let config = Config::read(config)?;
        let mut weights = WeightMap::default();
        let vocabulary = config.vocab_size as usize;
        let embed = "model.embed_tokens.weight".to_owned();
        let embedding = weights.matrix(&[(embed, vocabulary)], config.hidden);
        let groups = Groups::new(&config.layers);
        let layers = (0..config.layers.len())
            .map(|index| Layer::new(&config, &groups, index, &mut weights))
            .collect();
        let final_norm = weights.vector("model.norm.weight", config.hidden);
        let head_name = "lm_head.weight".to_owned();
        let head = if config.tied {
            // A tied checkpoint may still carry a copy.
            weights
                .ignored
                .push((head_name, vec![vocabulary, config.hidden]));
            embedding
        } else {
            weights.matrix(&[(head_name, vocabulary)], config.hidden)
        };
        let spec = ModelSpec {
            architecture: ARCHITECTURE,
            vocabulary_size: config.vocab_size,
            max_position_embeddings: config.max_position_embeddings,
            kv_groups: groups.specs(&config),
            chat_format: "cohere_cmd4",
            weights,
        };
        Ok(Self {
            spec,
            norm: config.norm,
            attention: config.attention,
            embedding,
            layers,
            final_norm,
            head,
            logit_scale: config.logit_scale,
        })
    }
}

/// Assignment of layers to KV groups: full attention first, then sliding; none is empty.
#[derive(Debug)]
struct Groups {
    layers: Vec<KvLayer>,
    num_full: u32,
    num_sliding: u32,
}

impl Groups {
    fn new(kinds: &[LayerKind]) -> Self {
        let sliding_group = u32::from(kinds.iter().any(|kind| !kind.sliding));
        let mut groups = Self {
            layers: Vec::new(),
            num_full: 0,
            num_sliding: 0,
        };
        for kind in kinds {
            let (group, count) = if kind.sliding {
                (sliding_group, &mut groups.num_sliding)
            } else {
                (0, &mut groups.num_full)
            };
            groups.layers.push(KvLayer {
                group,
                layer_in_group: *count,
            });
            *count += 1;
        }
        groups
    }

    fn specs(&self, config: &Config) -> Vec<KvGroup> {
        let sliding = AttentionSpan::Sliding {
            visible_keys: config.visible_keys,
        };
        [
            (AttentionSpan::Full, self.num_full),
            (sliding, self.num_sliding),
        ]
        .into_iter()
        .filter(|(_, num_layers)| *num_layers > 0)
        .map(|(span, num_layers)| KvGroup {
            span,
            num_layers,
            kv_heads: config.attention.kv_heads,
            head_dim: config.attention.head_dim,
        })
        .collect()
    }
}

impl Layer {
    fn new(config: &Config, groups: &Groups, index: usize, weights: &mut WeightMap) -> Self {
        let kind = config.layers[index];
        let prefix = format!("model.layers.{index}");
        let attention = config.attention;
        let query_rows = (attention.heads * attention.head_dim) as usize;
        let kv_rows = (attention.kv_heads * attention.head_dim) as usize;
        let projection = |name: &str| format!("{prefix}.self_attn.{name}_proj.weight");
        let qkv = [
            (projection("q"), query_rows),
            (projection("k"), kv_rows),
            (projection("v"), kv_rows),
        ];
        Self {
            norm: weights.vector(format!("{prefix}.input_layernorm.weight"), config.hidden),
            qkv: weights.matrix(&qkv, config.hidden),
            output: weights.matrix(&[(projection("o"), config.hidden)], query_rows),
            rope: kind.rope.then_some(config.rope),
            kv: groups.layers[index],
            mlp: Mlp::new(config, kind, &format!("{prefix}.mlp"), weights),
        }
    }
}

impl Mlp {
    fn new(config: &Config, kind: LayerKind, prefix: &str, weights: &mut WeightMap) -> Self {
        if kind.dense {
            let (gate_up, down) = gated(weights, prefix, config.hidden, config.dense_width);
            return Self::Dense { gate_up, down };
        }
        let gate = format!("{prefix}.gate.weight");
        let gate = weights.router(gate, config.num_experts, config.hidden);
        let experts = weights.experts(ExpertsRequest {
            prefix: format!("{prefix}.experts"),
            num_experts: config.num_experts,
            hidden: config.hidden,
            width: config.expert_width,
        });
        let shared = (config.num_shared_experts > 0).then(|| {
            let width = config.expert_width * config.num_shared_experts;
            let prefix = format!("{prefix}.shared_experts");
            let (gate_up, down) = gated(weights, &prefix, config.hidden, width);
            Shared {
                gate_up,
                down,
                scale: config.shared_scale,
            }
        });
        Self::Sparse {
            gate,
            rule: config.rule,
            experts,
            shared,
        }
    }
}

/// A gated MLP's weights: gate and up stacked, and down.
fn gated(
    weights: &mut WeightMap,
    prefix: &str,
    hidden: usize,
    width: usize,
) -> (MatrixId, MatrixId) {
    let name = |projection: &str| format!("{prefix}.{projection}_proj.weight");
    let gate_up = weights.gate_up([name("gate"), name("up")], width, hidden);
    let down = weights.matrix(&[(name("down"), hidden)], width);
    (gate_up, down)
}
