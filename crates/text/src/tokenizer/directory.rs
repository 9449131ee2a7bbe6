//! The tokenizer in a checkpoint's directory: `tokenizer.json`, or one of the files from which it is
//! made, and the tokens that files beside it list.

use std::path::{Path, PathBuf};

use backstop_input::read_file;

use super::listed::ListedTokens;
use super::pair_files;
use super::sentence_piece_model;
use super::tekken;
use super::{FILE_BYTES_MAX, Tokenizer, TokenizerError, Vocabulary};

/// Names of files that have a vocabulary, the first of which that is there is read.
pub const VOCABULARY_FILES: [&str; 4] = [
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "tekken.json",
];

/// How to get a `tokenizer.json`.
const CONVERT: &str = "python3 -c 'import sys, transformers; \
     transformers.AutoTokenizer.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])' DIRECTORY \
     writes a tokenizer.json, which can be read";

impl Tokenizer {
    /// The file of a checkpoint's vocabulary: the one that is there, or else `tokenizer.json`.
    pub fn vocabulary_file(directory: &Path) -> PathBuf {
        let paths = VOCABULARY_FILES.map(|name| directory.join(name));
        let there = paths.iter().find(|path| path.is_file());
        there.unwrap_or(&paths[0]).clone()
    }

    /// Reads the tokenizer of the checkpoint in a directory, with the tokens that the files beside its
    /// vocabulary add. A kind of vocabulary that cannot be read exactly is refused.
    pub fn from_directory(directory: &Path) -> Result<Self, TokenizerError> {
        let path = Self::vocabulary_file(directory);
        let bytes = read(&path)?;
        let listed = ListedTokens::read(directory)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let vocabulary = match &*name {
            "tokenizer.json" => return Self::from_listed(&bytes, &listed),
            "tokenizer.model" => {
                sentence_piece_model::read(&bytes, listed.config()).map(Vocabulary::SentencePieces)
            }
            "vocab.json" => read(&directory.join("merges.txt"))
                .map_err(|error| error.to_string())
                .and_then(|merges| pair_files::read(&bytes, &merges, listed.config()))
                .map(Vocabulary::BytePairs),
            _ => tekken::read(&bytes).map(Vocabulary::BytePairs),
        };
        let vocabulary = vocabulary
            .map_err(|reason| TokenizerError::Load(format!("{name}: {reason}; {CONVERT}")))?;
        Self::from_listed(vocabulary.to_json()?.as_bytes(), &listed)
    }

    fn from_listed(json: &[u8], listed: &ListedTokens) -> Result<Self, TokenizerError> {
        let mut inner = Self::parse(json)?;
        listed.add_to(&mut inner)?;
        Self::from_inner(inner)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    read_file(path, FILE_BYTES_MAX).map_err(|source| TokenizerError::Read {
        path: path.display().to_string(),
        source,
    })
}

#[cfg(test)]
mod tests;
