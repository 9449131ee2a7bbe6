//! Compares what came with what the hub knows it by.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use backstop_models::{digest_of, hexadecimal};
use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::listing::{FileDigest, RemoteFile};

const BUFFER_BYTES: usize = 256 << 10;

/// The SHA-256 of a file, if it is what the hub says; the inner error says what it is instead.
pub(crate) fn checked(path: &Path, file: &RemoteFile) -> std::io::Result<Result<String, String>> {
    let sha256 = digest_of(path, &|_| {})?;
    let (expected, found) = match &file.digest {
        FileDigest::Sha256(expected) => (expected, sha256.clone()),
        FileDigest::Git(expected) => (expected, git_digest(path, file.bytes)?),
    };
    Ok(match *expected == found {
        true => Ok(sha256),
        false => Err(found),
    })
}

/// Whether these bytes are the file that the hub lists.
pub(crate) fn is_content(bytes: &[u8], file: &RemoteFile) -> bool {
    let found = match &file.digest {
        FileDigest::Sha256(_) => hexadecimal(&Sha256::digest(bytes)),
        FileDigest::Git(_) => {
            let hasher = Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
            hexadecimal(&hasher.chain_update(bytes).finalize())
        }
    };
    bytes.len() as u64 == file.bytes && found == file.digest.text()
}

/// The digest of git for a file: SHA-1 over `blob`, its length and its content.
fn git_digest(path: &Path, bytes: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {bytes}\0"));
    let mut buffer = vec![0_u8; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Ok(hexadecimal(&hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_gits_digest_or_by_sha_256() {
        let path =
            std::env::temp_dir().join(format!("backstop-pull-digest-{}", std::process::id()));
        std::fs::write(&path, "hello\n").unwrap();
        let file = |digest: FileDigest| RemoteFile {
            name: "x".to_owned(),
            bytes: 6,
            digest,
        };
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        // `printf 'hello\n' | git hash-object --stdin`
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        for digest in [
            FileDigest::Git(git.to_owned()),
            FileDigest::Sha256(sha256.to_owned()),
        ] {
            assert!(is_content(b"hello\n", &file(digest.clone())));
            assert!(!is_content(b"hullo\n", &file(digest.clone())));
            assert_eq!(checked(&path, &file(digest)).unwrap().unwrap(), sha256);
        }
        let wrong = FileDigest::Git("0".repeat(40));
        assert_eq!(checked(&path, &file(wrong)).unwrap().unwrap_err(), git);
        std::fs::remove_file(path).unwrap();
    }
}
