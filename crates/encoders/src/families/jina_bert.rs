//! JinaBERT (Günther et al. 2023, version 2 of the embeddings), which calls itself `bert`: distances in the place of
//! positions (ALiBi), and gated perceptrons that normalise by themselves. The formulas are those of
//! `jina-bert-implementation`; the variant that normalises queries and keys has other tensors, and is refused for them.

use serde_json::{Map, Value, json};

use super::bert::{self, BertConfig};
use super::{Family, Loaded};
use crate::EncoderError;
use crate::activation::Activation;
use crate::attention::{Attention, Sight, slopes_tensor};
use crate::fields::Fields;
use crate::network::{Embeddings, Layer, Mlp, Network, Order};
use crate::weights::Weights;

pub(super) const FAMILY: JinaBert = JinaBert;

pub(super) struct JinaBert;

impl Family for JinaBert {
    fn model_types(&self) -> &'static [&'static str] {
        &["bert", "jina_bert"]
    }

    fn claims(&self, config: &Map<String, Value>) -> bool {
        config.get("position_embedding_type") == Some(&json!("alibi"))
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &["", "bert."]
    }

    fn landmarks(&self, _config: &Map<String, Value>) -> (&'static str, &'static str) {
        bert::LANDMARKS
    }

    fn load(
        &self,
        fields: &mut Fields<'_>,
        weights: &Weights<'_>,
        has_head: bool,
    ) -> Result<Loaded, EncoderError> {
        let activation = gate(fields);
        let config = BertConfig::of_shape(fields)?;
        let shape = config.shape;
        let width = shape.width;
        let segments = weights.own("embeddings.token_type_embeddings.weight");
        let head =
            has_head.then(|| bert::pooler_head(weights, width, &weights.own("pooler.dense")));
        let network = Network {
            embeddings: Embeddings {
                words: bert::words(weights, &shape)?,
                positions: None,
                segments: Some(weights.tensor(&segments, &[config.segments, width])?),
                norm: weights.norm(
                    &weights.own("embeddings.LayerNorm"),
                    width,
                    config.epsilon,
                    true,
                )?,
            },
            layers: layers(weights, &config, activation)?,
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

/// What activates the gate.
fn gate(fields: &mut Fields<'_>) -> Activation {
    match fields.text("feed_forward_type").as_deref() {
        Some("geglu") => Activation::Gelu,
        Some("reglu") => Activation::Relu,
        other => {
            let other = other.unwrap_or("original");
            fields.problem(&format!(
                "feed_forward_type {other} with distances is not supported, only geglu and reglu"
            ));
            Activation::Identity
        }
    }
}

fn layers(
    weights: &Weights<'_>,
    config: &BertConfig,
    activation: Activation,
) -> Result<Vec<Layer>, EncoderError> {
    let sight = Sight {
        slopes: Some(slopes_tensor(config.shape.heads, weights.device)?),
        ..Sight::default()
    };
    let numbers = 0..config.shape.layers;
    numbers
        .map(|number| {
            let part = |name: &str| weights.own(&format!("encoder.layer.{number}.{name}"));
            let (width, intermediate) = (config.shape.width, config.shape.intermediate);
            let norm = |name: &str| weights.norm(&part(name), width, config.epsilon, true);
            let up = weights.linear(&part("mlp.gated_layers"), width, 2 * intermediate, false)?;
            Ok(Layer {
                order: Order::Behind,
                attention: Attention {
                    inward: bert::separate_inward(weights, &part("attention.self"), width)?,
                    outward: weights.linear(&part("attention.output.dense"), width, width, true)?,
                    heads: config.shape.heads,
                    sight: sight.clone(),
                },
                attention_norm: Some(norm("attention.output.LayerNorm")?),
                mlp: Mlp {
                    up,
                    activation,
                    is_gated: true,
                    down: weights.linear(&part("mlp.wo"), intermediate, width, true)?,
                },
                mlp_norm: norm("mlp.layernorm")?,
            })
        })
        .collect()
}
