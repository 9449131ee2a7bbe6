//! Qwen3-MoE (`qwen3_moe`), such as Qwen3-Coder-30B-A3B: Qwen3 with experts.
//!
//! Reference implementation: `models/qwen3_moe` of Hugging Face transformers 5.23. All layers
//! slide if `use_sliding_window` is set; a window of `w` means `w` visible keys.

use backstop_kernels::backend::{GatedActivation, RouterRule, RouterScoring};
use backstop_weights::StrictFields;
use serde_json::{Map, Value};

use crate::attention::{AttentionPlan, HeadsPlan};
use crate::config::{self, Shape, ShapeDefaults};
use crate::decoder::{Decoder, DecoderPlan, LayerPlan, MlpPlan};
use crate::mlp::{PROJECTIONS, RouterNames, SparsePlan};
use crate::registry::ArchError;
use crate::rope::{self, RopeDefaults};

const ARCHITECTURE: &str = "qwen3_moe";

const DEFAULTS: ShapeDefaults = ShapeDefaults {
    head_dim: None,
    kv_heads: Some(4),
    max_position_embeddings: 32_768,
    tied: false,
};

/// Fields that the reference implementation does not read.
const INERT: &[&str] = &["max_window_layers", "rope_interleaved"];

/// Reads the configuration and lays out the weights.
pub(crate) fn from_config(config: &Map<String, Value>) -> Result<Decoder, ArchError> {
    let plan = config::read(ARCHITECTURE, config, INERT, |fields| {
        let shape = Shape::read(fields, DEFAULTS);
        fields.only("hidden_act", &Value::from("silu"));
        // The reference implementation does not read these; they say what it does.
        fields.only("qkv_bias", &Value::from(false));
        fields.only("use_qk_norm", &Value::from(true));
        fields.only("shared_expert_intermediate_size", &Value::from(0));
        let bias = config::flag(fields, "attention_bias");
        let layers = read_layers(fields, config, &shape);
        let norm = config::rms_norm(fields, 1e-6);
        DecoderPlan {
            architecture: ARCHITECTURE,
            chat_format: "plain",
            norm,
            attention: AttentionPlan::Heads(HeadsPlan {
                shape: shape.attention,
                rope: Some(rope::read(fields, RopeDefaults::halves(&shape, 10_000.0))),
                norm_epsilon: Some(norm.epsilon()),
                qkv_bias: bias,
                output_bias: bias,
                sinks: false,
            }),
            layers,
            sparse_name: "mlp",
            prediction_layers: 0,
            shape,
        }
    })?;
    Ok(Decoder::new(&plan))
}

/// Layers are sparse but for those that are named and those that the step leaves out.
fn read_layers(
    fields: &mut StrictFields<'_>,
    config: &Map<String, Value>,
    shape: &Shape,
) -> Vec<LayerPlan> {
    let window = config::common_window(fields, config, Some(4096));
    let slides = config::flag(fields, "use_sliding_window");
    let visible_keys = window.filter(|_| slides);
    let dense_only = fields.optional_u32_list("mlp_only_layers");
    let dense_only = dense_only.unwrap_or_default();
    let step = fields.optional_u32("decoder_sparse_step").unwrap_or(1) as usize;
    if step == 0 {
        fields.problem("decoder_sparse_step must be positive");
    }
    let dense = MlpPlan::Dense(config::width(fields, "intermediate_size"));
    // transformers 5 writes the second name.
    let newer = fields.optional_u32("num_local_experts");
    let num_experts = config::num_experts(fields, "num_experts", newer.or(Some(128)));
    let sparse = MlpPlan::Sparse(SparsePlan {
        num_experts,
        width: config::width(fields, "moe_intermediate_size"),
        rule: RouterRule {
            top_k: config::experts_per_token(fields, Some(8), num_experts),
            scoring: RouterScoring::Softmax,
            renormalise: config::flag(fields, "norm_topk_prob"),
            factor: 1.0,
            groups: None,
        },
        router: RouterNames::Plain,
        activation: GatedActivation::Swiglu,
        alternating: false,
        projections: PROJECTIONS,
        shared: None,
    });
    shape.layers(|layer| {
        let named = dense_only.iter().any(|&named| named as usize == layer);
        let in_step = (layer + 1).checked_rem(step) == Some(0);
        let mlp = if !named && in_step { sparse } else { dense };
        LayerPlan {
            visible_keys,
            selects_keys: false,
            mlp,
        }
    })
}
