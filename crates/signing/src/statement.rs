//! The signed statement: in-toto's (<https://github.com/in-toto/attestation/tree/main/spec/v1>)
//! with model-signing's predicate (`model_signing/_signing/signing.py` describes it).

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::bundle::{expect, parse_json};
use crate::fields::{Document, quoted};
use crate::hexadecimal::digest_bytes;
use crate::{SignatureError, SignedFiles, Signer, file_name};

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://model_signing/signature/v1.0";
/// Files of one model.
const FILES_MAX: usize = 16_384;
/// Paths that were left out, the bytes of one, and those of the model's name.
const IGNORED_PATHS_MAX: usize = 1024;
const IGNORED_PATH_BYTES_MAX: usize = 1024;
const MODEL_NAME_BYTES_MAX: usize = 1024;
/// A file has three fields, each a key and a value, and there are some thirty values besides.
const VALUES_MAX: usize = 7 * FILES_MAX + IGNORED_PATHS_MAX + 1024;

/// What the statement says was signed.
pub(crate) fn read(json: &[u8], signer: Signer) -> Result<SignedFiles, SignatureError> {
    let value = parse_json("signed statement", json, VALUES_MAX)?;
    let statement = Document {
        name: "signed statement",
        value: &value,
    };
    check_types(&statement)?;
    check_serialization(&statement)?;
    let resources = statement.list("/predicate/resources")?;
    limit("files", resources.len(), FILES_MAX)?;
    Ok(SignedFiles {
        digests: read_files(resources, &model_digest(&statement)?)?,
        ignored_paths: ignored_paths(&statement)?,
        model_name: model_name(&statement)?,
        signer,
    })
}

fn check_types(statement: &Document<'_>) -> Result<(), SignatureError> {
    expect("statement type", statement.text("/_type")?, STATEMENT_TYPE)?;
    let predicate = statement.text("/predicateType")?;
    expect("predicate type", predicate, PREDICATE_TYPE)
}

/// Digests must be of whole files: those of pieces would have to be computed piece by piece.
fn check_serialization(statement: &Document<'_>) -> Result<(), SignatureError> {
    let method = statement.text("/predicate/serialization/method")?;
    if method != "files" {
        return Err(SignatureError::Method(quoted(method)));
    }
    check_algorithm(statement.text("/predicate/serialization/hash_type")?)
}

fn check_algorithm(name: &str) -> Result<(), SignatureError> {
    match name {
        "sha256" => Ok(()),
        other => Err(SignatureError::Algorithm(quoted(other))),
    }
}

/// The digest of the only subject, the model.
fn model_digest(statement: &Document<'_>) -> Result<[u8; 32], SignatureError> {
    limit("subjects", statement.list("/subject")?.len(), 1)?;
    let digest = statement.text("/subject/0/digest/sha256")?;
    digest_bytes(digest).ok_or_else(|| SignatureError::Digest("the model".to_owned()))
}

fn model_name(statement: &Document<'_>) -> Result<String, SignatureError> {
    let name = statement.text("/subject/0/name")?;
    limit(
        "bytes in the model's name",
        name.len(),
        MODEL_NAME_BYTES_MAX,
    )?;
    Ok(name.to_owned())
}

/// The files with their digests. The model's digest is over theirs, in the order of the list.
fn read_files(
    resources: &[Value],
    model_digest: &[u8; 32],
) -> Result<BTreeMap<String, String>, SignatureError> {
    let mut digests = BTreeMap::new();
    let mut hasher = Sha256::new();
    for value in resources {
        let file = Document {
            name: "signed file",
            value,
        };
        let name = file.text("/name")?;
        check_name(name)?;
        check_algorithm(file.text("/algorithm")?)?;
        let digest = file.text("/digest")?;
        let bytes = digest_bytes(digest).ok_or_else(|| SignatureError::Digest(quoted(name)))?;
        hasher.update(bytes);
        let earlier = digests.insert(name.to_owned(), digest.to_ascii_lowercase());
        if earlier.is_some() {
            return Err(misnamed(name, "is listed twice"));
        }
    }
    if digests.is_empty() {
        return Err(SignatureError::NoFiles);
    }
    match hasher.finalize().as_slice() == model_digest {
        true => Ok(digests),
        false => Err(SignatureError::ModelDigest),
    }
}

fn check_name(name: &str) -> Result<(), SignatureError> {
    // What model-signing writes when it is given a file in place of a folder.
    if name == "." {
        return Err(SignatureError::SingleFile);
    }
    file_name::fault(name).map_or(Ok(()), |reason| Err(misnamed(name, reason)))
}

fn misnamed(name: &str, reason: &'static str) -> SignatureError {
    SignatureError::FileName {
        name: quoted(name),
        reason,
    }
}

fn ignored_paths(statement: &Document<'_>) -> Result<Vec<String>, SignatureError> {
    let field = "/predicate/serialization/ignore_paths";
    let paths = statement.list_if_any(field)?;
    limit("ignored paths", paths.len(), IGNORED_PATHS_MAX)?;
    let path = |value: &Value| {
        let path = value.as_str().ok_or(SignatureError::Field {
            document: statement.name,
            field,
        })?;
        limit(
            "bytes in an ignored path",
            path.len(),
            IGNORED_PATH_BYTES_MAX,
        )?;
        Ok(path.to_owned())
    };
    paths.iter().map(path).collect()
}

fn limit(what: &'static str, count: usize, max: usize) -> Result<(), SignatureError> {
    match count <= max {
        true => Ok(()),
        false => Err(SignatureError::TooMany { what, max }),
    }
}

#[cfg(test)]
mod tests;
