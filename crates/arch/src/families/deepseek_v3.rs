//! DeepSeek-V3 (`deepseek_v3`): latent attention, experts in groups with corrected scores, shared
//! experts.
//!
//! Reference implementation: `models/deepseek_v3` of Hugging Face transformers 5.23. The layers that
//! predict further tokens are left out. Other families are built alike; their files say what is
//! different.

use backstop_kernels::backend::{
    LatentShape, RopePairing, RouterGroups, RouterRule, RouterScoring,
};
use backstop_weights::StrictFields;
use serde_json::{Map, Value};

use crate::AnyModel;
use crate::attention::AttentionPlan;
use crate::config::{self, DecoderShape, ShapeDefaults, UnreadFields, WithUnread};
use crate::decoder::{Decoder, DecoderPlan, LayerPlan, MlpPlan};
use crate::latent::{IndexerPlan, LatentPlan};
use crate::mlp::{RouterNames, SparsePlan};
use crate::registry::{ArchError, Architecture};
use crate::rope::{self, RopeDefaults};

pub(crate) const FAMILY: Family = Family::new("deepseek_v3");

/// Fields of the training, of other programs, or that follow from others.
pub(super) const UNREAD: UnreadFields = UnreadFields {
    inert: &[
        "aux_loss_alpha",
        "ep_size",
        "head_dim",
        // Layers that predict further tokens are behind the last and left out.
        "num_mtp_layers",
        "num_nextn_predict_layers",
        "pretraining_tp",
        "qk_head_dim",
        "seq_aux",
    ],
    // Other names for `n_routed_experts`.
    not_computed: &["num_experts", "num_local_experts"],
};

/// Of the latents' norms, whatever `rms_norm_eps` says of the others.
const LATENT_EPSILON: f32 = 1e-6;

/// Largest of the sizes that make up heads: no product of a few of them overflows.
pub(crate) const SIZE_MAX: u32 = 1 << 12;

/// What families that are built alike differ in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) chat_format: &'static str,
    pub(crate) rms_norm_epsilon: f64,
    pub(crate) max_position_embeddings: u32,
    /// Reads which of so many layers are dense.
    pub(crate) read_dense: fn(&mut StrictFields<'_>, usize) -> Vec<bool>,
    /// Reads what selects the keys of so many layers, if their attention is sparse.
    pub(crate) read_indexers: Option<fn(&mut StrictFields<'_>, usize) -> Indexers>,
}

/// What selects the keys of sparse attention.
#[derive(Clone, Debug)]
pub(crate) struct Indexers {
    pub(crate) plan: IndexerPlan,
    /// The layers that have one.
    pub(crate) layers: Vec<bool>,
}

impl Family {
    /// DeepSeek-V3 under another name.
    pub(crate) const fn new(name: &'static str) -> Self {
        Self {
            name,
            chat_format: "plain",
            rms_norm_epsilon: 1e-6,
            max_position_embeddings: 4096,
            read_dense: read_dense_prefix,
            read_indexers: None,
        }
    }

    /// Reads what a model of the family computes.
    pub(super) fn plan(&self, fields: &mut StrictFields<'_>) -> DecoderPlan {
        let defaults = ShapeDefaults {
            // Heads are made up of other fields.
            head_dim: Some(64),
            ..ShapeDefaults::new(self.max_position_embeddings)
        };
        let shape = DecoderShape::read(fields, defaults);
        if shape.attention.kv_heads != shape.attention.heads {
            fields.problem("num_key_value_heads must be num_attention_heads");
        }
        fields.only("hidden_act", &Value::from("silu"));
        let num_layers = shape.layers(|_| ()).len();
        let indexers = self.read_indexers.map(|read| read(fields, num_layers));
        let norm = config::rms_norm(fields, self.rms_norm_epsilon);
        let dense = MlpPlan::Dense(config::width(fields, "intermediate_size"));
        let sparse = MlpPlan::Sparse(read_experts(fields));
        let kinds = (self.read_dense)(fields, num_layers);
        let selects = |layer: usize| indexers.as_ref().is_some_and(|own| own.layers[layer]);
        let layer = |(index, &is_dense): (usize, &bool)| LayerPlan {
            selects_keys: selects(index),
            ..LayerPlan::new(if is_dense { dense } else { sparse })
        };
        let attention = LatentPlan {
            indexer: indexers.as_ref().map(|own| own.plan),
            ..read_attention(fields, &shape)
        };
        if attention
            .indexer
            .is_some_and(|own| own.head_dim < attention.rope.dimensions)
        {
            fields.problem("index_head_dim must be at least qk_rope_head_dim");
        }
        DecoderPlan {
            chat_format: self.chat_format,
            layers: kinds.iter().enumerate().map(layer).collect(),
            ..DecoderPlan::new(self.name, shape, norm, AttentionPlan::Latent(attention))
        }
    }
}

impl Architecture for Family {
    fn name(&self) -> &'static str {
        self.name
    }

    fn read(&self, config: &Map<String, Value>) -> Result<WithUnread<AnyModel>, ArchError> {
        let read = config::read(self.name, config, UNREAD, |fields| self.plan(fields));
        read.map(|(plan, unread)| (Decoder::new(&plan).into(), unread))
    }
}

