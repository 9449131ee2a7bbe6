//! Whether a model's files are those that they should be: their sizes, digests, and a signature.

use std::path::{Path, PathBuf};

use backstop_models::{FileRecord, FileRecords, LocatedModel, check_sizes, verify_digests};
use backstop_signing::{SIGNATURE_FILE_NAME, SignedFiles, Trust, verify_file};

use crate::args::{IntegrityArgs, SignatureArgs};
use crate::progress::bytes_bar;

/// Checks what the settings ask for, and always the sizes. Nothing of the model has been used before.
pub(crate) fn check(located: &LocatedModel, args: &IntegrityArgs) -> Result<(), String> {
    let failed =
        |reason: &dyn std::fmt::Display| format!("{}: {reason}", located.directory.display());
    located.check_sizes().map_err(|error| failed(&error))?;
    if let Some(key) = &args.require_signature {
        let verdict = verify_signature(located, key, args.signature.as_deref())?;
        tracing::info!("{}: {verdict}", located.name());
    }
    if args.verify {
        let Some(verdict) = verify_records(located)? else {
            return Err(failed(
                &"no digests are recorded of its files, so that --verify has nothing to compare them with; \
                  `backstop import` records them",
            ));
        };
        tracing::info!("{}: {verdict}", located.name());
    }
    Ok(())
}

/// Compares all files with their records, and with the signature if a key is given. Returns what is true of them.
pub(crate) fn verify(located: &LocatedModel, args: &SignatureArgs) -> Result<Vec<String>, String> {
    let mut verdicts = Vec::new();
    if let Some(key) = &args.key {
        verdicts.push(verify_signature(located, key, args.signature.as_deref())?);
    }
    verdicts.extend(verify_records(located)?);
    match verdicts.is_empty() {
        true => Err(format!(
            "no digests are recorded of the files of {}, and no --key says by whom they must be signed",
            located.name()
        )),
        false => Ok(verdicts),
    }
}

/// `None` if there are no records.
fn verify_records(located: &LocatedModel) -> Result<Option<String>, String> {
    let Some(records) = located.records() else {
        return Ok(None);
    };
    compare(&located.directory, records)?;
    let count = records.len();
    Ok(Some(format!(
        "all {count} files have the digests of the manifest"
    )))
}

fn verify_signature(
    located: &LocatedModel,
    key: &Path,
    signature: Option<&Path>,
) -> Result<String, String> {
    let directory = directory_of(located);
    let trust = Trust::read(key).map_err(|error| error.to_string())?;
    let place = signature.map_or_else(|| directory.join(SIGNATURE_FILE_NAME), Path::to_owned);
    let signed = verify_file(&place, &trust);
    let signed = signed.map_err(|error| format!("{}: {error}", place.display()))?;
    let SignedFiles {
        digests, signer, ..
    } = signed;
    let records: FileRecords = digests
        .into_iter()
        .map(|(name, sha256)| {
            let bytes = None;
            (name, FileRecord { sha256, bytes })
        })
        .collect();
    compare(&directory, &records).map_err(|reason| format!("{}: {reason}", place.display()))?;
    Ok(format!(
        "all {} files are signed by {signer}",
        records.len()
    ))
}

/// The directory in which the files of a model are named: of a single file the one that it lies in.
fn directory_of(located: &LocatedModel) -> PathBuf {
    match located.directory.is_file() {
        true => located
            .directory
            .parent()
            .unwrap_or(Path::new(""))
            .to_owned(),
        false => located.directory.clone(),
    }
}

/// Hashes all files, with a bar.
fn compare(directory: &Path, records: &FileRecords) -> Result<(), String> {
    let failed = |error: backstop_models::FilesDiffer| format!("{}: {error}", directory.display());
    check_sizes(directory, records).map_err(failed)?;
    let sizes = records.keys().map(|name| directory.join(name).metadata());
    let bytes = sizes.flatten().map(|status| status.len()).sum();
    let bar = bytes_bar("hashing", bytes);
    let compared = verify_digests(directory, records, &|bytes| bar.set_position(bytes));
    bar.finish_and_clear();
    compared.map_err(failed)
}
