//! What is known of models, and where they lie: manifests, the store, sizes and digests of files.

mod cache;
mod checkpoint;
mod digests;
mod locator;
mod manifest;
mod parts;
mod record;
mod refusal;
mod store;

#[cfg(test)]
mod tests;

pub use cache::{CachedAs, cached_checkpoint};
pub use checkpoint::{files_of, gguf_path, is_checkpoint};
pub use digests::{
    FilesDiffer, check_sizes, digest_of, digest_of_text, hexadecimal, verify_digests,
};
pub use locator::{LocateError, LocatedModel, LocatedShape, ModelLocator};
pub use manifest::{
    Canary, Claim, ClaimSettings, ClaimValue, HardwareFloor, Manifest, ManifestError,
    ServingDefaults, is_model_name, is_repository,
};
pub use parts::NumberedParts;
pub use record::{FileRecord, FileRecords};
pub use refusal::pickled_weights;
pub use store::{DIRECTORY_VARIABLE, Store};
