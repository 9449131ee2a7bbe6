//! Checkpoints on disk: safetensors, GGUF, compressed-tensors, configuration.

mod census;
mod chat_templates;
mod checkpoint;
mod copy;
mod element;
mod endings;
mod error;
mod finite;
mod generation;
mod gguf;
mod header;
mod identity;
mod index;
mod made;
mod quantization;
mod shard;
mod shards;
mod strict_fields;
mod surplus;
mod text_files;

#[cfg(test)]
mod test_support;

pub use census::{CensusError, CheckpointSummary, ExpectedTensor, Mismatch, census};
pub use checkpoint::{Checkpoint, TensorInfo, TokenizerSource};
pub use copy::{Piece, read_in_order};
pub use element::ElementType;
pub use endings::EndToken;
pub use error::{LoadError, LoadProblem, WeightsError};
pub use finite::check_finite;
pub use generation::{GenerationConfig, SpecialTokens};
pub use gguf::{EmbeddedTokenizer, GgufConventions, GgufExperts, GgufFamily, GgufField, GgufNorm};
pub use header::{HEADER_BYTES_MAX, HeaderError, NAME_BYTES_MAX};
pub use identity::Fingerprint;
pub use made::{MadeNumbers, MadeTensor};
pub use quantization::{
    Codes, ModulePatterns, QuantizationError, QuantizationScheme, QuantizedMatrix, Scales,
    WeightQuantization,
};
pub use shard::will_read;
pub use strict_fields::StrictFields;
pub use surplus::{Surplus, SurplusKind};
