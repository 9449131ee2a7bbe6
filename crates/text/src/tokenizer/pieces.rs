//! Encodes long texts piece by piece, so that neither memory nor time grow with a text that is too
//! long, and little memory with one that is not.
//!
//! A text is cut where the tokens on both sides are the same with and without the cut: before a
//! single space between a word or mark and a word, and behind a single newline between such. All
//! rules by which models cut text into words cut there too; whether this tokenizer does is tried
//! out when it is loaded, and a place that one of its tokens reaches across is no such place.

use std::ops::Range;

use backstop_types::TokenId;
use tokenizers::AddedToken;

use super::{Tokenizer, TokenizerError};
use crate::PromptText;

/// Texts up to this size are encoded as one; longer ones are cut behind so many bytes as soon as
/// they can be.
const PIECE_BYTES: usize = 128 << 10;
/// What is longer than this without a place to cut is cut anywhere, to count it. The tokenizers'
/// regular expressions give up on runs of a million characters, without a word.
pub(super) const UNBROKEN_BYTES_MAX: usize = 768 << 10;
/// Tokens by which a cut in any place can raise their number, generously.
const CUT_TOLERANCE_TOKENS: usize = 64;

/// Where a tokenizer's texts can be cut.
#[derive(Debug)]
pub(super) struct Cuts {
    /// ASCII characters that may stand before the space.
    before_space: [bool; 128],
    behind_newline: bool,
}

impl Default for Cuts {
    /// Nowhere.
    fn default() -> Self {
        Self {
            before_space: [false; 128],
            behind_newline: false,
        }
    }
}

/// Some bytes of a text.
struct Piece {
    range: Range<usize>,
    /// Whether its tokens are those of the whole text there.
    exact: bool,
}

impl Cuts {
    /// Finds out where the tokens are the same with and without a cut.
    pub(super) fn of(tokenizer: &Tokenizer) -> Self {
        let graphic = |code: u8| char::from(code).is_ascii_graphic();
        let mut cuts = Self {
            before_space: std::array::from_fn(|code| graphic(code as u8)),
            behind_newline: true,
        };
        for id in 0..tokenizer.vocab_size() as TokenId {
            cuts.spare_inside(tokenizer.token_bytes(id).unwrap_or_default());
        }
        let added = tokenizer.inner.get_added_tokens_decoder().into_values();
        for token in added.collect::<Vec<_>>() {
            cuts.spare_around(&token);
        }
        let same = |left: &str, right: &str| is_same(tokenizer, left, right).unwrap_or(false);
        for code in 0..128u8 {
            let left = format!("The 3 ends{}", char::from(code));
            let works = || same(&left, " and Then") && same(&left, " Z");
            cuts.before_space[usize::from(code)] &= graphic(code) && works();
        }
        let lines = ["The end\n", "The end.\n", "}\n", "12\n", "末。\n", "末\n"];
        let works = |line: &str| ["And so", "i", "末"].iter().all(|next| same(line, next));
        cuts.behind_newline &= lines.iter().all(|line| works(line));
        cuts
    }

    /// Rules out cuts inside of a token.
    fn spare_inside(&mut self, token: &[u8]) {
        for pair in token.windows(2) {
            match *pair {
                [before, b' '] if before.is_ascii() => {
                    self.before_space[usize::from(before)] = false
                }
                [b'\n', behind] if !behind.is_ascii_whitespace() => self.behind_newline = false,
                _ => {}
            }
        }
    }

    /// Rules out cuts between a token and white space that it takes.
    fn spare_around(&mut self, token: &AddedToken) {
        let last = token.content.bytes().last();
        if let Some(last) = last.filter(|last| token.rstrip && last.is_ascii()) {
            self.before_space[usize::from(last)] = false;
        }
        if token.lstrip && token.content.starts_with(char::is_alphabetic) {
            self.before_space = [false; 128];
        }
        self.behind_newline &= !(token.lstrip || token.rstrip);
    }

    /// Whether a text can be cut before this byte.
    fn allow(&self, text: &str, at: usize) -> bool {
        let bytes = text.as_bytes();
        match bytes[at - 1] {
            b'\n' if self.behind_newline => {
                let before = text[..at - 1].chars().next_back();
                let ends = |c: char| c.is_alphanumeric() || c.is_ascii_graphic() || c == '。';
                before.is_some_and(ends) && text[at..].starts_with(char::is_alphabetic)
            }
            before if before.is_ascii() && bytes[at] == b' ' => {
                let next = bytes.get(at + 1);
                self.before_space[usize::from(before)] && next.is_some_and(u8::is_ascii_alphabetic)
            }
            _ => false,
        }
    }

    fn next_piece(&self, text: &str, start: usize) -> Piece {
        let whole = Piece {
            range: start..text.len(),
            exact: true,
        };
        let rest = text.len() - start;
        if rest <= PIECE_BYTES {
            return whole;
        }
        let reach = start + rest.min(UNBROKEN_BYTES_MAX);
        match (start + PIECE_BYTES..reach).find(|&at| self.allow(text, at)) {
            Some(end) => Piece {
                range: start..end,
                exact: true,
            },
            None if reach == text.len() => whole,
            None => Piece {
                range: start..text.floor_char_boundary(reach),
                exact: false,
            },
        }
    }
}

fn is_same(tokenizer: &Tokenizer, left: &str, right: &str) -> Result<bool, TokenizerError> {
    let mut parts = tokenizer.encode(left, false)?;
    parts.extend(tokenizer.encode(right, false)?);
    Ok(tokenizer.encode(&format!("{left}{right}"), false)? == parts)
}

impl Tokenizer {
    /// Encodes a prompt of at most so many tokens; a longer one is refused as soon as that is
    /// certain. The tokens are those of the whole text, however it is cut for the purpose.
    pub fn encode_within(
        &self,
        prompt: &PromptText,
        add_special_tokens: bool,
        tokens_max: usize,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        let text = prompt.as_str();
        let too_long = |tokens| Err(TokenizerError::TooLong { tokens });
        let tokens_min = text.len() / self.longest_token_bytes.max(1);
        if tokens_min > tokens_max {
            return too_long(tokens_min);
        }
        let (mut tokens, mut tolerance, mut start) = (Vec::new(), 0, 0);
        while start < text.len() {
            let piece = self.cuts.next_piece(text, start);
            start = piece.range.end;
            tokens.append(&mut self.encode_piece(prompt, piece.range)?);
            if !piece.exact {
                tolerance += CUT_TOLERANCE_TOKENS;
            }
            if tokens.len() > tokens_max + tolerance {
                return too_long(tokens.len() - tolerance);
            }
        }
        if tolerance > 0 {
            return Err(TokenizerError::Unbroken);
        }
        if add_special_tokens {
            tokens = self.with_special_tokens(tokens)?;
        }
        match tokens.len() > tokens_max {
            true => too_long(tokens.len()),
            false => Ok(tokens),
        }
    }

    fn encode_piece(
        &self,
        prompt: &PromptText,
        range: Range<usize>,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        let text = &prompt.as_str()[range.clone()];
        let points = prompt.content_points();
        let [first, last] =
            [range.start, range.end].map(|end| points.partition_point(|&point| point <= end));
        let points: Vec<usize> = points[first..last]
            .iter()
            .map(|point| point - range.start)
            .collect();
        if points.is_empty() {
            return self.encode(text, false);
        }
        let is_special = |id| self.is_special(id);
        super::contents::encode(&self.inner, text, &points, is_special)
            .map_err(|error| TokenizerError::Encode(error.to_string()))
    }
}
