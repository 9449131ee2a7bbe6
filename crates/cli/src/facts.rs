//! What clients are told of a model.

use std::collections::BTreeMap;

use backstop_server::ModelFacts;
use backstop_weights::{Checkpoint, TokenizerSource};

use crate::load::OpenModel;
use crate::start::Prepared;

/// What its files and the plan for its memory say.
pub(crate) fn of(open: &OpenModel, prepared: &Prepared) -> ModelFacts {
    let format = match open.source.checkpoint.tokenizer() {
        TokenizerSource::Embedded(_) => "gguf",
        TokenizerSource::File(_) => "safetensors",
    };
    ModelFacts {
        architecture: open.spec().architecture.to_owned(),
        format: format.to_owned(),
        number_format: most_bytes(&open.source.checkpoint)
            .unwrap_or_default()
            .to_owned(),
        file_bytes: open.source.checkpoint.bytes_total(),
        memory_bytes: prepared.plan.bytes().weights,
        on_gpu: prepared.on_gpu,
        device: prepared.place.to_owned(),
        batch_invariant: prepared.batch_invariant,
    }
}

/// The number format in which most bytes of a checkpoint are; `None` where its weights are made up.
fn most_bytes(checkpoint: &Checkpoint) -> Option<&'static str> {
    let mut bytes: BTreeMap<&'static str, u64> = BTreeMap::new();
    for tensor in checkpoint.tensors() {
        *bytes.entry(tensor.element_type.name()).or_default() += tensor.bytes;
    }
    let most = bytes.into_iter().max_by_key(|(_, bytes)| *bytes);
    most.map(|(name, _)| name)
}
