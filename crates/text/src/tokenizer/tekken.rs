//! `tekken.json`, Mistral's byte-level tokenizers: tokens in the order in which they are made, as in tiktoken.
//!
//! Of two neighbours that make a token, those are merged first whose token has the lowest rank. A list of
//! merges says the same: for each token all ways to make it of two others, in the order of ranks.

use std::collections::HashMap;

use backstop_input::ValueAllowance;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::BytePairVocabulary;
use super::bytes::character_of;
use super::pre_tokenizers::TEKKEN;

/// Values and keys of the file, seven for each token.
const VALUES_MAX: usize = 8 << 20;
/// Bytes of a token; longer ones are a broken file, and would make too many merges.
const TOKEN_BYTES_MAX: usize = 4096;
const TOKENS_MAX: usize = 1 << 20;

/// The special tokens of files of before they listed them.
const OLDER_SPECIAL: [&str; 20] = [
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
];
const BEGIN: &str = "<s>";

#[derive(Deserialize)]
struct File {
    config: Config,
    vocab: Vec<Entry>,
    special_tokens: Option<Vec<Special>>,
}

#[derive(Deserialize)]
struct Config {
    pattern: String,
    default_vocab_size: usize,
    default_num_special_tokens: usize,
}

#[derive(Deserialize)]
struct Entry {
    rank: usize,
    token_bytes: String,
}

#[derive(Deserialize)]
struct Special {
    rank: usize,
    token_str: String,
}

/// The vocabulary. Special tokens come first; further ones up to their number have texts that nobody writes.
pub(super) fn read(json: &[u8]) -> Result<BytePairVocabulary, String> {
    let value = ValueAllowance::new(VALUES_MAX).parse(json);
    let value = value.map_err(|error| error.to_string())?;
    let file: File = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let Config {
        pattern,
        default_vocab_size: size,
        default_num_special_tokens: special,
    } = file.config;
    if pattern != TEKKEN {
        return Err("its pattern is not the known one".to_owned());
    }
    if size > TOKENS_MAX || special > size || file.vocab.len() < size - special {
        return Err("it does not have as many tokens as it says".to_owned());
    }
    let mut tokens = special_tokens(file.special_tokens, special)?;
    let bytes = ranked(file.vocab, size - special)?;
    tokens.extend(bytes.iter().map(|token| written(token)));
    Ok(BytePairVocabulary {
        pre_tokenizer: "tekken".to_owned(),
        control: (0..special as u32).collect(),
        merges: merges(&bytes),
        bos: tokens
            .iter()
            .position(|text| text == BEGIN)
            .map(|id| id as u32),
        tokens,
        ..BytePairVocabulary::default()
    })
}

/// The texts of the special tokens, by rank.
fn special_tokens(listed: Option<Vec<Special>>, count: usize) -> Result<Vec<String>, String> {
    let mut texts: Vec<String> = match listed {
        None => OLDER_SPECIAL.map(str::to_owned).to_vec(),
        Some(mut listed) => {
            listed.sort_by_key(|token| token.rank);
            if !listed.iter().map(|token| token.rank).eq(0..listed.len()) {
                return Err("the ranks of its special tokens are not 0, 1, 2 and so on".to_owned());
            }
            listed.into_iter().map(|token| token.token_str).collect()
        }
    };
    if texts.len() > count {
        return Err("it has more special tokens than it says".to_owned());
    }
    let further = texts.len()..count;
    texts.extend(further.map(|id| format!("<SPECIAL_{id}>")));
    Ok(texts)
}

/// The bytes of the first tokens.
fn ranked(vocabulary: Vec<Entry>, count: usize) -> Result<Vec<Vec<u8>>, String> {
    let entries = vocabulary.into_iter().take(count).enumerate();
    let token = |(rank, entry): (usize, Entry)| {
        if entry.rank != rank {
            return Err(format!("token {rank} has the rank {}", entry.rank));
        }
        let bytes = STANDARD.decode(entry.token_bytes);
        let bytes = bytes.map_err(|error| format!("token {rank}: {error}"))?;
        match bytes.len() {
            1..=TOKEN_BYTES_MAX => Ok(bytes),
            length => Err(format!("token {rank} has {length} bytes")),
        }
    };
    entries.map(token).collect()
}

