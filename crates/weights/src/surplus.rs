//! Tensors that checkpoints carry and no forward pass here reads, told by their names.
//!
//! Whatever is not known to change nothing stays for the census, which refuses it: a bias or a norm that an architecture
//! would not add is a model that would answer wrongly.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use crate::{Checkpoint, ElementType, ExpectedTensor, TensorInfo};

/// What a tensor is that is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SurplusKind {
    /// Frequencies, or sines and cosines, that follow from the configuration.
    RotaryTables,
    /// Which positions see which (GPT-2 saves it as the bias of attention).
    CausalMasks,
    /// The numbers from 0 on.
    Positions,
    /// Layers behind the last, which predict further tokens (DeepSeek-V3, section 2.2).
    LayersBeyond,
    /// Encoders of images, video or sound, and what brings their output to the text model.
    OtherModalities,
    /// For keys and values of a cache in fewer bits, and for inputs of products.
    ActivationScales,
    /// What the training counted.
    Counters,
    /// A head that is the same as the embedding to which it is tied.
    HeadCopies,
}

impl SurplusKind {
    fn description(self) -> &'static str {
        match self {
            Self::RotaryTables => "tables of rotary embeddings",
            Self::CausalMasks => "causal masks",
            Self::Positions => "lists of positions",
            Self::LayersBeyond => "layers beyond num_hidden_layers",
            Self::OtherModalities => "encoders of images, video or sound",
            Self::ActivationScales => "scales of activations or of a KV cache",
            Self::Counters => "counters of the training",
            Self::HeadCopies => "copies of the embedding as the head",
        }
    }
}

/// Last parts of names.
const ROTARY_TABLES: [&str; 4] = ["inv_freq", "original_inv_freq", "cos_cached", "sin_cached"];
const CACHE_SCALES: [&str; 5] = [
    "k_scale",
    "v_scale",
    "q_scale",
    "prob_scale",
    "prob_output_scale",
];
const INPUT_SCALES: [&str; 4] = [
    "input_scale",
    "output_scale",
    "activation_scale",
    "input_global_scale",
];
/// What GGUF files call the tables of a layer.
const GGUF_ROTARY_TABLES: &str = "attn_rot_embd";
/// Modules that read something else than text, as far up as second in a name.
const OTHER_MODALITIES: [&str; 25] = [
    "audio_encoder",
    "audio_model",
    "audio_projector",
    "audio_tower",
    "embed_audio",
    "embed_vision",
    "image_encoder",
    "image_newline",
    "image_projector",
    "mm_projector",
    "multi_modal_projector",
    "patch_merger",
    "pre_mm_projector_norm",
    "speech_encoder",
    "speech_projector",
    "vision",
    "vision_adapter",
    "vision_embed_tokens",
    "vision_encoder",
    "vision_language_adapter",
    "vision_model",
    "vision_projector",
    "vision_proj",
    "vision_tower",
    "visual",
];
/// The same in GGUF files, where they come first.
const GGUF_OTHER_MODALITIES: [&str; 3] = ["a", "mm", "v"];
/// How GGUF files number layers. Of those that are known, the names were translated.
const GGUF_LAYERS: &str = "blk.";
const LAYERS: &str = "model.layers.";

/// How many tensors of each kind were passed over, and their bytes together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surplus {
    counts: BTreeMap<SurplusKind, usize>,
    bytes: u64,
}

impl Surplus {
    /// How many there are of a kind.
    pub fn count(&self, kind: SurplusKind) -> usize {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    fn add(&mut self, kind: SurplusKind, bytes: u64) {
        *self.counts.entry(kind).or_default() += 1;
        self.bytes += bytes;
    }
}

impl fmt::Display for Surplus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = self.counts.iter();
        let kinds = kinds.map(|(kind, count)| format!("{}: {count}", kind.description()));
        write!(
            formatter,
            "{} tensors of {} bytes are passed over, for nothing here reads them ({})",
            self.counts.values().sum::<usize>(),
            self.bytes,
            kinds.collect::<Vec<_>>().join("; ")
        )
    }
}

impl Checkpoint {
    /// Takes out of the list of tensors what is not expected and known to change nothing, and adds it to `surplus`.
    pub fn pass_over(&mut self, expected: &[ExpectedTensor], surplus: &mut Surplus) {
        let known = Known::new(expected);
        let unread = |tensor: &&TensorInfo| !known.tensors.contains(tensor.name.as_str());
        let found = self.tensors().filter(unread);
        let found = found.filter_map(|tensor| Some((tensor.name.clone(), known.kind(tensor)?)));
        for (name, kind) in found.collect::<Vec<_>>() {
            self.pass_over_as(&name, kind, surplus);
        }
    }

