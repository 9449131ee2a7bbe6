//! What a hub says of a commit.

use std::collections::BTreeSet;

use backstop_input::ValueAllowance;
use hf_hub::api::RepoInfo;
use serde::Deserialize;
use serde_json::Value;

use crate::error::PullError;
use crate::names::{is_plain_path, shown};

pub(crate) const LISTING_BYTES_MAX: u64 = 32 << 20;
const FILES_MAX: usize = 10_000;
/// A file takes about twenty; the rest is the model's card.
const VALUES_MAX: usize = 500_000;

/// What a hub says of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) commit: String,
    pub(crate) licence: Option<String>,
    /// Whether one must ask for it, and whether somebody answers (`manual`) or nobody (`auto`).
    pub(crate) gated: Option<String>,
    pub(crate) files: Vec<RemoteFile>,
}

/// A file of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) digest: FileDigest,
}

/// What the hub knows a file by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileDigest {
    /// Of a large file: SHA-256.
    Sha256(String),
    /// Of one that lies in the repository itself: git's, a SHA-1 over a header and the content.
    Git(String),
}

impl FileDigest {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Sha256(text) | Self::Git(text) => text,
        }
    }
}

/// More of a file than hf-hub reads.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Blob {
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Large>,
}

#[derive(Deserialize)]
struct Large {
    sha256: Option<String>,
    size: Option<u64>,
}

impl Listing {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, PullError> {
        let allowance = ValueAllowance::new(VALUES_MAX);
        let answer = allowance.parse(json).map_err(|error| unusable(&error))?;
        let info = RepoInfo::deserialize(&answer).map_err(|error| unusable(&error))?;
        if !is_hexadecimal(&info.sha, 40) {
            return Err(unusable(&"it names no commit"));
        }
        if info.siblings.len() > FILES_MAX {
            return Err(unusable(&format!("it has more than {FILES_MAX} files")));
        }
        let blobs = answer.get("siblings").and_then(Value::as_array);
        let blobs = blobs.into_iter().flatten();
        let mut files = Vec::with_capacity(info.siblings.len());
        for (sibling, blob) in info.siblings.into_iter().zip(blobs) {
            files.push(remote_file(sibling.rfilename, blob)?);
        }
        let names: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
        if names.len() < files.len() {
            return Err(unusable(&"it names a file twice"));
        }
        Ok(Self {
            commit: info.sha,
            licence: licence(&answer),
            gated: answer.get("gated").and_then(Value::as_str).map(shown),
            files,
        })
    }

    pub(crate) fn file(&self, name: &str) -> Option<&RemoteFile> {
        self.files.iter().find(|file| file.name == name)
    }
}

fn remote_file(name: String, blob: &Value) -> Result<RemoteFile, PullError> {
    if !is_plain_path(&name) {
        return Err(unusable(&format!(
            "{:?} is not a path within a directory",
            shown(&name)
        )));
    }
    let blob = Blob::deserialize(blob).map_err(|error| unusable(&error))?;
    let (bytes, digest) = match blob.lfs {
        Some(large) => {
            let digest = large.sha256.filter(|text| is_hexadecimal(text, 64));
            (large.size.or(blob.size), digest.map(FileDigest::Sha256))
        }
        None => {
            let digest = blob.blob_id.filter(|text| is_hexadecimal(text, 40));
            (blob.size, digest.map(FileDigest::Git))
        }
    };
    let (Some(bytes), Some(digest)) = (bytes, digest) else {
        return Err(unusable(&format!(
            "it does not say size and digest of {:?}, without which nothing could be checked",
            shown(&name)
        )));
    };
    Ok(RemoteFile {
        name,
        bytes,
        digest,
    })
}

fn licence(answer: &Value) -> Option<String> {
    let card = answer.get("cardData")?;
    let text = |name: &str| card.get(name).and_then(Value::as_str).map(shown);
    match text("license") {
        // Then the card has its name.
        Some(licence) if licence == "other" => text("license_name").or(Some(licence)),
        licence => licence,
    }
}

fn is_hexadecimal(text: &str, digits: usize) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == digits && text.bytes().all(is_digit)
}

fn unusable(reason: &dyn std::fmt::Display) -> PullError {
    PullError::new(format!("the hub's list of files cannot be used: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(siblings: &str) -> Result<Listing, String> {
        let commit = "a".repeat(40);
        let card = "\"cardData\":{\"license\":\"other\",\"license_name\":\"own\\u001b[2J\"}";
        let json =
            format!("{{\"sha\":\"{commit}\",\"gated\":\"auto\",{card},\"siblings\":[{siblings}]}}");
        Listing::parse(json.as_bytes()).map_err(|error| error.to_string())
    }

    fn sibling(name: &str) -> String {
        let digest = "b".repeat(40);
        format!("{{\"rfilename\":\"{name}\",\"size\":3,\"blobId\":\"{digest}\"}}")
    }

    #[test]
    fn sizes_digests_licence_and_gate_are_read() {
        let digest = "c".repeat(64);
        let large = format!(
            "{{\"rfilename\":\"w\",\"size\":9,\"blobId\":\"x\",\"lfs\":{{\"sha256\":\"{digest}\",\"size\":9,\"pointerSize\":1}}}}"
        );
        let listing = listing(&format!("{},{large}", sibling("config.json"))).unwrap();
        assert_eq!(listing.licence.as_deref(), Some("own[2J"));
        assert_eq!(listing.gated.as_deref(), Some("auto"));
        assert_eq!(listing.files[0].digest, FileDigest::Git("b".repeat(40)));
        assert_eq!(
            listing.file("w").unwrap().digest,
            FileDigest::Sha256(digest)
        );
    }

    #[test]
    fn what_cannot_be_checked_or_leads_out_is_refused() {
        for (siblings, part) in [
            (sibling("../../etc/passwd"), "not a path"),
            (sibling("/etc/passwd"), "not a path"),
            (sibling("a\\\\b"), "not a path"),
            (format!("{},{}", sibling("a"), sibling("a")), "twice"),
            ("{\"rfilename\":\"a\"}".to_owned(), "size and digest"),
            (
                "{\"rfilename\":\"a\",\"size\":-1}".to_owned(),
                "cannot be used",
            ),
        ] {
            let error = listing(&siblings).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let many = vec![sibling("a"); FILES_MAX + 1].join(",");
        assert!(
            listing(&many)
                .unwrap_err()
                .contains("more than 10000 files")
        );
        let nested = format!("[{}]", "[],".repeat(VALUES_MAX));
        assert!(listing(&nested).unwrap_err().contains("too many values"));
    }
}
