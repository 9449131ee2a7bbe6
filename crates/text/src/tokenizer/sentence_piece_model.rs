//! `tokenizer.model`, the files of SentencePiece (Kudo and Richardson 2018), of the kind that merges pairs and
//! has tokens for bytes, as Llama's and Mistral's do.
//!
//! What such a file can say and transformers' conversion for Llama does not do is refused.

mod message;

use serde_json::{Map, Value};

use self::message::{Field, Message};
use super::SentencePieceVocabulary;

const PIECES_MAX: usize = 1 << 20;
/// How these files write a space.
const SPACE: &str = "\u{2581}";
/// Classes of transformers that read such files alike.
const CLASSES: [&str; 2] = ["LlamaTokenizer", "LlamaTokenizerFast"];

/// What a piece is.
mod kind {
    pub(super) const NORMAL: u64 = 1;
    pub(super) const UNKNOWN: u64 = 2;
    pub(super) const CONTROL: u64 = 3;
    pub(super) const USER_DEFINED: u64 = 4;
    pub(super) const BYTE: u64 = 6;
}

struct Piece {
    text: String,
    score: f64,
    kind: u64,
}

/// What the file says of training and of normalisation, where it matters.
struct Settings {
    merges_pairs: bool,
    has_bytes: bool,
    space_behind: bool,
    unknown: u32,
    begin: Option<u32>,
    normalizes: bool,
    adds_space: bool,
    drops_spaces: bool,
    escapes_spaces: bool,
}

impl Default for Settings {
    /// What SentencePiece takes where a file is silent.
    fn default() -> Self {
        Self {
            merges_pairs: false,
            has_bytes: false,
            space_behind: false,
            unknown: 0,
            begin: Some(1),
            normalizes: false,
            adds_space: true,
            drops_spaces: true,
            escapes_spaces: true,
        }
    }
}

/// The vocabulary; `tokenizer_config.json` says whether texts begin with a token and with a space.
pub(super) fn read(
    model: &[u8],
    config: &Map<String, Value>,
) -> Result<SentencePieceVocabulary, String> {
    check_config(config)?;
    let mut settings = Settings::default();
    let mut pieces = Vec::new();
    for field in Message::new(model) {
        match field? {
            (1, Field::Bytes(_)) if pieces.len() == PIECES_MAX => {
                return Err(format!("it has more than {PIECES_MAX} pieces"));
            }
            (1, Field::Bytes(piece)) => pieces.push(Piece::read(piece)?),
            (2, Field::Bytes(trainer)) => settings.read_trainer(trainer)?,
            (3, Field::Bytes(normalizer)) => settings.read_normalizer(normalizer)?,
            _ => {}
        }
    }
    let says = |key: &str| config.get(key).and_then(Value::as_bool);
    settings.adds_space &= says("add_prefix_space") != Some(false);
    settings.check(&pieces)?;
    let of_kind = |kind: u64| {
        let pieces = (0..)
            .zip(&pieces)
            .filter(move |(_, piece)| piece.kind == kind);
        pieces.map(|(id, _)| id).collect::<Vec<u32>>()
    };
    let text = |piece: &Piece| match piece.kind {
        // Found in the text before its spaces are written otherwise.
        kind::USER_DEFINED => piece.text.replace(SPACE, " "),
        _ => piece.text.clone(),
    };
    Ok(SentencePieceVocabulary {
        tokens: pieces.iter().map(text).collect(),
        scores: pieces.iter().map(|piece| piece.score).collect(),
        normal: of_kind(kind::NORMAL),
        control: [of_kind(kind::UNKNOWN), of_kind(kind::CONTROL)].concat(),
        user_defined: of_kind(kind::USER_DEFINED),
        unknown: Some(settings.unknown),
        begin: settings
            .begin
            .filter(|_| says("add_bos_token") != Some(false)),
        adds_space: settings.adds_space,
    })
}

