//! Digests as text.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// Hexadecimal digits of a SHA-256 digest.
const DIGITS: usize = 64;

/// The SHA-256 digest of bytes, in lower-case hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(DIGITS);
    for byte in Sha256::digest(bytes) {
        // To write to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The bytes of a SHA-256 digest, if the text is one.
pub(crate) fn digest_bytes(text: &str) -> Option<[u8; DIGITS / 2]> {
    let digits = text.as_bytes();
    if digits.len() != DIGITS {
        return None;
    }
    let value = |digit: u8| Some(char::from(digit).to_digit(16)? as u8);
    let mut bytes = [0; DIGITS / 2];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_written_and_read_and_nothing_else_is() {
        let text = sha256(b"abc");
        assert_eq!(
            text,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(digest_bytes(&text).unwrap(), *Sha256::digest(b"abc"));
        assert!(digest_bytes(&text.to_uppercase()).is_some());
        for wrong in [
            &text[1..],
            &text.replace('b', "g"),
            &text.replace("ba", "é"),
            "",
        ] {
            assert_eq!(digest_bytes(wrong), None, "{wrong}");
        }
    }
}
