//! What a manifest records of each file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The files of a model by their paths within its directory, with `/` between the parts.
pub type FileRecords = BTreeMap<String, FileRecord>;

/// What a file must be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "Written", into = "Written")]
pub struct FileRecord {
    /// The SHA-256, 64 hexadecimal digits.
    pub sha256: String,
    /// The size, if it is recorded.
    pub bytes: Option<u64>,
}

/// As manifests have it: the digest alone, or a table.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Written {
    Digest(String),
    Table(Table),
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Table {
    sha256: String,
    bytes: u64,
}

impl From<Written> for FileRecord {
    fn from(written: Written) -> Self {
        match written {
            Written::Digest(sha256) => Self {
                sha256,
                bytes: None,
            },
            Written::Table(Table { sha256, bytes }) => Self {
                sha256,
                bytes: Some(bytes),
            },
        }
    }
}

impl From<FileRecord> for Written {
    fn from(record: FileRecord) -> Self {
        match record.bytes {
            None => Self::Digest(record.sha256),
            Some(bytes) => Self::Table(Table {
                sha256: record.sha256,
                bytes,
            }),
        }
    }
}