/// Refuses what other classes, and newer ways of the same, do with such files.
fn check_config(config: &Map<String, Value>) -> Result<(), String> {
    let class = config.get("tokenizer_class").and_then(Value::as_str);
    if let Some(other) = class.filter(|class| !CLASSES.contains(class)) {
        let shown: String = other.chars().take(64).collect();
        return Err(format!(
            "the tokenizer_class {shown:?} is not supported, only LlamaTokenizer"
        ));
    }
    let is = |key: &str, value: bool| config.get(key) == Some(&Value::Bool(value));
    if is("legacy", false) {
        return Err("\"legacy\": false is not supported".to_owned());
    }
    if is("add_eos_token", true) {
        return Err("\"add_eos_token\": true is not supported".to_owned());
    }
    Ok(())
}

impl Piece {
    fn read(message: &[u8]) -> Result<Self, String> {
        let mut piece = Self {
            text: String::new(),
            score: 0.0,
            kind: kind::NORMAL,
        };
        for field in Message::new(message) {
            match field? {
                (1, Field::Bytes(text)) => {
                    let text = std::str::from_utf8(text).map_err(|_| "a piece is not UTF-8")?;
                    text.clone_into(&mut piece.text);
                }
                (2, Field::Float(score)) => piece.score = f64::from(score),
                (3, Field::Number(kind)) => piece.kind = kind,
                _ => {}
            }
        }
        Ok(piece)
    }
}

impl Settings {
    fn read_trainer(&mut self, message: &[u8]) -> Result<(), String> {
        const PAIRS: u64 = 2;
        for field in Message::new(message) {
            match field? {
                (3, Field::Number(kind)) => self.merges_pairs = kind == PAIRS,
                (24, Field::Number(value)) => self.space_behind = value != 0,
                (35, Field::Number(value)) => self.has_bytes = value != 0,
                (40, Field::Number(id)) => {
                    self.unknown = u32::try_from(id).map_err(|_| "its unk_id is no id")?;
                }
                // Less than 0: there is none.
                (41, Field::Number(id)) => self.begin = u32::try_from(id).ok(),
                _ => {}
            }
        }
        Ok(())
    }

    fn read_normalizer(&mut self, message: &[u8]) -> Result<(), String> {
        for field in Message::new(message) {
            match field? {
                (2, Field::Bytes(rules)) => self.normalizes = !rules.is_empty(),
                (3, Field::Number(value)) => self.adds_space = value != 0,
                (4, Field::Number(value)) => self.drops_spaces = value != 0,
                (5, Field::Number(value)) => self.escapes_spaces = value != 0,
                _ => {}
            }
        }
        Ok(())
    }

    fn check(&self, pieces: &[Piece]) -> Result<(), String> {
        let unsupported = [
            (
                !self.merges_pairs,
                "it is not of the kind that merges pairs (BPE)",
            ),
            (
                !self.has_bytes,
                "it has no tokens for bytes (byte_fallback)",
            ),
            (self.space_behind, "it writes spaces behind words"),
            (
                self.normalizes,
                "it changes characters before it cuts texts",
            ),
            (self.drops_spaces, "it drops spaces"),
            (!self.escapes_spaces, "it does not write spaces as U+2581"),
        ];
        if let Some((_, reason)) = unsupported.iter().find(|(is_so, _)| *is_so) {
            return Err((*reason).to_owned());
        }
        let known = [
            kind::NORMAL,
            kind::UNKNOWN,
            kind::CONTROL,
            kind::USER_DEFINED,
            kind::BYTE,
        ];
        if pieces.iter().any(|piece| !known.contains(&piece.kind)) {
            return Err("it has unused pieces".to_owned());
        }
        // A space is put before what follows such a piece, where SentencePiece puts none.
        let has_user_defined = pieces.iter().any(|piece| piece.kind == kind::USER_DEFINED);
        if self.adds_space && has_user_defined {
            return Err("it has user-defined pieces, and begins texts with a space".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
