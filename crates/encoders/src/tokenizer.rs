//! Texts, and pairs of texts, to the tokens that the network was trained on.

use std::borrow::Cow;
use std::path::Path;

use backstop_input::{ValueScan, read_file};
use backstop_types::{EncoderInput, EncoderInputFault, TokenId};
use serde_json::{Map, Value};
use tokenizers::{Encoding, PostProcessor, Token, Tokenizer};

use crate::EncoderError;
use crate::settings::{file_error, length, read_object};

/// Longest `tokenizer.json`.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Its values and keys; a vocabulary of pieces has four for each.
const JSON_VALUES_MAX: usize = 8 << 20;
/// Bytes of a text for each token that it may have. No language comes near; what does is white space or one endless
/// word, which tokenizers drop or make one token of, and whose work must be bounded too.
const BYTES_PER_TOKEN: usize = 64;

/// A tokenizer with the special tokens that it puts around texts.
pub(crate) struct TextTokenizer {
    inner: Tokenizer,
    limits: TokenLimits,
    lowers_case: bool,
}

/// What a network takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenLimits {
    /// Tokens of a text, special tokens included.
    pub(crate) tokens_max: usize,
    pub(crate) vocabulary: usize,
    /// Whether it wants to know where the second text of a pair begins.
    pub(crate) reads_segments: bool,
}

impl TextTokenizer {
    /// Reads `tokenizer.json`, and from the files beside it how long a text may be: what `sentence_bert_config.json`
    /// says, or else `tokenizer_config.json`, and never more than the network takes.
    pub(crate) fn open(directory: &Path, network: TokenLimits) -> Result<Self, EncoderError> {
        let mut inner = open_file(&directory.join("tokenizer.json"))?;
        let config_path = directory.join("tokenizer_config.json");
        let config = read_object(&config_path)?;
        let settings = read_object(&directory.join("sentence_bert_config.json"))?;
        if let Some(side) = config
            .get("truncation_side")
            .filter(|side| *side != "right")
        {
            let reason = format!("truncation_side {side} is not supported, only right");
            return Err(file_error(&config_path, reason));
        }
        let said = length(settings.get("max_seq_length"));
        let said = said.or(length(config.get("model_max_length")));
        let tokens_max = said.unwrap_or(usize::MAX).min(network.tokens_max);
        let special = inner.get_post_processor();
        let special = special.map_or(0, |processor| processor.added_tokens(true));
        if tokens_max <= special {
            return Err(EncoderError::unsupported(format!(
                "texts of {tokens_max} tokens have no room beside {special} special tokens"
            )));
        }
        inner.with_padding(None);
        Ok(Self {
            inner,
            limits: TokenLimits {
                tokens_max,
                reads_segments: network.reads_segments && names_segments(&config),
                ..network
            },
            lowers_case: settings.get("do_lower_case") == Some(&Value::Bool(true)),
        })
    }

    /// Its limits.
    pub(crate) fn limits(&self) -> TokenLimits {
        self.limits
    }

    /// The tokens of a text.
    pub(crate) fn single(
        &self,
        text: &str,
        truncate: bool,
    ) -> Result<EncoderInput, EncoderInputFault> {
        let tokens = self.plain(text, truncate)?;
        self.around(tokens, None, truncate)
    }

    /// The tokens of a pair of texts. The second is cut if need be.
    pub(crate) fn pair(
        &self,
        first: &str,
        second: &str,
        truncate: bool,
    ) -> Result<EncoderInput, EncoderInputFault> {
        let first = self.plain(first, false)?;
        let second = self.plain(second, truncate)?;
        self.around(first, Some(second), truncate)
    }

    /// The text of tokens, special ones included.
    pub(crate) fn text(&self, tokens: &[TokenId]) -> String {
        self.inner.decode(tokens, false).unwrap_or_default()
    }

