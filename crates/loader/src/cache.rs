//! A file of weights as they lie in the memory of the CPU's backend: whoever has it need not arrange them again.
//!
//! A header, then every part of [`CpuWeights::parts`] from a whole page on. The header names the weights and how they
//! lie, by a digest, and has a checksum for each piece of the parts. Sizes are not taken from the file: it is
//! compared with what would be written now, and is passed over if it is not that. Checksums find damage, not
//! forgery: whoever may write the file may choose the weights, as with a checkpoint.

mod file;
mod read;
mod write;

use std::io;
use std::path::{Path, PathBuf};

use backstop_arch::ModelSpec;
use backstop_kernels::{CpuWeights, features};
use backstop_weights::{Checkpoint, Fingerprint};

use crate::{LoadFailure, cpu};

/// Where a model's weights are kept.
#[derive(Clone, Debug)]
pub struct WeightCache {
    path: PathBuf,
    identity: String,
}

/// Why weights are not taken from a cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheMiss {
    /// There is no file yet.
    #[error("there is none yet")]
    Absent,
    /// It was written for other weights, by another version, or for another kind of processor.
    #[error("it is of other weights, another version or another kind of processor")]
    Stale,
    /// It is not what was once written.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// The checkpoint's tensors are not those of the model.
    #[error(transparent)]
    Checkpoint(#[from] LoadFailure),
}

impl WeightCache {
    /// The file in `directory` for the model in `checkpoint`, called `name`, whose weights have this digest. What was
    /// changed since is told by the times of the checkpoint's files as well.
    ///
    /// # Errors
    ///
    /// If the checkpoint's files cannot be looked at.
    pub fn new(
        directory: &Path,
        name: &str,
        checkpoint: &Checkpoint,
        digest: &str,
    ) -> io::Result<Self> {
        let identity = format!("{digest} {:?}", checkpoint.modified()?);
        let mut place = Fingerprint::new();
        place.add(
            "place",
            checkpoint.directory().as_os_str().as_encoded_bytes(),
        );
        let safe = |c: char| match c.is_ascii_alphanumeric() || "-_.".contains(c) {
            true => c,
            false => '_',
        };
        let name: String = name.chars().map(safe).take(NAME_CHARS_MAX).collect();
        let name = format!("{name}-{}.cpu-weights", place.digits(PLACE_DIGITS));
        Ok(Self {
            path: directory.join(name),
            identity,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The weights of `spec`, which the checkpoint has as well, as [`CpuWeights::arranged`] would have them.
    /// `progress` is told the bytes read so far, and how many there are.
    ///
    /// # Errors
    ///
    /// If the file does not hold exactly them.
    pub fn read(
        &self,
        checkpoint: &Checkpoint,
        spec: &ModelSpec,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<CpuWeights, CacheMiss> {
        let file = read::open(&self.path)?;
        let mut weights = cpu::zeroed(checkpoint, spec)?;
        let digest = self.digest(&weights);
        read::fill(&file, &digest, &mut weights, progress)?;
        Ok(weights)
    }

    /// Writes the file, or writes it anew, and returns its length. It has its name once it is whole.
    ///
    /// `go_on` is asked before each piece, of some megabytes, and may take its time; if it says no, or if another
    /// process is writing the same file, there is none, and no length.
    ///
    /// # Errors
    ///
    /// If it cannot be written. Nothing is left of it then.
    pub fn write(
        &self,
        weights: &CpuWeights,
        go_on: &mut dyn FnMut() -> bool,
    ) -> io::Result<Option<u64>> {
        write::replace(&self.path, &self.digest(weights), &weights.parts(), go_on)
    }

    /// Of all that decides what the bytes mean.
    fn digest(&self, weights: &CpuWeights) -> String {
        let mut digest = Fingerprint::new();
        digest.add("weights", &self.identity);
        digest.add("layout", weights.layout());
        digest.add("processor", format!("{:?}", features().chosen));
        digest.add("byte order", 1_u16.to_ne_bytes());
        digest.digits(file::DIGEST_DIGITS)
    }
}

/// Characters of the model's name in that of its file.
const NAME_CHARS_MAX: usize = 100;
/// Digits that tell models of one name apart, by where they lie.
const PLACE_DIGITS: usize = 8;