fn merges(tokens: &[Vec<u8>]) -> Vec<String> {
    let ranks: HashMap<&[u8], usize> = tokens.iter().map(Vec::as_slice).zip(0..).collect();
    let mut merges = Vec::new();
    for token in tokens {
        let splits = (1..token.len()).map(|at| token.split_at(at));
        let parts =
            splits.filter_map(|(left, right)| Some((*ranks.get(left)?, *ranks.get(right)?)));
        let mut parts: Vec<(usize, usize)> = parts.collect();
        parts.sort_unstable();
        let pair = |(left, right): (usize, usize)| {
            format!("{} {}", written(&tokens[left]), written(&tokens[right]))
        };
        merges.extend(parts.into_iter().map(pair));
    }
    merges
}

/// Bytes in GPT-2's alphabet.
fn written(bytes: &[u8]) -> String {
    bytes.iter().copied().map(character_of).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Tokenizer;

    /// All bytes, and these tokens behind them.
    fn file(tokens: &[&str]) -> Value {
        let bytes = (0..=255u8).map(|byte| vec![byte]);
        let words = tokens.iter().map(|token| token.as_bytes().to_vec());
        let vocabulary: Vec<Value> = bytes
            .chain(words)
            .enumerate()
            .map(|(rank, bytes)| {
                json!({"rank": rank, "token_bytes": STANDARD.encode(bytes), "token_str": null})
            })
            .collect();
        json!({
            "config": {"pattern": TEKKEN, "default_vocab_size": 4 + vocabulary.len(),
                       "default_num_special_tokens": 4, "num_vocab_tokens": 9, "version": "v7"},
            "vocab": vocabulary,
            "special_tokens": [{"rank": 1, "token_str": "<s>", "is_control": true},
                               {"rank": 0, "token_str": "<unk>", "is_control": true}],
        })
    }

    fn tokenizer(file: &Value) -> Tokenizer {
        let pairs = read(file.to_string().as_bytes()).unwrap();
        Tokenizer::from_byte_pairs(&pairs).unwrap()
    }

    #[test]
    fn the_token_of_the_lowest_rank_is_made_first() {
        let tokenizer = tokenizer(&file(&["bc", "ab", "abc", "\u{e9}"]));
        let word = |rank: u32| 4 + 256 + rank;
        assert_eq!(tokenizer.encode("abc", true).unwrap(), [1, word(2)]);
        assert_eq!(tokenizer.encode("abcb", false).unwrap()[0], word(2));
        assert_eq!(tokenizer.encode("xbca", false).unwrap()[1], word(0));
        assert_eq!(tokenizer.encode("\u{e9}", false).unwrap(), [word(3)]);
        assert_eq!(tokenizer.encode("<SPECIAL_3>", false).unwrap(), [3]);
        assert!(tokenizer.is_special(0) && !tokenizer.is_special(4));
        assert_eq!(tokenizer.token_bytes(4 + 0x20), Some(b" ".as_slice()));
    }

    #[test]
    fn older_files_have_the_special_tokens_of_their_time() {
        let mut file = file(&["ab"]);
        file["special_tokens"] = Value::Null;
        file["config"]["default_num_special_tokens"] = json!(30);
        file["config"]["default_vocab_size"] = json!(30 + 257);
        let tokenizer = tokenizer(&file);
        assert_eq!(tokenizer.token_to_id("[TOOL_CALLS]"), Some(9));
        assert_eq!(tokenizer.token_to_id("<SPECIAL_29>"), Some(29));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let change = |path: &str, value: Value| {
            let mut file = file(&["ab"]);
            *file.pointer_mut(path).unwrap() = value;
            read(file.to_string().as_bytes()).unwrap_err()
        };
        assert!(change("/config/pattern", json!(".")).contains("pattern"));
        assert!(change("/config/default_vocab_size", json!(9999)).contains("as many tokens"));
        let many: Vec<Value> = (0..5)
            .map(|rank| json!({"rank": rank, "token_str": "x"}))
            .collect();
        assert!(change("/special_tokens", json!(many)).contains("more special"));
        assert!(change("/special_tokens/0/rank", json!(5)).contains("special tokens"));
        assert!(change("/vocab/3/rank", json!(5)).contains("token 3"));
        assert!(change("/vocab/3/token_bytes", json!("?")).contains("token 3"));
        assert!(change("/vocab/3/token_bytes", json!("")).contains("0 bytes"));
        assert!(read(b"{}").is_err() && read(b"\xff").is_err());
    }
}
