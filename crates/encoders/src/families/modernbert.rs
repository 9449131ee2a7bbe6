//! ModernBERT (Warner et al. 2024): rotary positions, attention within a window in most layers, gated perceptrons, and
//! norms before what they normalise for.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Family, Loaded};
use crate::EncoderError;
use crate::activation::Activation;
use crate::attention::{Attention, Sight};
use crate::fields::{BERT_FIELDS, Fields, Shape, ShapeFields};
use crate::network::{Embeddings, Head, Layer, Mlp, Network, Order};
use crate::pooling::PoolingMode;
use crate::rotary::Rotary;
use crate::weights::Weights;

pub(super) const FAMILY: ModernBert = ModernBert;

const FIELDS: ShapeFields = ShapeFields {
    positions_by_default: 8192,
    ..BERT_FIELDS
};
const WORDS: &str = "embeddings.tok_embeddings.weight";

pub(super) struct ModernBert;

impl Family for ModernBert {
    fn model_types(&self) -> &'static [&'static str] {
        &["modernbert"]
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &["", "model."]
    }

    fn landmarks(&self, _config: &Map<String, Value>) -> (&'static str, &'static str) {
        (WORDS, "layers.")
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
        let norm = |name: &str| {
            weights.norm(
                &weights.own(name),
                shape.width,
                config.epsilon,
                config.norm_bias,
            )
        };
        let words = weights.own(WORDS);
        let head = has_head.then(|| head(weights, &config));
        let network = Network {
            embeddings: Embeddings {
                words: weights.tensor(&words, &[shape.vocabulary, shape.width])?,
                positions: None,
                segments: None,
                norm: norm("embeddings.norm")?,
            },
            layers: layers(weights, &config)?,
            final_norm: Some(norm("final_norm")?),
            head: head.transpose()?,
        };
        Ok(Loaded {
            network,
            tokens_max: shape.positions,
            shape,
            reads_segments: false,
        })
    }
}

/// What is read of a configuration.
struct Config {
    shape: Shape,
    epsilon: f64,
    norm_bias: bool,
    attention_bias: bool,
    mlp_bias: bool,
    activation: Activation,
    /// For every layer, whether it sees a window only.
    is_local: Vec<bool>,
    /// Keys at a greater distance are out of the window.
    reach: usize,
    theta: f64,
    theta_local: f64,
    head_pooling: PoolingMode,
    head_bias: bool,
    head_activation: Activation,
}

impl Config {
    fn read(fields: &mut Fields<'_>) -> Self {
        let shape = fields.shape(&FIELDS);
        fields.only(&[("rope_scaling", Value::Null)]);
        let (theta, theta_local) = thetas(fields);
        Self {
            shape,
            epsilon: fields.number("norm_eps", 1e-5),
            norm_bias: fields.flag("norm_bias", false),
            attention_bias: fields.flag("attention_bias", false),
            mlp_bias: fields.flag("mlp_bias", false),
            activation: fields.activation("hidden_activation", Activation::Gelu),
            is_local: local_layers(fields, shape.layers),
            reach: fields.counted("local_attention", Some(128), 1 << 20) / 2,
            theta,
            theta_local,
            head_pooling: head_pooling(fields),
            head_bias: fields.flag("classifier_bias", false),
            head_activation: fields.activation("classifier_activation", Activation::Gelu),
        }
    }
}

/// Of layers that see everything, and of those that see a window; as transformers 5 writes them, or as fields of
/// their own.
fn thetas(fields: &mut Fields<'_>) -> (f64, f64) {
    let global = fields.number("global_rope_theta", 160_000.0);
    let local = fields.number("local_rope_theta", 10_000.0);
    let parameters = fields.value("rope_parameters");
    let mut of = |kind: &str, otherwise: f64| {
        let Some(of_kind) = parameters.and_then(|parameters| parameters.get(kind)) else {
            return otherwise;
        };
        let rope_type = of_kind.get("rope_type").unwrap_or(&Value::Null);
        if !rope_type.is_null() && *rope_type != json!("default") {
            fields.problem(&format!(
                "rope_parameters: {kind}: rope_type {rope_type} is not supported"
            ));
        }
        of_kind
            .get("rope_theta")
            .and_then(Value::as_f64)
            .unwrap_or(otherwise)
    };
    (of("full_attention", global), of("sliding_attention", local))
}

