//! Reads and checks the header of one safetensors file, trusting nothing in it.

use std::collections::HashMap;
use std::fmt;

use safetensors::tensor::TensorInfo as RawInfo;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use crate::ElementType;

/// Longest header accepted. The largest checkpoints known need less than a fifth of it; more
/// would only let a damaged length field make the server read and parse garbage.
pub const HEADER_BYTES_MAX: u64 = 32 << 20;

/// Longest tensor name accepted.
pub const NAME_BYTES_MAX: usize = 1024;

/// Bytes of the length field that opens the file.
pub(crate) const LENGTH_FIELD_BYTES: u64 = 8;

const GIT_LFS_POINTER_START: &[u8; 8] = b"version ";

/// What is wrong with a safetensors header.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The file has no room for the length field.
    #[error("the file has {file_bytes} bytes, too few for a safetensors file")]
    TooShort {
        /// Bytes in the file.
        file_bytes: u64,
    },
    /// The file is a placeholder for one stored elsewhere.
    #[error("this is a Git LFS pointer, not the weights: run `git lfs pull`")]
    GitLfsPointer,
    /// The length field is beyond any real header.
    #[error("the header claims {header_bytes} bytes; at most {HEADER_BYTES_MAX} are accepted")]
    LengthAbsurd {
        /// The length claimed.
        header_bytes: u64,
    },
    /// The header runs past the end of the file.
    #[error("truncated: the header needs {needed_bytes} bytes and the file has {file_bytes}")]
    HeaderTruncated {
        /// Bytes the header needs, with its length field.
        needed_bytes: u64,
        /// Bytes in the file.
        file_bytes: u64,
    },
    /// The header is not UTF-8.
    #[error("the header is not UTF-8: {0}")]
    NotUtf8(#[from] std::str::Utf8Error),
    /// The header is not the JSON that it should be.
    #[error("the header is not valid: {0}")]
    Json(#[from] serde_json::Error),
    /// Two tensors of the header have one name.
    #[error("the header names tensor {name:?} twice")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A tensor's entry contradicts itself or its neighbours.
    #[error("tensor {name:?}: {reason}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file ends before its tensors do.
    #[error("truncated: the tensors need {needed_bytes} bytes and the file has {file_bytes}")]
    DataTruncated {
        /// Bytes the whole file needs.
        needed_bytes: u64,
        /// Bytes in the file.
        file_bytes: u64,
    },
    /// The file goes on after its tensors.
    #[error("the tensors end at byte {needed_bytes} but the file has {file_bytes}")]
    TrailingData {
        /// Bytes the whole file needs.
        needed_bytes: u64,
        /// Bytes in the file.
        file_bytes: u64,
    },
}

/// One tensor of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HeaderEntry {
    pub(crate) name: String,
    pub(crate) element_type: ElementType,
    pub(crate) shape: Vec<usize>,
    /// From the start of the file.
    pub(crate) offset_bytes: u64,
    pub(crate) length_bytes: u64,
}

/// The length of the header that follows the file's first eight bytes.
pub(crate) fn header_length(field: [u8; 8], file_bytes: u64) -> Result<u64, HeaderError> {
    if &field == GIT_LFS_POINTER_START {
        return Err(HeaderError::GitLfsPointer);
    }
    let header_bytes = u64::from_le_bytes(field);
    if header_bytes > HEADER_BYTES_MAX {
        return Err(HeaderError::LengthAbsurd { header_bytes });
    }
    let needed_bytes = LENGTH_FIELD_BYTES + header_bytes;
    if needed_bytes > file_bytes {
        return Err(HeaderError::HeaderTruncated {
            needed_bytes,
            file_bytes,
        });
    }
    Ok(header_bytes)
}

/// Parses the header (without its length field) of a file of `file_bytes`.
///
/// The tensors must follow each other without holes and fill the file exactly, which the format
/// demands; it also means that nothing a header says can ask for more memory than the file has.
pub(crate) fn parse_header(
    header: &[u8],
    file_bytes: u64,
) -> Result<Vec<HeaderEntry>, HeaderError> {
    let text = std::str::from_utf8(header)?;
    let Entries(mut entries) = serde_json::from_str(text)?;
    entries.sort_by(|(left, _), (right, _)| left.cmp(right));
    if let Some([(name, _), _]) = entries
        .array_windows()
        .find(|[(left, _), (right, _)]| left == right)
    {
        return Err(HeaderError::DuplicateName { name: name.clone() });
    }
    entries.sort_by_key(|(_, info)| info.data_offsets);

    let data_start = LENGTH_FIELD_BYTES + header.len() as u64;
    let mut next_offset = 0;
    let mut checked = Vec::with_capacity(entries.len());
    for (name, info) in entries {
        match check_entry(&info, next_offset) {
            Ok(length_bytes) => checked.push(HeaderEntry {
                name,
                element_type: info.dtype.into(),
                shape: info.shape,
                offset_bytes: data_start.saturating_add(next_offset),
                length_bytes,
            }),
            Err(reason) => return Err(HeaderError::Tensor { name, reason }),
        }
        next_offset = info.data_offsets.1 as u64;
    }

    let needed_bytes = data_start.saturating_add(next_offset);
    if needed_bytes > file_bytes {
        return Err(HeaderError::DataTruncated {
            needed_bytes,
            file_bytes,
        });
    }
    if needed_bytes < file_bytes {
        return Err(HeaderError::TrailingData {
            needed_bytes,
            file_bytes,
        });
    }
    Ok(checked)
}

/// The length in bytes of a tensor that must begin at `expected_start`.
fn check_entry(info: &RawInfo, expected_start: u64) -> Result<u64, String> {
    let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
    if end < start {
        return Err(format!(
            "its data ends at {end}, before it begins at {start}"
        ));
    }
    if start < expected_start {
        return Err(format!(
            "its data overlaps another tensor's, which ends at {expected_start}"
        ));
    }
    if start > expected_start {
        return Err(format!(
            "there is a hole before its data, from {expected_start} to {start}"
        ));
    }
    let bits = info
        .shape
        .iter()
        .try_fold(1_u64, |product, &extent| product.checked_mul(extent as u64))
        .and_then(|elements| elements.checked_mul(info.dtype.bitsize() as u64))
        .ok_or_else(|| format!("its shape {:?} overflows", info.shape))?;
    if bits % 8 != 0 || bits / 8 != end - start {
        return Err(format!(
            "shape {:?} of {} does not fill its {} bytes",
            info.shape,
            info.dtype,
            end - start
        ));
    }
    Ok(end - start)
}

/// The header's entries as written: a map would hide a name that occurs twice.
struct Entries(Vec<(String, RawInfo)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with one entry per tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        let mut has_metadata = false;
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                // Not used, but a file in which it is malformed is one that other readers refuse.
                map.next_value::<Option<HashMap<String, String>>>()?;
                if has_metadata {
                    return Err(A::Error::custom("__metadata__ occurs twice"));
                }
                has_metadata = true;
                continue;
            }
            if name.is_empty() || name.len() > NAME_BYTES_MAX {
                return Err(A::Error::custom(format!(
                    "a tensor name has {} bytes; 1 to {NAME_BYTES_MAX} are accepted",
                    name.len()
                )));
            }
            let info = map
                .next_value::<RawInfo>()
                .map_err(|error| A::Error::custom(format!("tensor {name:?}: {error}")))?;
            entries.push((name, info));
        }
        Ok(Entries(entries))
    }
}

#[cfg(test)]
mod tests;
