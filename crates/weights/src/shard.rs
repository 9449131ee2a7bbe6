//! One weight file: opened, its header checked, its bytes read by position.
//!
//! Files are read, not mapped: a mapped file that another process truncates kills the reader with
//! a signal, while a read of it returns an error that can name the tensor.

use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::WeightsError;
use crate::gguf::reader as gguf;
use crate::header::{HeaderEntry, HeaderError, LENGTH_FIELD_BYTES, header_length, parse_header};

/// An open weight file.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) path: PathBuf,
    file: File,
}

impl Shard {
    /// Opens a safetensors file and reads its header.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<HeaderEntry>), WeightsError> {
        let (shard, file_bytes) = Self::open_file(path)?;
        let entries = shard.read_header(file_bytes)?;
        Ok((shard, entries))
    }

    /// Opens a GGUF file and reads its header.
    pub(crate) fn open_gguf(path: &Path) -> Result<(Self, gguf::Header), WeightsError> {
        let (shard, file_bytes) = Self::open_file(path)?;
        let header = gguf::read_header(BufReader::new(&shard.file), file_bytes)
            .map_err(|reason| WeightsError::malformed(path, reason))?;
        Ok((shard, header))
    }

    /// Opens the file and tells its length.
    fn open_file(path: &Path) -> Result<(Self, u64), WeightsError> {
        // Asked before opening: to open a pipe would wait for its writer for ever.
        let status = std::fs::metadata(path).map_err(|source| WeightsError::io(path, source))?;
        if !status.is_file() {
            return Err(WeightsError::malformed(path, "not a regular file"));
        }
        let file = File::open(path).map_err(|source| WeightsError::io(path, source))?;
        let file_bytes = file
            .metadata()
            .map_err(|source| WeightsError::io(path, source))?
            .len();
        let shard = Self {
            path: path.to_owned(),
            file,
        };
        Ok((shard, file_bytes))
    }

    fn read_header(&self, file_bytes: u64) -> Result<Vec<HeaderEntry>, WeightsError> {
        let header_error = |source| WeightsError::Header {
            path: self.path.clone(),
            source,
        };
        let io_error = |source| WeightsError::io(&self.path, source);
        if file_bytes < LENGTH_FIELD_BYTES {
            return Err(header_error(HeaderError::TooShort { file_bytes }));
        }
        let mut field = [0_u8; 8];
        self.read_at(&mut field, 0).map_err(io_error)?;
        let length = header_length(field, file_bytes).map_err(header_error)?;
        // Bounded by HEADER_BYTES_MAX, so this is at most a few megabytes.
        let mut header = vec![0_u8; length as usize];
        self.read_at(&mut header, LENGTH_FIELD_BYTES)
            .map_err(io_error)?;
        parse_header(&header, file_bytes).map_err(header_error)
    }

    /// The length of the file.
    pub(crate) fn bytes(&self) -> std::io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// See [`will_read`].
    pub(crate) fn will_read(&self, offset: u64, bytes: u64) {
        will_read(&self.file, offset, bytes);
    }

    /// When it was last changed.
    pub(crate) fn modified(&self) -> std::io::Result<std::time::SystemTime> {
        self.file.metadata()?.modified()
    }

    /// Fills `destination` from the given offset of the file.
    pub(crate) fn read_at(&self, destination: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.file.read_exact_at(destination, offset)
    }
}

/// Asks the system to read these bytes of a file into its cache, as far as there are such. It may leave that out, and
/// so may this.
pub fn will_read(file: &File, offset: u64, bytes: u64) {
    #[cfg(target_os = "linux")]
    if let Some(bytes) = std::num::NonZeroU64::new(bytes) {
        let _advice = rustix::fs::fadvise(file, offset, Some(bytes), rustix::fs::Advice::WillNeed);
    }
    #[cfg(not(target_os = "linux"))]
    let _nobody_is_asked = (file, offset, bytes);
}
