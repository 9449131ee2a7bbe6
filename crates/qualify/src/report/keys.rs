//! The pair of keys that reports are signed with: ECDSA on P-256, as PEM (PKCS#8 and SubjectPublicKeyInfo).

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use backstop_signing::Trust;
use p256::SecretKey;
use p256::ecdsa::SigningKey;
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding};

use super::args::KeygenArgs;
use crate::QualifyError;
use crate::output::print;

const KEY_BYTES_MAX: u64 = 16 << 10;
/// Of a private key's file.
const OWNER_ALONE: u32 = 0o600;
const OTHERS: u32 = 0o077;
const PUBLIC: u32 = 0o644;
const SECRET_BYTES: usize = 32;

/// Makes a pair.
pub(super) fn generate(args: &KeygenArgs) -> Result<ExitCode, QualifyError> {
    let key = random_key()?;
    let public = public_pem(&key)?;
    let private = key
        .to_pkcs8_pem(LineEnding::LF)
        .map_err(|error| QualifyError::new(format!("cannot write a key: {error}")))?;
    write_new(&args.key, private.as_bytes(), OWNER_ALONE)?;
    let public_path = public_path(&args.key);
    write_new(&public_path, public.as_bytes(), PUBLIC)?;
    let trust = trust(&public)?;
    print(&format!(
        "private key  {}\npublic key   {}\nSHA-256 of the public key's file: {}\n",
        args.key.display(),
        public_path.display(),
        trust.key_id().unwrap_or_default()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// A private key, and the name that its signatures give it.
pub(super) struct Signer {
    pub(super) key: SigningKey,
    pub(super) key_id: String,
}

/// Reads a private key. One that others can read is refused: it may be theirs by now.
pub(super) fn read(path: &Path) -> Result<Signer, QualifyError> {
    let at = |error| QualifyError::at(path, error);
    let file = File::open(path).map_err(at)?;
    let mode = file.metadata().map_err(at)?.mode();
    if mode & OTHERS != 0 {
        let reason = "others than its owner may read or write it: chmod 600, or make a new key";
        return Err(QualifyError::at(path, reason));
    }
    let mut pem = String::new();
    file.take(KEY_BYTES_MAX)
        .read_to_string(&mut pem)
        .map_err(at)?;
    // The parser's own errors name no bytes of the key, but nothing of it is needed to know what to do.
    let key = SecretKey::from_pkcs8_pem(&pem).map_err(|_| {
        let reason = "it is no private key on P-256 in PKCS#8 (-----BEGIN PRIVATE KEY-----): `report keygen` makes one";
        QualifyError::at(path, reason)
    })?;
    let key_id = trust(&public_pem(&key)?)?.key_id().unwrap_or_default();
    Ok(Signer {
        key: key.into(),
        key_id,
    })
}

fn random_key() -> Result<SecretKey, QualifyError> {
    let mut bytes = [0; SECRET_BYTES];
    loop {
        getrandom::fill(&mut bytes)
            .map_err(|error| QualifyError::new(format!("no random numbers: {error}")))?;
        // All but one of 2^32 are keys.
        if let Ok(key) = SecretKey::from_slice(&bytes) {
            bytes.fill(0);
            return Ok(key);
        }
    }
}

fn public_pem(key: &SecretKey) -> Result<String, QualifyError> {
    let pem = key.public_key().to_public_key_pem(LineEnding::LF);
    pem.map_err(|error| QualifyError::new(format!("cannot write a public key: {error}")))
}

fn trust(public_pem: &str) -> Result<Trust, QualifyError> {
    Trust::from_pem(public_pem.as_bytes()).map_err(|error| QualifyError::new(error.to_string()))
}

fn public_path(private: &Path) -> PathBuf {
    let mut path = private.as_os_str().to_owned();
    path.push(".pub");
    path.into()
}

/// Never in place of another file: an overwritten key cannot be had back.
fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), QualifyError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let written = options
        .open(path)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()));
    written.map_err(|error| QualifyError::at(path, error))
}
