//! Tokens that the files beside a vocabulary list: `tokenizer_config.json`, and in older checkpoints
//! `special_tokens_map.json` and `added_tokens.json`. They count as transformers counts them on top of
//! `tokenizer.json`: what it lacks is added, and what a list says of a token replaces what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;

use backstop_input::{ValueAllowance, read_file};
use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer as HfTokenizer};

use super::TokenizerError;

/// Longest of these files.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Values and keys of one; a token has about seven.
const VALUES_MAX: usize = 4 << 20;

/// Tokens with a meaning of their own, in the order in which they are added.
const NAMED: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];
/// Lists of further special tokens, newer and older.
const FURTHER: [&str; 2] = ["extra_special_tokens", "additional_special_tokens"];

/// What the files say.
///
/// Lists are short, a few thousand tokens at most, of which few are named as special.
#[derive(Debug, Default)]
pub(super) struct ListedTokens {
    /// `tokenizer_config.json`, with what the older map of special tokens puts in its place.
    config: Map<String, Value>,
    /// `added_tokens.json`: ids by texts.
    older: Map<String, Value>,
}

impl ListedTokens {
    pub(super) fn read(directory: &Path) -> Result<Self, TokenizerError> {
        let mut config = object(&directory.join("tokenizer_config.json"))?;
        let mut older = Map::new();
        // Whoever wrote this list knew of all tokens.
        if !config.contains_key("added_tokens_decoder") {
            config.append(&mut object(&directory.join("special_tokens_map.json"))?);
            older = object(&directory.join("added_tokens.json"))?;
        }
        Ok(Self { config, older })
    }

    /// `tokenizer_config.json`.
    pub(super) fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// Adds the tokens to a vocabulary.
    ///
    /// A special token that is named without an id, and that the vocabulary lacks, is none: no model
    /// knows it.
    pub(super) fn add_to(&self, inner: &mut HfTokenizer) -> Result<(), TokenizerError> {
        let before: BTreeSet<String> = inner
            .get_added_tokens_decoder()
            .into_values()
            .map(|token| token.content)
            .collect();
        let special = self.special()?;
        let mut listed = self.with_ids(inner)?;
        for token in listed.values_mut() {
            token.special |= special.iter().any(|other| other.content == token.content);
        }
        let is_listed = |content: &str| listed.values().any(|token| token.content == content);
        let missing =
            |token: &AddedToken| !before.contains(&token.content) && !is_listed(&token.content);
        let named = special
            .into_iter()
            .filter(|token| missing(token) && inner.token_to_id(&token.content).is_some());
        let named: Vec<AddedToken> = named.collect();
        inner
            .add_tokens(listed.values().cloned().chain(named))
            .map_err(|error| TokenizerError::Load(error.to_string()))?;
        for (id, AddedToken { content, .. }) in &listed {
            let given = inner.token_to_id(content);
            if given != Some(*id) && !before.contains(content) {
                return Err(TokenizerError::Load(format!(
                    "the token {content:?} is listed as {id}, but behind the vocabulary it is {}",
                    given.unwrap_or_default()
                )));
            }
        }
        Ok(())
    }

    /// The tokens that are listed with their ids.
    fn with_ids(&self, inner: &HfTokenizer) -> Result<BTreeMap<u32, AddedToken>, TokenizerError> {
        let mut tokens = BTreeMap::new();
        if let Some(list) = self.config.get("added_tokens_decoder") {
            let list = list
                .as_object()
                .ok_or_else(|| malformed("added_tokens_decoder is not an object"))?;
            for (id, token) in list {
                let id = id
                    .parse()
                    .map_err(|_| malformed("added_tokens_decoder has a key that is no id"))?;
                tokens.insert(id, added_token(token, false)?);
            }
            return Ok(tokens);
        }
        let special = self.special()?;
        let already = inner.get_added_tokens_decoder();
        for (content, id) in &self.older {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let id =
                id.ok_or_else(|| malformed("added_tokens.json has a token without a valid id"))?;
            // The vocabulary's own list counts more.
            if !already.contains_key(&id) {
                let is_special = special.iter().any(|token| token.content == *content);
                tokens.insert(id, AddedToken::from(content.as_str(), is_special));
            }
        }
        Ok(tokens)
    }

    /// The tokens that are named as special, without ids.
    fn special(&self) -> Result<Vec<AddedToken>, TokenizerError> {
        let mut tokens: Vec<AddedToken> = Vec::new();
        let mut add = |value: &Value| {
            let token = added_token(value, true)?;
            if tokens.iter().all(|known| known.content != token.content) {
                tokens.push(token);
            }
            Ok::<_, TokenizerError>(())
        };
        let is_token = |value: &&Value| value.is_string() || value.is_object();
        for key in NAMED {
            self.config
                .get(key)
                .filter(is_token)
                .map_or(Ok(()), &mut add)?;
        }
        for (key, value) in &self.config {
            if key.ends_with("_token") && is_token(&value) && !NAMED.contains(&key.as_str()) {
                add(value)?;
            }
        }
        for value in FURTHER.iter().filter_map(|key| self.config.get(*key)) {
            match value {
                Value::Array(list) => list.iter().try_for_each(&mut add)?,
                Value::Object(named) => named.values().try_for_each(&mut add)?,
                _ => {}
            }
        }
        Ok(tokens)
    }
}

/// A token as these files write it: its text, or an object.
fn added_token(value: &Value, special: bool) -> Result<AddedToken, TokenizerError> {
    let text = value.as_str().or_else(|| value.get("content")?.as_str());
    let text = text.ok_or_else(|| malformed("a token has no text"))?;
    let says = |key: &str| value.get(key).and_then(Value::as_bool);
    let is_special = special || says("special") == Some(true);
    let token = AddedToken::from(text, is_special);
    let normalized = says("normalized").unwrap_or(token.normalized);
    Ok(token
        .normalized(normalized)
        .single_word(says("single_word").unwrap_or(false))
        .lstrip(says("lstrip").unwrap_or(false))
        .rstrip(says("rstrip").unwrap_or(false)))
}

/// The object in a file; an empty one if there is no such file.
fn object(path: &Path) -> Result<Map<String, Value>, TokenizerError> {
    let json = match read_file(path, FILE_BYTES_MAX) {
        Ok(json) => json,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Map::new()),
        Err(source) => {
            return Err(TokenizerError::Read {
                path: path.display().to_string(),
                source,
            });
        }
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match ValueAllowance::new(VALUES_MAX).parse(&json) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(TokenizerError::Load(format!("{name} is not a JSON object"))),
        Err(error) => Err(TokenizerError::Load(format!("{name}: {error}"))),
    }
}

fn malformed(reason: &str) -> TokenizerError {
    TokenizerError::Load(reason.to_owned())
}