fn local_layers(fields: &mut Fields<'_>, layers: usize) -> Vec<bool> {
    let every = fields.counted("global_attn_every_n_layers", Some(3), 1 << 10);
    let Some(types) = fields.value("layer_types") else {
        return (0..layers).map(|layer| layer % every != 0).collect();
    };
    let types = types.as_array().map(Vec::as_slice).unwrap_or_default();
    if types.len() != layers {
        fields.problem(&format!(
            "layer_types has {} entries for {layers} layers",
            types.len()
        ));
    }
    let mut is_local = |kind: &Value| match kind.as_str() {
        Some("sliding_attention") => true,
        Some("full_attention") => false,
        _ => {
            fields.problem(&format!("layer_types: {kind} is not supported"));
            false
        }
    };
    types.iter().map(&mut is_local).collect()
}

fn head_pooling(fields: &mut Fields<'_>) -> PoolingMode {
    match fields.text("classifier_pooling").as_deref() {
        None | Some("cls") => PoolingMode::Cls,
        Some("mean") => PoolingMode::Mean,
        Some(other) => {
            fields.problem(&format!("classifier_pooling {other} is not supported"));
            PoolingMode::Cls
        }
    }
}

fn layers(weights: &Weights<'_>, config: &Config) -> Result<Vec<Layer>, EncoderError> {
    let shape = &config.shape;
    let rotary = |theta: f64| {
        let head = shape.width / shape.heads;
        Rotary::new(theta, head, shape.positions, weights.device).map(Arc::new)
    };
    let (global, local) = (rotary(config.theta)?, rotary(config.theta_local)?);
    let kinds = config.is_local.iter().enumerate();
    kinds
        .map(|(number, &is_local)| {
            let part = |name: &str| weights.own(&format!("layers.{number}.{name}"));
            let (width, middle) = (shape.width, shape.intermediate);
            let norm =
                |name: &str| weights.norm(&part(name), width, config.epsilon, config.norm_bias);
            let (attention, mlp) = (config.attention_bias, config.mlp_bias);
            // What the first layer reads has just been normalised.
            let attention_norm = (number > 0).then(|| norm("attn_norm"));
            Ok(Layer {
                order: Order::Before,
                attention: Attention {
                    inward: weights.linear(&part("attn.Wqkv"), width, 3 * width, attention)?,
                    outward: weights.linear(&part("attn.Wo"), width, width, attention)?,
                    heads: shape.heads,
                    sight: Sight {
                        rotary: Some(Arc::clone(if is_local { &local } else { &global })),
                        slopes: None,
                        window: is_local.then_some(config.reach),
                    },
                },
                attention_norm: attention_norm.transpose()?,
                mlp: Mlp {
                    up: weights.linear(&part("mlp.Wi"), width, 2 * middle, mlp)?,
                    activation: config.activation,
                    is_gated: true,
                    down: weights.linear(&part("mlp.Wo"), middle, width, mlp)?,
                },
                mlp_norm: norm("mlp_norm")?,
            })
        })
        .collect()
}

/// The head of `ModernBertForSequenceClassification` for one label.
fn head(weights: &Weights<'_>, config: &Config) -> Result<Head, EncoderError> {
    let width = config.shape.width;
    Ok(Head {
        pooling: config.head_pooling,
        dense: weights.linear("head.dense", width, width, config.head_bias)?,
        activation: config.head_activation,
        norm: Some(weights.norm("head.norm", width, config.epsilon, config.norm_bias)?),
        classifier: weights.linear("classifier", width, 1, true)?,
    })
}
