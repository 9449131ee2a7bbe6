//! Turns tokens into text as they arrive, without ever cutting a character in two.

use backstop_types::TokenId;

use crate::Tokenizer;

/// Decodes one answer token by token.
///
/// Tokens of a byte-level vocabulary need not end on a character boundary. At most three bytes of
/// an unfinished character are held back; bytes that can no longer become a character are replaced
/// by U+FFFD at once. All text together equals `String::from_utf8_lossy` of all bytes together.
#[derive(Clone, Debug, Default)]
pub struct IncrementalDetokenizer {
    skip_special_tokens: bool,
    incomplete: Vec<u8>,
}

impl IncrementalDetokenizer {
    /// Makes a decoder that leaves special tokens out of the text if `skip_special_tokens`.
    pub fn new(skip_special_tokens: bool) -> Self {
        Self {
            skip_special_tokens,
            incomplete: Vec::new(),
        }
    }

    /// Adds one token and returns the text that is now complete; often empty. A token that the
    /// vocabulary doesn't have adds nothing.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: TokenId) -> String {
        if self.skip_special_tokens && tokenizer.is_special(token) {
            return String::new();
        }
        self.push_bytes(tokenizer.token_bytes(token).unwrap_or_default())
    }

    /// Adds raw bytes and returns the text that is now complete.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> String {
        self.incomplete.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.incomplete);
        let mut text = String::with_capacity(pending.len());
        let mut rest = pending.as_slice();
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    return text;
                }
                Err(error) => error,
            };
            let (valid, invalid) = rest.split_at(error.valid_up_to());
            text.push_str(&String::from_utf8_lossy(valid));
            let Some(invalid_length) = error.error_len() else {
                self.incomplete.extend_from_slice(invalid);
                return text;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = invalid.get(invalid_length..).unwrap_or_default();
        }
    }

    /// Whether an unfinished character is held back.
    pub fn is_within_character(&self) -> bool {
        !self.incomplete.is_empty()
    }

    /// Ends the answer: what is left of an unfinished character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.incomplete)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::IncrementalDetokenizer;

    #[test]
    fn holds_a_split_character_back() {
        let mut detokenizer = IncrementalDetokenizer::new(true);
        let bytes = "🦀".as_bytes();
        assert_eq!(detokenizer.push_bytes(&bytes[..1]), "");
        assert_eq!(detokenizer.push_bytes(&bytes[1..3]), "");
        assert_eq!(detokenizer.push_bytes(&bytes[3..]), "🦀");
        assert_eq!(detokenizer.finish(), "");
    }

    #[test]
    fn replaces_bytes_that_cannot_become_a_character() {
        let mut detokenizer = IncrementalDetokenizer::new(true);
        assert_eq!(detokenizer.push_bytes(b"\xff"), "\u{fffd}");
        assert_eq!(detokenizer.push_bytes(b"\xe2\x82"), "");
        assert_eq!(detokenizer.push_bytes(b"a"), "\u{fffd}a");
        assert_eq!(detokenizer.push_bytes(b"\xf0\x9f"), "");
        assert_eq!(detokenizer.finish(), "\u{fffd}");
    }

    proptest! {
        #[test]
        fn equals_lossy_decoding_of_the_whole(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..24),
        ) {
            assert_equals_lossy(&pieces)?;
        }

        #[test]
        fn equals_the_text_however_it_is_cut(text in any::<String>(), cut in 1usize..5) {
            let pieces: Vec<Vec<u8>> = text.as_bytes().chunks(cut).map(<[u8]>::to_vec).collect();
            assert_equals_lossy(&pieces)?;
        }
    }

    fn assert_equals_lossy(pieces: &[Vec<u8>]) -> Result<(), proptest::test_runner::TestCaseError> {
        let mut detokenizer = IncrementalDetokenizer::new(true);
        let mut text = String::new();
        for piece in pieces {
            text.push_str(&detokenizer.push_bytes(piece));
            prop_assert!(detokenizer.incomplete.len() <= 3);
        }
        text.push_str(&detokenizer.finish());
        prop_assert_eq!(text, String::from_utf8_lossy(&pieces.concat()).into_owned());
        Ok(())
    }
}
