//! The architectures: one file and one line in [`FAMILIES`] each.

mod bert;
mod distilbert;
mod jina_bert;
mod modernbert;
mod nomic_bert;
mod roberta;

use backstop_weights::Checkpoint;
use candle_core::Device;
use serde_json::{Map, Value};

use crate::EncoderError;
use crate::fields::{Fields, Shape};
use crate::network::Network;
use crate::weights::Weights;

/// All of them. The first that claims a configuration has it.
const FAMILIES: &[&dyn Family] = &[
    &jina_bert::FAMILY,
    &bert::FAMILY,
    &distilbert::FAMILY,
    &modernbert::FAMILY,
    &nomic_bert::FAMILY,
    &roberta::FAMILY,
];

/// An architecture.
pub(crate) trait Family: Sync {
    /// Values of `model_type` that it goes by.
    fn model_types(&self) -> &'static [&'static str];

    /// Whether a configuration with one of the [`model_types`](Self::model_types) is of this family.
    fn claims(&self, _config: &Map<String, Value>) -> bool {
        true
    }

    /// What the names of the network's tensors may begin with; among others, nothing.
    fn prefixes(&self) -> &'static [&'static str];

    /// The name of the table of word vectors, and what the names of all tensors of layers begin with; both without a
    /// prefix.
    fn landmarks(&self, config: &Map<String, Value>) -> (&'static str, &'static str);

    /// Reads configuration and weights. A network with a head makes scores of pairs.
    fn load(
        &self,
        fields: &mut Fields<'_>,
        weights: &Weights<'_>,
        has_head: bool,
    ) -> Result<Loaded, EncoderError>;
}

/// A network, and what must be known of it.
pub(crate) struct Loaded {
    pub(crate) network: Network,
    pub(crate) shape: Shape,
    /// Tokens of the longest text.
    pub(crate) tokens_max: usize,
    /// Whether it tells the second text of a pair from the first by more than the tokens between.
    pub(crate) reads_segments: bool,
}

/// The network of a checkpoint, and the name of its architecture.
pub(crate) fn load(
    checkpoint: &Checkpoint,
    device: &Device,
    has_head: bool,
) -> Result<(Loaded, String), EncoderError> {
    let config = checkpoint.config();
    let model_type = config.get("model_type").and_then(Value::as_str);
    let model_type = model_type.unwrap_or_default();
    let fits =
        |family: &&&dyn Family| family.model_types().contains(&model_type) && family.claims(config);
    let family = FAMILIES.iter().find(fits).ok_or_else(|| {
        let known: Vec<&str> = FAMILIES
            .iter()
            .flat_map(|family| family.model_types())
            .copied()
            .collect();
        EncoderError::unsupported(format!(
            "config.json: model_type {model_type:?} is no encoder that is supported, which are {}",
            known.join(", ")
        ))
    })?;
    let (words, layers) = family.landmarks(config);
    let weights = Weights::new(checkpoint, device, family.prefixes(), words);
    let mut fields = Fields::new(config);
    fields.encodes();
    let loaded = family.load(&mut fields, &weights, has_head)?;
    weights.finish(layers)?;
    Ok((loaded, model_type.to_owned()))
}
