//! Nomic-BERT (Nussbaum et al. 2024): BERT with rotary positions, gated perceptrons and no biases. Configurations and
//! tensors are named as in the published checkpoints, or as in transformers.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Family, Loaded, bert};
use crate::EncoderError;
use crate::activation::Activation;
use crate::attention::{Attention, Sight};
use crate::fields::{BERT_FIELDS, Fields, Shape, ShapeFields};
use crate::network::{Embeddings, Layer, Mlp, Network, Order};
use crate::rotary::Rotary;
use crate::weights::Weights;

pub(super) const FAMILY: NomicBert = NomicBert;

/// As the published checkpoints call them.
const PUBLISHED_FIELDS: ShapeFields = ShapeFields {
    width: "n_embd",
    layers: "n_layer",
    heads: "n_head",
    intermediate: "n_inner",
    positions: "n_positions",
    positions_by_default: 2048,
};
/// As transformers calls them.
const FIELDS: ShapeFields = ShapeFields {
    positions_by_default: 2048,
    ..BERT_FIELDS
};

pub(super) struct NomicBert;

impl Family for NomicBert {
    fn model_types(&self) -> &'static [&'static str] {
        &["nomic_bert"]
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &["", "nomic_bert.", "bert."]
    }

    fn landmarks(&self, _config: &Map<String, Value>) -> (&'static str, &'static str) {
        (bert::LANDMARKS.0, "encoder.layers.")
    }

    fn load(
        &self,
        fields: &mut Fields<'_>,
        weights: &Weights<'_>,
        has_head: bool,
    ) -> Result<Loaded, EncoderError> {
        let config = Config::read(fields);
        fields.rotates(&config.shape);
        fields.check()?;
        let shape = config.shape;
        let segments = weights.own("embeddings.token_type_embeddings.weight");
        let head =
            has_head.then(|| bert::pooler_head(weights, shape.width, &weights.own("pooler.dense")));
        let network = Network {
            embeddings: Embeddings {
                words: bert::words(weights, &shape)?,
                positions: None,
                segments: Some(weights.tensor(&segments, &[config.segments, shape.width])?),
                norm: weights.norm(&weights.own("emb_ln"), shape.width, config.epsilon, true)?,
            },
            layers: layers(weights, &config)?,
            final_norm: None,
            head: head.transpose()?,
        };
        Ok(Loaded {
            network,
            tokens_max: shape.positions,
            shape,
            reads_segments: config.segments > 1,
        })
    }
}

/// What is read of a configuration.
struct Config {
    shape: Shape,
    segments: usize,
    epsilon: f64,
    theta: f64,
    activation: Activation,
}

impl Config {
    fn read(fields: &mut Fields<'_>) -> Self {
        match fields.contains("n_embd") {
            true => Self::published(fields),
            false => Self::of_transformers(fields),
        }
    }

    fn published(fields: &mut Fields<'_>) -> Self {
        // Values of the code that is published beside the checkpoints.
        fields.only(&[
            ("prenorm", json!(false)),
            ("parallel_block", json!(false)),
            ("use_rms_norm", json!(false)),
            ("qkv_proj_bias", json!(false)),
            ("mlp_fc1_bias", json!(false)),
            ("mlp_fc2_bias", json!(false)),
            ("causal", json!(false)),
            ("rotary_emb_fraction", json!(1.0)),
            ("rotary_emb_interleaved", json!(false)),
            ("rotary_emb_scale_base", Value::Null),
            ("scale_attn_by_inverse_layer_idx", json!(false)),
            ("moe_every_n_layers", json!(0)),
            ("activation_function", json!("swiglu")),
        ]);
        let mut shape = fields.shape(&PUBLISHED_FIELDS);
        // Longer texts than those of its training would have other angles for every length.
        if fields.value("rotary_scaling_factor").is_some() {
            let trained = fields.counted("max_trained_positions", Some(2048), 1 << 20);
            shape.positions = shape.positions.min(trained);
        }
        Self {
            shape,
            segments: fields.counted("type_vocab_size", Some(2), 1 << 10),
            epsilon: fields.number("layer_norm_epsilon", 1e-12),
            theta: fields.number("rotary_emb_base", 1000.0),
            activation: Activation::Silu,
        }
    }

    fn of_transformers(fields: &mut Fields<'_>) -> Self {
        let shape = fields.shape(&FIELDS);
        let head = json!(shape.width / shape.heads);
        fields.only(&[("rope_scaling", Value::Null), ("head_dim", head)]);
        let parameters = fields.value("rope_parameters");
        let part = |name: &str| parameters.and_then(|parameters| parameters.get(name));
        let rope_type = part("rope_type").unwrap_or(&Value::Null);
        if !rope_type.is_null() && *rope_type != json!("default") {
            fields.problem(&format!(
                "rope_parameters: rope_type {rope_type} is not supported"
            ));
        }
        let theta = part("rope_theta").and_then(Value::as_f64);
        Self {
            shape,
            segments: fields.counted("type_vocab_size", Some(2), 1 << 10),
            epsilon: fields.number("layer_norm_eps", 1e-12),
            theta: theta.unwrap_or_else(|| fields.number("rope_theta", 1000.0)),
            activation: fields.activation("hidden_act", Activation::Silu),
        }
    }
}

fn layers(weights: &Weights<'_>, config: &Config) -> Result<Vec<Layer>, EncoderError> {
    let shape = &config.shape;
    let head = shape.width / shape.heads;
    let rotary = Rotary::new(config.theta, head, shape.positions, weights.device)?;
    let rotary = Arc::new(rotary);
    let numbers = 0..shape.layers;
    numbers
        .map(|number| {
            let part = |name: &str| weights.own(&format!("encoder.layers.{number}.{name}"));
            let (width, middle) = (shape.width, shape.intermediate);
            // The second is activated.
            let up = ["mlp.fc12", "mlp.fc11"].map(part);
            let up = up.each_ref().map(String::as_str);
            Ok(Layer {
                order: Order::Behind,
                attention: Attention {
                    inward: weights.linear(&part("attn.Wqkv"), width, 3 * width, false)?,
                    outward: weights.linear(&part("attn.out_proj"), width, width, false)?,
                    heads: shape.heads,
                    sight: Sight {
                        rotary: Some(Arc::clone(&rotary)),
                        ..Sight::default()
                    },
                },
                attention_norm: Some(weights.norm(&part("norm1"), width, config.epsilon, true)?),
                mlp: Mlp {
                    up: weights.linears(&up, width, middle, false)?,
                    activation: config.activation,
                    is_gated: true,
                    down: weights.linear(&part("mlp.fc2"), middle, width, false)?,
                },
                mlp_norm: weights.norm(&part("norm2"), width, config.epsilon, true)?,
            })
        })
        .collect()
}
