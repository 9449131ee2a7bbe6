//! RoBERTa (Liu et al. 2019), XLM-RoBERTa and CamemBERT: BERT with positions behind that of the padding token, one kind
//! of segment, and a head of its own.

use serde_json::{Map, Value};

use super::bert::{self, BertConfig};
use super::{Family, Loaded};
use crate::EncoderError;
use crate::activation::Activation;
use crate::fields::Fields;
use crate::network::{Embeddings, Head, Network, PositionRule};
use crate::pooling::PoolingMode;
use crate::weights::Weights;

pub(super) const FAMILY: Roberta = Roberta;

pub(super) struct Roberta;

impl Family for Roberta {
    fn model_types(&self) -> &'static [&'static str] {
        &["roberta", "xlm-roberta", "camembert"]
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &["", "roberta."]
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
        let padding = fields.id("pad_token_id", 1);
        let config = BertConfig::read(fields)?;
        let shape = config.shape;
        let width = shape.width;
        let tokens_max = shape.positions.saturating_sub(padding as usize + 1);
        if tokens_max == 0 {
            return Err(EncoderError::unsupported(format!(
                "config.json: of {} positions none is left behind padding token {padding}",
                shape.positions
            )));
        }
        let segments = weights.own("embeddings.token_type_embeddings.weight");
        let head = has_head.then(|| head(weights, width));
        let network = Network {
            embeddings: Embeddings {
                words: bert::words(weights, &shape)?,
                positions: Some(bert::positions(
                    weights,
                    &shape,
                    PositionRule::BehindPadding(padding),
                )?),
                segments: Some(weights.tensor(&segments, &[config.segments, width])?),
                norm: weights.norm(
                    &weights.own("embeddings.LayerNorm"),
                    width,
                    config.epsilon,
                    true,
                )?,
            },
            layers: bert::layers(weights, &config)?,
            final_norm: None,
            head: head.transpose()?,
        };
        Ok(Loaded {
            network,
            shape,
            tokens_max,
            // Its tokenizers give the second text of a pair no segment of its own.
            reads_segments: false,
        })
    }
}

/// `RobertaClassificationHead`, for one label.
fn head(weights: &Weights<'_>, width: usize) -> Result<Head, EncoderError> {
    Ok(Head {
        pooling: PoolingMode::Cls,
        dense: weights.linear("classifier.dense", width, width, true)?,
        activation: Activation::Tanh,
        norm: None,
        classifier: weights.linear("classifier.out_proj", width, 1, true)?,
    })
}
