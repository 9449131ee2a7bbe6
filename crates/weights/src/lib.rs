//! Checkpoints on disk: safetensors, GGUF, compressed-tensors, configuration, manifests.

mod census;
mod checkpoint;
mod copy;
mod digests;
mod element;
mod error;
mod finite;
mod generation;
mod gguf;
mod header;
mod identity;
mod locator;
mod manifest;
mod quantization;
mod shard;
mod shards;
mod strict_fields;
mod text_files;

#[cfg(test)]
mod test_support;

pub use census::{CensusError, CheckpointSummary, ExpectedTensor, Mismatch, census};
pub use checkpoint::{Checkpoint, TensorInfo, TokenizerSource};
pub use copy::{Piece, read_in_order};
pub use digests::{DigestError, verify_digests};
pub use element::ElementType;
pub use error::{LoadError, LoadProblem, WeightsError};
pub use finite::check_finite;
pub use generation::{GenerationConfig, SpecialTokens};
pub use gguf::{EmbeddedTokenizer, GgufConventions, GgufExperts, GgufFamily, GgufField};
pub use header::{HEADER_BYTES_MAX, HeaderError, NAME_BYTES_MAX};
pub use identity::Fingerprint;
pub use locator::{LocateError, LocatedModel, LocatedShape, ModelLocator};
pub use manifest::{
    Canary, Claim, ClaimValue, HardwareFloor, Manifest, ManifestError, ServingDefaults,
};
pub use quantization::{
    Codes, ModulePatterns, QuantizationError, QuantizationScheme, QuantizedMatrix, Scales,
    WeightQuantization,
};
pub use strict_fields::StrictFields;
