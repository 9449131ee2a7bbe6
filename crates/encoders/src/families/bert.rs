//! BERT (Devlin et al. 2018), and what RoBERTa has in common with it.

use candle_core::Tensor;
use candle_nn::Linear;
use serde_json::{Map, Value, json};

use super::{Family, Loaded};
use crate::EncoderError;
use crate::activation::Activation;
use crate::attention::{Attention, Sight};
use crate::fields::{BERT_FIELDS, Fields, Shape};
use crate::network::{Embeddings, Head, Layer, Mlp, Network, Order, PositionRule, Positions};
use crate::pooling::PoolingMode;
use crate::weights::Weights;

pub(super) const FAMILY: Bert = Bert;

/// The table of word vectors, and the layers.
pub(super) const LANDMARKS: (&str, &str) = (WORDS, "encoder.layer.");
const WORDS: &str = "embeddings.word_embeddings.weight";

pub(super) struct Bert;

impl Family for Bert {
    fn model_types(&self) -> &'static [&'static str] {
        &["bert"]
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &["", "bert."]
    }

    fn landmarks(&self, _config: &Map<String, Value>) -> (&'static str, &'static str) {
        LANDMARKS
    }

    fn load(
        &self,
        fields: &mut Fields<'_>,
        weights: &Weights<'_>,
        has_head: bool,
    ) -> Result<Loaded, EncoderError> {
        let config = BertConfig::read(fields)?;
        let (shape, epsilon) = (config.shape, config.epsilon);
        let head =
            has_head.then(|| pooler_head(weights, shape.width, &weights.own("pooler.dense")));
        let network = Network {
            embeddings: Embeddings {
                words: words(weights, &shape)?,
                positions: Some(positions(weights, &shape, PositionRule::FromZero)?),
                segments: Some(weights.tensor(
                    &weights.own("embeddings.token_type_embeddings.weight"),
                    &[config.segments, shape.width],
                )?),
                norm: weights.norm(
                    &weights.own("embeddings.LayerNorm"),
                    shape.width,
                    epsilon,
                    true,
                )?,
            },
            layers: layers(weights, &config)?,
            final_norm: None,
            head: head.transpose()?,
        };
        Ok(Loaded {
            network,
            tokens_max: shape.positions,
            reads_segments: config.segments > 1,
            shape,
        })
    }
}

/// What is read of a configuration.
pub(super) struct BertConfig {
    pub(super) shape: Shape,
    pub(super) segments: usize,
    pub(super) epsilon: f64,
    pub(super) activation: Activation,
}

impl BertConfig {
    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Self, EncoderError> {
        fields.only(&[("position_embedding_type", json!("absolute"))]);
        Self::of_shape(fields)
    }

    /// As [`read`](Self::read), whatever it says of positions.
    pub(super) fn of_shape(fields: &mut Fields<'_>) -> Result<Self, EncoderError> {
        let config = Self {
            shape: fields.shape(&BERT_FIELDS),
            segments: fields.counted("type_vocab_size", Some(2), 1 << 10),
            epsilon: fields.number("layer_norm_eps", 1e-12),
            activation: fields.activation("hidden_act", Activation::Gelu),
        };
        fields.check()?;
        Ok(config)
    }
}

pub(super) fn words(weights: &Weights<'_>, shape: &Shape) -> Result<Tensor, EncoderError> {
    weights.tensor(&weights.own(WORDS), &[shape.vocabulary, shape.width])
}

pub(super) fn positions(
    weights: &Weights<'_>,
    shape: &Shape,
    rule: PositionRule,
) -> Result<Positions, EncoderError> {
    let name = weights.own("embeddings.position_embeddings.weight");
    Ok(Positions {
        vectors: weights.tensor(&name, &[shape.positions, shape.width])?,
        rule,
    })
}

/// All layers.
pub(super) fn layers(
    weights: &Weights<'_>,
    config: &BertConfig,
) -> Result<Vec<Layer>, EncoderError> {
    let numbers = 0..config.shape.layers;
    numbers
        .map(|number| {
            let part = |name: &str| weights.own(&format!("encoder.layer.{number}.{name}"));
            let width = config.shape.width;
            let intermediate = config.shape.intermediate;
            let norm = |name: &str| weights.norm(&part(name), width, config.epsilon, true);
            Ok(Layer {
                order: Order::Behind,
                attention: Attention {
                    inward: separate_inward(weights, &part("attention.self"), width)?,
                    outward: weights.linear(&part("attention.output.dense"), width, width, true)?,
                    heads: config.shape.heads,
                    sight: Sight::default(),
                },
                attention_norm: Some(norm("attention.output.LayerNorm")?),
                mlp: Mlp {
                    up: weights.linear(&part("intermediate.dense"), width, intermediate, true)?,
                    activation: config.activation,
                    is_gated: false,
                    down: weights.linear(&part("output.dense"), intermediate, width, true)?,
                },
                mlp_norm: norm("output.LayerNorm")?,
            })
        })
        .collect()
}

/// Queries, keys and values of separate tensors, with biases.
pub(super) fn separate_inward(
    weights: &Weights<'_>,
    within: &str,
    width: usize,
) -> Result<Linear, EncoderError> {
    let names = ["query", "key", "value"].map(|name| format!("{within}.{name}"));
    weights.linears(&names.each_ref().map(String::as_str), width, width, true)
}

/// The head of `BertForSequenceClassification` for one label: the pooler over the first token, and a classifier.
pub(super) fn pooler_head(
    weights: &Weights<'_>,
    width: usize,
    dense: &str,
) -> Result<Head, EncoderError> {
    Ok(Head {
        pooling: PoolingMode::Cls,
        dense: weights.linear(dense, width, width, true)?,
        activation: Activation::Tanh,
        norm: None,
        classifier: weights.linear("classifier", width, 1, true)?,
    })
}
