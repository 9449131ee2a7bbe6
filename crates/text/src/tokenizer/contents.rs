//! Encodes texts some parts of which must not become control tokens, although they look like them.
//!
//! The result is what the reference implementation makes of such a text when it splits special
//! tokens (`split_special_tokens`), but only of those in the marked places.

use std::ops::Range;

use backstop_types::TokenId;
use tokenizers::normalizer::Range as TextRange;
use tokenizers::{
    Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, Token, Tokenizer as HfTokenizer,
};

type Pieces = Vec<(NormalizedString, Option<Vec<Token>>)>;

/// An added token, and the text that it takes.
struct OwnToken {
    id: TokenId,
    range: Range<usize>,
}

/// Encodes a text in which no control token reaches across one of these positions, each of which is
/// behind a character. Adds nothing to it.
pub(super) fn encode(
    tokenizer: &HfTokenizer,
    text: &str,
    points: &[usize],
    is_special: impl Fn(TokenId) -> bool,
) -> tokenizers::Result<Vec<TokenId>> {
    let own = own_tokens(tokenizer, text, points);
    let special_own = own.iter().filter(|token| is_special(token.id)).count();
    let ids = encode_around(tokenizer, text, &own, &[])?;
    let special = ids.iter().filter(|id| is_special(**id)).count();
    if special == special_own {
        return Ok(ids);
    }
    // Some vocabularies can put special tokens together from text, as if they were words.
    encode_around(tokenizer, text, &own, points)
}

/// The added tokens that a text has, apart from those across the points.
fn own_tokens(tokenizer: &HfTokenizer, text: &str, points: &[usize]) -> Vec<OwnToken> {
    let masked = masked(text, points);
    let vocabulary = tokenizer.get_added_vocabulary();
    let pieces = vocabulary.extract_and_normalize(tokenizer.get_normalizer(), &masked);
    let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
    let own = splits.into_iter().filter_map(|(_, (start, end), tokens)| {
        let token = tokens.as_ref()?.first()?;
        Some(OwnToken {
            id: token.id,
            range: start..end,
        })
    });
    own.collect()
}

/// The text with something of the same length, of which no token is made, before each point.
fn masked(text: &str, points: &[usize]) -> String {
    let mut masked = String::with_capacity(text.len());
    for &point in points {
        let before = text[..point].chars().next_back().map_or(0, char::len_utf8);
        // Two points may stand side by side, never closer.
        masked.push_str(&text[masked.len()..point - before]);
        masked.push(match before {
            2 => '\u{80}',
            3 => '\u{e000}',
            4 => '\u{f0000}',
            _ => '\u{1}',
        });
    }
    masked.push_str(&text[masked.len()..]);
    masked
}

/// Encodes what is between tokens that are known. At `borders` a text is cut after it has been cut
/// into words, so that no token can reach across.
fn encode_around(
    tokenizer: &HfTokenizer,
    text: &str,
    own: &[OwnToken],
    borders: &[usize],
) -> tokenizers::Result<Vec<TokenId>> {
    let mut pieces = PreTokenizedString::from(text);
    pieces.split(|_, whole| cut_out(&whole, own))?;
    if let Some(normalizer) = tokenizer.get_normalizer() {
        pieces.normalize(|piece| normalizer.normalize(piece))?;
    }
    if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
        pre_tokenizer.pre_tokenize(&mut pieces)?;
    }
    if !borders.is_empty() {
        pieces.split(|_, piece| cut_at(piece, borders))?;
    }
    let model = tokenizer.get_model();
    model.tokenize_in_pretokenized(&mut pieces, None)?;
    let encoding = pieces.into_encoding(None, 0, OffsetType::None)?;
    Ok(encoding.get_ids().to_vec())
}

fn cut_out(text: &NormalizedString, own: &[OwnToken]) -> tokenizers::Result<Pieces> {
    let mut pieces = Vec::with_capacity(2 * own.len() + 1);
    let mut done = 0;
    for token in own {
        pieces.push((slice(text, done..token.range.start)?, None));
        let piece = slice(text, token.range.clone())?;
        let tokens = vec![Token::new(token.id, String::new(), (0, piece.len()))];
        pieces.push((piece, Some(tokens)));
        done = token.range.end;
    }
    pieces.push((slice(text, done..text.len())?, None));
    Ok(pieces)
}

fn cut_at(piece: NormalizedString, borders: &[usize]) -> tokenizers::Result<Pieces> {
    let (start, end) = piece.offsets_original();
    let first = borders.partition_point(|&border| border <= start);
    let within = borders[first..].iter().take_while(|&&border| border < end);
    let mut pieces = Vec::new();
    let mut done = 0;
    for border in within {
        pieces.push((slice(&piece, done..border - start)?, None));
        done = border - start;
    }
    match done {
        0 => pieces.push((piece, None)),
        _ => pieces.push((slice(&piece, done..end - start)?, None)),
    }
    Ok(pieces)
}

fn slice(text: &NormalizedString, range: Range<usize>) -> tokenizers::Result<NormalizedString> {
    let slice = text.slice(TextRange::Original(range));
    slice.ok_or_else(|| "a text cannot be cut there".into())
}
