//! How a vocabulary writes bytes, read off the tokenizer's decoder.

use serde_json::Value;
use tokenizers::DecoderWrapper;

use super::TokenizerError;

/// How to turn a vocabulary entry into the bytes that it stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ByteMapping {
    /// GPT-2's alphabet: one printable character for each byte.
    ByteLevel,
    /// Text in which some strings stand for others (a space is often written as U+2581).
    Text {
        /// Replacements, applied one after the other.
        replacements: Vec<(String, String)>,
        /// Entries of the form `<0x0A>` stand for one byte.
        byte_fallback: bool,
    },
}

impl ByteMapping {
    /// Reads the mapping off a decoder, or says which decoder is not understood.
    pub(super) fn from_decoder(decoder: Option<&DecoderWrapper>) -> Result<Self, TokenizerError> {
        let Some(decoder) = decoder else {
            return Err(TokenizerError::Decoder("none at all".to_owned()));
        };
        let decoder = serde_json::to_value(decoder)
            .map_err(|error| TokenizerError::Decoder(error.to_string()))?;
        let steps = match decoder.get("decoders").and_then(Value::as_array) {
            Some(steps) => steps.as_slice(),
            None => std::slice::from_ref(&decoder),
        };
        Self::from_steps(steps)
    }

    fn from_steps(steps: &[Value]) -> Result<Self, TokenizerError> {
        let mut replacements = Vec::new();
        let mut byte_fallback = false;
        let mut fused = false;
        for step in steps {
            match step
                .get("type")
                .and_then(Value::as_str)
                .unwrap_or("without a type")
            {
                "ByteLevel" if steps.len() == 1 => return Ok(Self::ByteLevel),
                "Fuse" => fused = true,
                // Once the tokens are one string, stripping concerns the whole text's ends alone.
                "Strip" if fused => {}
                "ByteFallback" if !fused => byte_fallback = true,
                "Metaspace" if !fused => replacements.push((
                    string_field(step, "replacement")
                        .unwrap_or("\u{2581}")
                        .to_owned(),
                    " ".to_owned(),
                )),
                "Replace" if !fused => {
                    let pattern = step.get("pattern").and_then(|p| string_field(p, "String"));
                    let (Some(pattern), Some(content)) = (pattern, string_field(step, "content"))
                    else {
                        return Err(TokenizerError::Decoder(format!("{step}")));
                    };
                    replacements.push((pattern.to_owned(), content.to_owned()));
                }
                _ => return Err(TokenizerError::Decoder(format!("{step}"))),
            }
        }
        Ok(Self::Text {
            replacements,
            byte_fallback,
        })
    }

    /// Appends the bytes of one vocabulary entry.
    pub(super) fn append_bytes(&self, token: &str, bytes: &mut Vec<u8>) {
        match self {
            Self::ByteLevel => {
                let start = bytes.len();
                for character in token.chars() {
                    let Some(byte) = byte_of(character) else {
                        // An entry outside the alphabet is text as it stands.
                        bytes.truncate(start);
                        bytes.extend_from_slice(token.as_bytes());
                        return;
                    };
                    bytes.push(byte);
                }
            }
            Self::Text {
                replacements,
                byte_fallback,
            } => {
                if let Some(byte) = fallback_byte(token).filter(|_| *byte_fallback) {
                    bytes.push(byte);
                    return;
                }
                let mut text = token.to_owned();
                for (pattern, content) in replacements {
                    text = text.replace(pattern, content);
                }
                bytes.extend_from_slice(text.as_bytes());
            }
        }
    }
}

fn string_field<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

/// The byte of an entry like `<0x0A>`.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2)
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

/// Inverts GPT-2's alphabet: printable Latin-1 characters stand for themselves, and the other
/// bytes, in order, for the characters from U+0100 on.
fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    let byte = match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// The character that stands for a byte in GPT-2's alphabet.
pub(super) fn character_of(byte: u8) -> char {
    let code = u32::from(byte);
    let code = match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code,
        0..=0x20 => code + 0x100,
        0x7f..=0xa0 => code - 0x7f + 0x121,
        0xad => 0x143,
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character_of_its_own() {
        for byte in 0..=255 {
            assert_eq!(byte_of(character_of(byte)), Some(byte));
        }
    }
}
