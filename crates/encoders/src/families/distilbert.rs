//! DistilBERT (Sanh et al. 2019): BERT without segments, under other names.

use serde_json::{Map, Value};

use super::{Family, Loaded};
use crate::EncoderError;
use crate::activation::Activation;
use crate::attention::{Attention, Sight};
use crate::families::bert;
use crate::fields::{Fields, Shape, ShapeFields};
use crate::network::{Embeddings, Head, Layer, Mlp, Network, Order, PositionRule};
use crate::pooling::PoolingMode;
use crate::weights::Weights;

pub(super) const FAMILY: DistilBert = DistilBert;

const FIELDS: ShapeFields = ShapeFields {
    width: "dim",
    layers: "n_layers",
    heads: "n_heads",
    intermediate: "hidden_dim",
    positions: "max_position_embeddings",
    positions_by_default: 512,
};
/// Its configuration has no field for it.
const EPSILON: f64 = 1e-12;

pub(super) struct DistilBert;

impl Family for DistilBert {
    fn model_types(&self) -> &'static [&'static str] {
        &["distilbert"]
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &["", "distilbert."]
    }

    fn landmarks(&self, _config: &Map<String, Value>) -> (&'static str, &'static str) {
        (bert::LANDMARKS.0, "transformer.layer.")
    }

    fn load(
        &self,
        fields: &mut Fields<'_>,
        weights: &Weights<'_>,
        has_head: bool,
    ) -> Result<Loaded, EncoderError> {
        let shape = fields.shape(&FIELDS);
        let activation = fields.activation("activation", Activation::Gelu);
        fields.check()?;
        let width = shape.width;
        let norm = weights.own("embeddings.LayerNorm");
        let head = has_head.then(|| head(weights, width));
        let network = Network {
            embeddings: Embeddings {
                words: bert::words(weights, &shape)?,
                positions: Some(bert::positions(weights, &shape, PositionRule::FromZero)?),
                segments: None,
                norm: weights.norm(&norm, width, EPSILON, true)?,
            },
            layers: layers(weights, &shape, activation)?,
            final_norm: None,
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

fn layers(
    weights: &Weights<'_>,
    shape: &Shape,
    activation: Activation,
) -> Result<Vec<Layer>, EncoderError> {
    let numbers = 0..shape.layers;
    numbers
        .map(|number| {
            let part = |name: &str| weights.own(&format!("transformer.layer.{number}.{name}"));
            let (width, intermediate) = (shape.width, shape.intermediate);
            let inward = ["q_lin", "k_lin", "v_lin"].map(|name| part(&format!("attention.{name}")));
            let inward = inward.each_ref().map(String::as_str);
            Ok(Layer {
                order: Order::Behind,
                attention: Attention {
                    inward: weights.linears(&inward, width, width, true)?,
                    outward: weights.linear(&part("attention.out_lin"), width, width, true)?,
                    heads: shape.heads,
                    sight: Sight::default(),
                },
                attention_norm: Some(weights.norm(&part("sa_layer_norm"), width, EPSILON, true)?),
                mlp: Mlp {
                    up: weights.linear(&part("ffn.lin1"), width, intermediate, true)?,
                    activation,
                    is_gated: false,
                    down: weights.linear(&part("ffn.lin2"), intermediate, width, true)?,
                },
                mlp_norm: weights.norm(&part("output_layer_norm"), width, EPSILON, true)?,
            })
        })
        .collect()
}

/// The head of `DistilBertForSequenceClassification` for one label.
fn head(weights: &Weights<'_>, width: usize) -> Result<Head, EncoderError> {
    Ok(Head {
        pooling: PoolingMode::Cls,
        dense: weights.linear("pre_classifier", width, width, true)?,
        activation: Activation::Relu,
        norm: None,
        classifier: weights.linear("classifier", width, 1, true)?,
    })
}