    /// A text's own tokens. Of one that is much too long, no more is looked at than may have as many as allowed.
    fn plain(&self, text: &str, truncate: bool) -> Result<Vec<TokenId>, EncoderInputFault> {
        let bytes_max = self.limits.tokens_max.saturating_mul(BYTES_PER_TOKEN);
        let text = match (text.len() > bytes_max, truncate) {
            (false, _) => text,
            (true, true) => beginning(text, bytes_max),
            (true, false) => return Err(EncoderInputFault::TooLong { tokens: None }),
        };
        let text = match self.lowers_case {
            true => Cow::Owned(text.to_lowercase()),
            false => Cow::Borrowed(text),
        };
        let encoding = self.inner.encode_fast(text.as_ref(), false);
        let encoding = encoding.map_err(|_error| EncoderInputFault::NotTokenized)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Cuts what is too long, and puts special tokens around.
    fn around(
        &self,
        mut first: Vec<TokenId>,
        mut second: Option<Vec<TokenId>>,
        truncate: bool,
    ) -> Result<EncoderInput, EncoderInputFault> {
        let processor = self.inner.get_post_processor();
        let special = processor.map_or(0, |processor| processor.added_tokens(second.is_some()));
        let behind = second.as_ref().map_or(0, Vec::len);
        let count = first.len() + behind + special;
        let excess = count.saturating_sub(self.limits.tokens_max);
        if excess > 0 {
            let cut = second.as_mut().unwrap_or(&mut first);
            if !truncate || excess > cut.len() {
                let tokens = u32::try_from(count).ok();
                return Err(EncoderInputFault::TooLong { tokens });
            }
            cut.truncate(cut.len() - excess);
        }
        let failed = |_| EncoderInputFault::NotTokenized;
        let second = second.map(|tokens| encoding(tokens, 0));
        let whole = self.inner.post_process(encoding(first, 0), second, true);
        let whole = whole.map_err(failed)?;
        let tokens = whole.get_ids().to_vec();
        let is_known = |token: &TokenId| (*token as usize) < self.limits.vocabulary;
        if tokens.is_empty() || !tokens.iter().all(is_known) {
            return Err(EncoderInputFault::NotTokenized);
        }
        let second_segment = match self.limits.reads_segments {
            true => whole.get_type_ids().iter().position(|&kind| kind == 1),
            false => None,
        };
        Ok(EncoderInput {
            tokens,
            second_segment: second_segment.map(|at| at as u32),
        })
    }
}

/// Tokens as a tokenizer's last stage takes them. It looks at nothing but ids and segments.
fn encoding(tokens: Vec<TokenId>, segment: u32) -> Encoding {
    let as_token = |id| Token::new(id, String::new(), (0, 0));
    Encoding::from_tokens(tokens.into_iter().map(as_token).collect(), segment)
}

/// Whether the network is told of segments, by the list of what its tokenizer gives it.
fn names_segments(config: &Map<String, Value>) -> bool {
    let names = config.get("model_input_names").and_then(Value::as_array);
    names.is_none_or(|names| names.iter().any(|name| name == "token_type_ids"))
}

/// At most so many bytes, up to white space if there is any in their second half.
fn beginning(text: &str, bytes_max: usize) -> &str {
    let start = &text[..text.floor_char_boundary(bytes_max)];
    match start.rfind(char::is_whitespace) {
        Some(end) if end > bytes_max / 2 => &start[..end],
        _ => start,
    }
}

fn open_file(path: &Path) -> Result<Tokenizer, EncoderError> {
    let json = read_file(path, FILE_BYTES_MAX).map_err(|error| {
        let reason = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "it is absent; save the model with a fast tokenizer".to_owned()
            }
            _ => error.to_string(),
        };
        file_error(path, reason)
    })?;
    let mut scan = ValueScan::default();
    scan.add(&json);
    if scan.values() > JSON_VALUES_MAX {
        let reason = format!("it has more than {JSON_VALUES_MAX} JSON values");
        return Err(file_error(path, reason));
    }
    let failed = |error: tokenizers::Error| file_error(path, error.to_string());
    let mut tokenizer = Tokenizer::from_bytes(&json).map_err(failed)?;
    tokenizer.with_truncation(None).map_err(failed)?;
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_at_white_space_in_its_second_half() {
        assert_eq!(beginning("one two three", 9), "one two");
        assert_eq!(beginning("one twothree", 9), "one twoth");
        assert_eq!(beginning("ééééé", 5), "éé");
    }
}