    /// Takes one tensor out of the list, if it is there, and adds it to `surplus`.
    pub fn pass_over_as(&mut self, name: &str, kind: SurplusKind, surplus: &mut Surplus) {
        if let Some(tensor) = self.shards.tensors.remove(name) {
            surplus.add(kind, tensor.bytes);
        }
    }
}

/// What a model reads.
struct Known<'a> {
    tensors: HashSet<&'a str>,
    /// How many layers it has, by what their names begin with.
    layers: BTreeMap<&'a str, usize>,
}

impl<'a> Known<'a> {
    fn new(expected: &'a [ExpectedTensor]) -> Self {
        let mut layers: BTreeMap<&str, usize> = BTreeMap::new();
        for tensor in expected {
            if let Some((stem, index)) = layer_of(&tensor.name) {
                let count = layers.entry(stem).or_default();
                *count = (*count).max(index.saturating_add(1));
            }
        }
        Self {
            tensors: expected.iter().map(|tensor| tensor.name.as_str()).collect(),
            layers,
        }
    }

    fn kind(&self, tensor: &TensorInfo) -> Option<SurplusKind> {
        let parts: Vec<&str> = tensor.name.split('.').collect();
        let last = *parts.last()?;
        let above = parts.len().checked_sub(2).map_or("", |index| parts[index]);
        if self.is_beyond(&tensor.name) || is_prediction_module(&parts) {
            Some(SurplusKind::LayersBeyond)
        } else if is_of_other_modality(&parts) {
            Some(SurplusKind::OtherModalities)
        } else if ROTARY_TABLES.contains(&last) || above == GGUF_ROTARY_TABLES {
            Some(SurplusKind::RotaryTables)
        } else if is_attention(above) && is_mask(last, tensor) {
            Some(SurplusKind::CausalMasks)
        } else if last == "position_ids" && is_of_integers(tensor) {
            Some(SurplusKind::Positions)
        } else if INPUT_SCALES.contains(&last)
            || CACHE_SCALES.contains(&last) && parts.iter().any(|part| is_attention(part))
        {
            Some(SurplusKind::ActivationScales)
        } else if last == "num_batches_tracked" {
            Some(SurplusKind::Counters)
        } else {
            None
        }
    }

    /// Whether it is of a layer with a number that no layer of the model has.
    fn is_beyond(&self, name: &str) -> bool {
        let Some((stem, index)) = layer_of(name) else {
            return false;
        };
        let stem = if stem == GGUF_LAYERS { LAYERS } else { stem };
        self.layers.get(stem).is_some_and(|&count| index >= count)
    }
}

/// What the names of a layer's tensors begin with, and its number.
fn layer_of(name: &str) -> Option<(&str, usize)> {
    let in_gguf = name.starts_with(GGUF_LAYERS).then_some(GGUF_LAYERS.len());
    let start = in_gguf.or_else(|| Some(name.find("layers.")? + "layers.".len()))?;
    let (stem, rest) = name.split_at(start);
    let number = rest.split('.').next()?;
    Some((stem, number.parse().ok()?))
}

/// Whether layers that predict further tokens have a module of their own here: `mtp`, `mtp_layers` and the like.
fn is_prediction_module(parts: &[&str]) -> bool {
    let inner = parts.iter().take(2);
    let mut inner = inner.map(|part| part.split('_').next().unwrap_or_default());
    inner.any(|word| word == "mtp" || word == "nextn")
}

fn is_of_other_modality(parts: &[&str]) -> bool {
    GGUF_OTHER_MODALITIES.contains(&parts[0])
        || parts
            .iter()
            .take(2)
            .any(|part| OTHER_MODALITIES.contains(part))
}

fn is_attention(part: &str) -> bool {
    matches!(part, "attn" | "self_attn" | "attention" | "self_attention")
}

/// A mask is a square, a bias is a row.
fn is_mask(last: &str, tensor: &TensorInfo) -> bool {
    match (last, tensor.shape.as_slice()) {
        ("bias", [1, 1, queries, keys]) => queries == keys,
        ("masked_bias", shape) => shape.iter().all(|&extent| extent == 1),
        _ => false,
    }
}

fn is_of_integers(tensor: &TensorInfo) -> bool {
    matches!(tensor.element_type, ElementType::I64 | ElementType::I32)
}

#[cfg(test)]
mod tests;
