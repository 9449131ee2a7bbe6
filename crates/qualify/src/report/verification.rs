//! Whether a report is what somebody signed, and still holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use backstop_signing::{Envelope, Trust};
use serde_json::Value;

use super::args::VerifyArgs;
use super::identity::sha256;
use super::signing::{PREDICATE_TYPE, STATEMENT_TYPE};
use crate::QualifyError;
use crate::output::print;

const ENVELOPE_BYTES_MAX: u64 = 8 << 20;
const SUBJECTS_MAX: usize = 1024;
const EXPIRED: u8 = 3;

/// What was signed, once it is known by whom.
struct Signed {
    signer: String,
    /// SHA-256 by name.
    digests: BTreeMap<String, String>,
    result: String,
    expires: String,
}

pub(super) fn run(args: &VerifyArgs) -> Result<ExitCode, QualifyError> {
    let signed = open(args)?;
    let folder = args
        .files
        .clone()
        .unwrap_or_else(|| folder_of(&args.envelope));
    let mut checked = Vec::new();
    for (name, digest) in &signed.digests {
        // Only the report's own files are called by a file's name.
        let path = folder.join(name);
        if is_file_name(name) && path.is_file() {
            compare(&path, digest)?;
            checked.push(name.clone());
        }
    }
    for path in &args.also {
        let digest = sha256(path)?;
        let known = signed.digests.iter().find(|(_, signed)| **signed == digest);
        let (name, _) = known.ok_or_else(|| {
            QualifyError::at(
                path,
                "NOT VERIFIED: its digest is none of those that were signed",
            )
        })?;
        checked.push(format!("{} ({name})", path.display()));
    }
    if checked.is_empty() {
        let reason = "NOT VERIFIED: none of the signed files is there (--files DIR)";
        return Err(QualifyError::at(&folder, reason));
    }
    let expires = humantime::parse_rfc3339(&signed.expires).map_err(|_| {
        QualifyError::at(&args.envelope, "NOT VERIFIED: its date of expiry is none")
    })?;
    let has_expired = SystemTime::now() >= expires;
    let is_checked = |name: &&String| {
        checked
            .iter()
            .any(|one| one == *name || one.contains(&format!("({name})")))
    };
    let others: Vec<&str> = signed
        .digests
        .keys()
        .filter(|name| !is_checked(name))
        .map(String::as_str)
        .collect();
    let state = if has_expired { "EXPIRED" } else { "VERIFIED" };
    print(&format!(
        "{state}\nsigned by   {}\nresult      {}\nexpires     {}\nchecked     {}\nnot checked {}\n",
        signed.signer,
        signed.result,
        signed.expires,
        checked.join(", "),
        if others.is_empty() {
            "nothing else was signed".to_owned()
        } else {
            others.join(", ")
        }
    ))?;
    Ok(match has_expired {
        true => ExitCode::from(EXPIRED),
        false => ExitCode::SUCCESS,
    })
}

/// Nothing of the payload is looked at before it is known whose it is.
fn open(args: &VerifyArgs) -> Result<Signed, QualifyError> {
    let path = &args.envelope;
    let refuse = |reason: String| QualifyError::at(path, format!("NOT VERIFIED: {reason}"));
    let trust = Trust::read(&args.key).map_err(|error| QualifyError::at(&args.key, error))?;
    if !trust.is_key() {
        return Err(QualifyError::at(
            &args.key,
            "it has certificates; reports are signed by keys",
        ));
    }
    let bytes = backstop_input::read_file(path, ENVELOPE_BYTES_MAX)
        .map_err(|error| QualifyError::at(path, error))?;
    let envelope = Envelope::parse(&bytes).map_err(|error| refuse(error.to_string()))?;
    envelope
        .verify(&trust)
        .map_err(|error| refuse(error.to_string()))?;
    let statement: Value = serde_json::from_slice(&envelope.payload)
        .map_err(|_| refuse("what is signed is no JSON".into()))?;
    let types = (&statement["_type"], &statement["predicateType"]);
    if types != (&STATEMENT_TYPE.into(), &PREDICATE_TYPE.into()) {
        return Err(refuse(
            "what is signed is no statement about a report".into(),
        ));
    }
    let text = |pointer: &str| {
        let found = statement.pointer(pointer).and_then(Value::as_str);
        found
            .map(str::to_owned)
            .ok_or_else(|| refuse(format!("what is signed has no {pointer}")))
    };
    Ok(Signed {
        // As `keygen` and `sign` name it.
        signer: format!("the key {}", trust.key_id().unwrap_or_default()),
        digests: digests(&statement).map_err(refuse)?,
        result: text("/predicate/result")?,
        expires: text("/predicate/qualification/expires")?,
    })
}

fn digests(statement: &Value) -> Result<BTreeMap<String, String>, String> {
    let subjects = statement["subject"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    if subjects.is_empty() || subjects.len() > SUBJECTS_MAX {
        return Err(format!("{} files were signed", subjects.len()));
    }
    let mut digests = BTreeMap::new();
    for subject in subjects {
        let (name, digest) = (&subject["name"], &subject["digest"]["sha256"]);
        let (Some(name), Some(digest)) = (name.as_str(), digest.as_str()) else {
            return Err("a signed file has no name or no SHA-256".into());
        };
        if digests
            .insert(name.to_owned(), digest.to_lowercase())
            .is_some()
        {
            return Err(format!("{name:?} was signed twice"));
        }
    }
    Ok(digests)
}

fn compare(path: &Path, digest: &str) -> Result<(), QualifyError> {
    if sha256(path)? == digest {
        return Ok(());
    }
    let reason =
        "NOT VERIFIED: it is not the file that was signed: it was changed, or is another report's";
    Err(QualifyError::at(path, reason))
}

/// Whether a name stays in its folder.
fn is_file_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\\', '\0']) && name != "." && name != ".."
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}
