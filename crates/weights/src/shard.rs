//! One weight file: opened, its header checked, its bytes read by position. Or one that is not there, and made instead.
//!
//! Files are read, not mapped: a mapped file that another process truncates kills the reader with
//! a signal, while a read of it returns an error that can name the tensor.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::WeightsError;
use crate::gguf::reader as gguf;
use crate::header::{HeaderEntry, HeaderError, LENGTH_FIELD_BYTES, header_length, parse_header};
use crate::made::Made;

/// An open weight file.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) path: PathBuf,
    content: Content,
}

/// Where bytes come from.
#[derive(Debug)]
enum Content {
    File(File),
    Made(Made),
}

impl Shard {
    /// Opens a safetensors file and reads its header.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<HeaderEntry>), WeightsError> {
        let (file, file_bytes) = open_file(path)?;
        let shard = Self::of_file(path, file);
        let entries = shard.read_header(file_bytes)?;
        Ok((shard, entries))
    }

    /// Opens a GGUF file and reads its header.
    pub(crate) fn open_gguf(path: &Path) -> Result<(Self, gguf::Header), WeightsError> {
        let (file, file_bytes) = open_file(path)?;
        let header = gguf::read_header(BufReader::new(&file), file_bytes)
            .map_err(|reason| WeightsError::malformed(path, reason))?;
        Ok((Self::of_file(path, file), header))
    }

    /// One whose bytes are made when they are read.
    pub(crate) fn made(made: Made) -> Self {
        Self {
            path: PathBuf::from("made-up weights"),
            content: Content::Made(made),
        }
    }

    fn of_file(path: &Path, file: File) -> Self {
        Self {
            path: path.to_owned(),
            content: Content::File(file),
        }
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
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        match &self.content {
            Content::File(file) => Ok(file.metadata()?.len()),
            Content::Made(made) => Ok(made.bytes()),
        }
    }

    /// See [`will_read`].
    pub(crate) fn will_read(&self, offset: u64, bytes: u64) {
        if let Content::File(file) = &self.content {
            will_read(file, offset, bytes);
        }
    }

    /// When it was last changed.
    pub(crate) fn modified(&self) -> io::Result<SystemTime> {
        match &self.content {
            Content::File(file) => file.metadata()?.modified(),
            Content::Made(_) => Ok(SystemTime::UNIX_EPOCH),
        }
    }

    /// Fills `destination` from the given offset of the file.
    pub(crate) fn read_at(&self, destination: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.content {
            Content::File(file) => file.read_exact_at(destination, offset),
            Content::Made(made) => match made.read_at(destination, offset) {
                true => Ok(()),
                false => Err(ErrorKind::UnexpectedEof.into()),
            },
        }
    }
}

/// Opens a file and tells its length.
fn open_file(path: &Path) -> Result<(File, u64), WeightsError> {
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
    Ok((file, file_bytes))
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
