//! Generation defaults and special tokens that a checkpoint brings along.

use serde_json::{Map, Value};

use crate::StrictFields;

/// What `generation_config.json` says, as far as it concerns a server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end an answer.
    pub eos_token_ids: Vec<u32>,
    /// The file that names them.
    pub eos_file: &'static str,
    /// The token that begins a text.
    pub bos_token_id: Option<u32>,
    /// The padding token.
    pub pad_token_id: Option<u32>,
    /// Whether to sample rather than to take the likeliest token.
    pub do_sample: Option<bool>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus size.
    pub top_p: Option<f64>,
    /// Number of candidates kept.
    pub top_k: Option<u32>,
    /// Smallest probability kept, relative to the largest.
    pub min_p: Option<f64>,
    /// Divisor of the logits of tokens already seen.
    pub repetition_penalty: Option<f64>,
    /// Longest answer.
    pub max_new_tokens: Option<u32>,
    /// Keys of the file that have a value and that nothing here reads.
    pub unread_keys: Vec<String>,
}

/// Where the configuration of a model that reads more than text has that of its text model.
pub(crate) const TEXT_CONFIG: &str = "text_config";

const GENERATION_FILE: &str = "generation_config.json";
const CONFIG_FILE: &str = "config.json";
const TOKENIZER_FILE: &str = "tokenizer_config.json";
const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";

/// Keys that say nothing about how to generate.
const BOOKKEEPING_KEYS: &[&str] = &["_from_model_config", "transformers_version", "use_cache"];

impl GenerationConfig {
    /// Reads the generation file, and takes token ids that it lacks from the model configuration.
    pub(crate) fn parse(
        file: Option<&Map<String, Value>>,
        config: &Map<String, Value>,
    ) -> Result<Self, String> {
        let empty = Map::new();
        let mut fields = StrictFields::new(GENERATION_FILE, file.unwrap_or(&empty));
        // Of a model that reads more than text, the text model may say it alone.
        let nested = config.get(TEXT_CONFIG).and_then(Value::as_object);
        let mut fallbacks = [
            StrictFields::new(CONFIG_FILE, config),
            StrictFields::new("config.json: text_config", nested.unwrap_or(&empty)),
        ];
        let mut parsed = Self {
            eos_token_ids: fields
                .optional_token_ids("eos_token_id")
                .unwrap_or_default(),
            eos_file: GENERATION_FILE,
            bos_token_id: fields.optional_u32_or_minus_one("bos_token_id"),
            pad_token_id: fields.optional_u32_or_minus_one("pad_token_id"),
            do_sample: fields.optional_bool("do_sample"),
            temperature: fields.optional_f64("temperature"),
            top_p: fields.optional_f64("top_p"),
            top_k: fields.optional_u32_or_minus_one("top_k"),
            min_p: fields.optional_f64("min_p"),
            repetition_penalty: fields.optional_f64("repetition_penalty"),
            max_new_tokens: fields.optional_u32_or_minus_one("max_new_tokens"),
            unread_keys: Vec::new(),
        };
        for fallback in &mut fallbacks {
            if parsed.eos_token_ids.is_empty() {
                parsed.eos_file = CONFIG_FILE;
                let listed = fallback.optional_token_ids("eos_token_id");
                parsed.eos_token_ids = listed.unwrap_or_default();
            }
            if parsed.bos_token_id.is_none() {
                parsed.bos_token_id = fallback.optional_u32_or_minus_one("bos_token_id");
            }
            if parsed.pad_token_id.is_none() {
                parsed.pad_token_id = fallback.optional_u32_or_minus_one("pad_token_id");
            }
        }
        parsed.unread_keys = fields.unread_keys(BOOKKEEPING_KEYS);
        let [whole, text] = &fallbacks;
        let problems = [fields.problems(), whole.problems(), text.problems()].concat();
        if problems.is_empty() {
            Ok(parsed)
        } else {
            Err(problems.join("; "))
        }
    }
}

/// The texts of special tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos: Option<String>,
    /// Ends a text.
    pub eos: Option<String>,
    /// The file that names the one that ends a text.
    pub eos_file: &'static str,
    /// Fills unused positions.
    pub pad: Option<String>,
    /// Stands for what the vocabulary lacks.
    pub unknown: Option<String>,
}

impl SpecialTokens {
    /// What `tokenizer_config.json` names. In checkpoints of before its `added_tokens_decoder`, what
    /// `special_tokens_map.json` names counts more, as in transformers.
    pub(crate) fn parse(
        tokenizer_config: &Map<String, Value>,
        special_tokens_map: Option<&Map<String, Value>>,
    ) -> Result<Self, String> {
        let older = special_tokens_map
            .filter(|_| !tokenizer_config.contains_key("added_tokens_decoder"))
            .map(|map| (SPECIAL_TOKENS_FILE, map));
        let files = older
            .into_iter()
            .chain([(TOKENIZER_FILE, tokenizer_config)]);
        let named = |key: &str| {
            for (file, fields) in files.clone() {
                if let Some(value) = fields.get(key).filter(|value| !value.is_null()) {
                    let text = token_text(value).ok_or_else(|| {
                        format!("{key} of {file} is neither a text nor an object with a content")
                    })?;
                    return Ok::<_, String>((Some(text.to_owned()), file));
                }
            }
            Ok((None, TOKENIZER_FILE))
        };
        let (eos, eos_file) = named("eos_token")?;
        Ok(Self {
            bos: named("bos_token")?.0,
            eos,
            eos_file,
            pad: named("pad_token")?.0,
            unknown: named("unk_token")?.0,
        })
    }
}

/// The text of a token, which may be an object that also says how to strip the white space around it.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}