/// The first layers are dense.
pub(crate) fn read_dense_prefix(fields: &mut StrictFields<'_>, num_layers: usize) -> Vec<bool> {
    let dense = fields.optional_u32("first_k_dense_replace").unwrap_or(3) as usize;
    (0..num_layers).map(|layer| layer < dense).collect()
}

fn read_attention(fields: &mut StrictFields<'_>, shape: &DecoderShape) -> LatentPlan {
    let mut size = |name: &str| {
        let size = fields.u32(name);
        if size == 0 || size > SIZE_MAX {
            fields.problem(format!("{name} must lie between 1 and {SIZE_MAX}"));
        }
        size.clamp(1, SIZE_MAX)
    };
    let latent = LatentShape {
        heads: shape.attention.heads.min(SIZE_MAX),
        rank: size("kv_lora_rank"),
        rope_dim: size("qk_rope_head_dim"),
        content_dim: size("qk_nope_head_dim"),
        value_dim: size("v_head_dim"),
    };
    if !latent.rope_dim.is_multiple_of(2) {
        fields.problem("qk_rope_head_dim must be even");
    }
    let query_rank = fields.optional_u32("q_lora_rank");
    let is_size = |rank: u32| (1..=SIZE_MAX).contains(&rank);
    if !fields.contains("q_lora_rank") || !query_rank.is_none_or(is_size) {
        fields.problem(format!(
            "q_lora_rank must lie between 1 and {SIZE_MAX}, or be null"
        ));
    }
    let interleaved = fields.optional_bool("rope_interleave").unwrap_or(true);
    let rope = rope::read(
        fields,
        RopeDefaults {
            head_dim: latent.rope_dim,
            pairing: match interleaved {
                true => RopePairing::Interleaved,
                false => RopePairing::Halves,
            },
            ..RopeDefaults::halves(shape, 10_000.0)
        },
    );
    let head_dim = (latent.content_dim + latent.rope_dim) as f32;
    LatentPlan {
        shape: latent,
        query_rank: query_rank.map(|rank| rank as usize),
        scale: head_dim.powf(-0.5) * rope::yarn_score_factor(fields, &rope),
        rope,
        bias: config::flag(fields, "attention_bias"),
        epsilon: LATENT_EPSILON,
        indexer: None,
    }
}

fn read_experts(fields: &mut StrictFields<'_>) -> SparsePlan {
    fields.only("scoring_func", &Value::from("sigmoid"));
    fields.only("topk_method", &Value::from("noaux_tc"));
    fields.only("moe_layer_freq", &Value::from(1));
    let num_experts = config::num_experts(fields, "n_routed_experts", None);
    let width = config::width(fields, "moe_intermediate_size");
    let num_shared = config::num_experts(fields, "n_shared_experts", None);
    let groups = RouterGroups {
        count: fields.optional_u32("n_group").unwrap_or(1),
        chosen: fields.optional_u32("topk_group").unwrap_or(1),
    };
    let count = groups.count as usize;
    let size = num_experts.checked_div(count).unwrap_or(0);
    if size < 2 || size * count != num_experts {
        fields.problem("n_group must divide n_routed_experts into groups of at least two");
    }
    if groups.chosen == 0 || groups.chosen > groups.count {
        fields.problem("topk_group must lie between 1 and n_group");
    }
    let candidates = size.saturating_mul(groups.chosen as usize);
    let rule = RouterRule {
        top_k: config::experts_per_token(fields, None, candidates),
        scoring: RouterScoring::Sigmoid,
        renormalise: fields.optional_bool("norm_topk_prob").unwrap_or(true),
        factor: fields.f64("routed_scaling_factor") as f32,
        groups: (groups.count > 1).then_some(groups),
    };
    SparsePlan {
        router: RouterNames::Corrected,
        shared: Some((width * num_shared, 1.0)),
        ..SparsePlan::new(num_experts, width, rule)
    }
}
