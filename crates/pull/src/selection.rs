//! Which files of a repository serving needs.

use std::collections::{BTreeMap, BTreeSet};

use backstop_input::ValueAllowance;
use serde_json::Value;

use crate::error::PullError;
use crate::gguf;
use crate::listing::{Listing, RemoteFile};
use crate::names::{is_plain_path, shown};

const INDEX_FILE: &str = "model.safetensors.index.json";
const SINGLE_FILE: &str = "model.safetensors";
const TOKENIZER: &str = "tokenizer.json";
const MODULES: &str = "modules.json";
pub(crate) const INDEX_BYTES_MAX: u64 = 64 << 20;
/// An index has two values for each tensor; the largest models have 200,000 of these.
const INDEX_VALUES_MAX: usize = 2_000_000;

/// More than any model has, so that whoever claims more does not get memory for the list of its parts: 64 TiB.
const BYTES_MAX: u64 = 1 << 46;

/// Small files that serving reads where they are there.
const TEXTS: &[&str] = &[
    "config.json",
    "generation_config.json",
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    MODULES,
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
];
/// What `tokenizer.json` is made from; of use only without it.
const OTHER_TOKENIZERS: &[&str] = &["tokenizer.model", "vocab.json", "merges.txt", "tekken.json"];
/// What a directory of sentence-transformers' modules may need.
const MODULE_FILES: &[&str] = &[
    "config.json",
    SINGLE_FILE,
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "sentence_bert_config.json",
];
/// How the names of terms begin, in small letters.
const TERMS: &[&str] = &["license", "licence", "notice", "use_policy"];

/// Longer ones are something else.
const TERMS_BYTES_MAX: u64 = 1 << 20;

/// What is fetched.
#[derive(Debug)]
pub(crate) struct Selection {
    /// By where they are to lie in the model's directory.
    pub(crate) files: BTreeMap<String, RemoteFile>,
    pub(crate) is_gguf: bool,
    pub(crate) bytes: u64,
}

/// Chooses; `read` fetches the index of shards, if there is one.
pub(crate) fn choose(
    listing: &Listing,
    quantization: Option<&str>,
    read: impl FnOnce(&RemoteFile) -> Result<Vec<u8>, PullError>,
) -> Result<Selection, PullError> {
    let has_safetensors = has_safetensors(listing);
    let is_gguf = quantization.is_some() || !has_safetensors;
    if is_gguf && !listing.files.iter().any(gguf::is_model) {
        return Err(no_weights(listing, has_safetensors));
    }
    let mut chosen: Vec<&RemoteFile> = listing.files.iter().filter(|file| is_terms(file)).collect();
    match is_gguf {
        true => chosen.extend(gguf::choose(&listing.files, quantization)?),
        false => chosen.extend(checkpoint(listing, read)?),
    }
    let mut files = BTreeMap::new();
    let mut bytes = 0_u64;
    for file in chosen {
        let sum = bytes
            .checked_add(file.bytes)
            .filter(|sum| *sum <= BYTES_MAX);
        bytes = sum.ok_or_else(|| PullError::new("the hub states sizes that no model has"))?;
        let place = match is_gguf {
            // Repositories have a directory for each quantisation; a model has one for itself.
            true => file.name.rsplit('/').next().unwrap_or(&file.name),
            false => &file.name,
        };
        files.insert(place.to_owned(), file.clone());
    }
    Ok(Selection {
        files,
        is_gguf,
        bytes,
    })
}

fn has_safetensors(listing: &Listing) -> bool {
    let is_weights = |file: &RemoteFile| {
        let name = file.name.as_str();
        name == INDEX_FILE || name == SINGLE_FILE || module_file(name) == Some((0, SINGLE_FILE))
    };
    listing.files.iter().any(is_weights)
}

fn is_terms(file: &RemoteFile) -> bool {
    let name = file.name.to_lowercase();
    file.bytes <= TERMS_BYTES_MAX
        && !name.contains('/')
        && TERMS.iter().any(|terms| name.starts_with(terms))
}

/// All that a checkpoint in safetensors consists of.
fn checkpoint(
    listing: &Listing,
    read: impl FnOnce(&RemoteFile) -> Result<Vec<u8>, PullError>,
) -> Result<Vec<&RemoteFile>, PullError> {
    let has = |name: &str| listing.file(name).is_some();
    let (has_tokenizer, has_modules) = (has(TOKENIZER), has(MODULES));
    let is_wanted = |file: &&RemoteFile| {
        let name = file.name.as_str();
        TEXTS.contains(&name)
            || (!has_tokenizer && OTHER_TOKENIZERS.contains(&name))
            || (has_modules && module_file(name).is_some())
            || is_further_template(name)
    };
    let mut chosen: Vec<&RemoteFile> = listing.files.iter().filter(is_wanted).collect();
    match (listing.file(INDEX_FILE), listing.file(SINGLE_FILE)) {
        (Some(index), _) => {
            chosen.push(index);
            for shard in shards(&read(index)?)? {
                let file = listing.file(&shard);
                chosen.push(file.ok_or_else(|| no_shard(&shard))?);
            }
        }
        (None, single) => chosen.extend(single),
    }
    Ok(chosen)
}

/// `additional_chat_templates/NAME.jinja`.
fn is_further_template(name: &str) -> bool {
    let within = name.strip_prefix("additional_chat_templates/");
    within.is_some_and(|rest| rest.ends_with(".jinja") && !rest.contains('/'))
}

/// `N_Name/FILE` of sentence-transformers: the number and the file, if it is one that is read.
fn module_file(name: &str) -> Option<(u32, &str)> {
    let (directory, file) = name.split_once('/')?;
    let (number, _) = directory.split_once('_')?;
    let number = number.parse().ok()?;
    MODULE_FILES.contains(&file).then_some((number, file))
}

/// The files that an index names.
fn shards(index: &[u8]) -> Result<BTreeSet<String>, PullError> {
    let unusable = |reason: &str| {
        PullError::new(format!(
            "{INDEX_FILE} of the repository cannot be used: {reason}"
        ))
    };
    let allowance = ValueAllowance::new(INDEX_VALUES_MAX);
    let parsed = allowance
        .parse(index)
        .map_err(|error| unusable(&error.to_string()))?;
    let weights = parsed.get("weight_map").and_then(Value::as_object);
    let weights = weights.ok_or_else(|| unusable("it has no weight_map"))?;
    let mut shards = BTreeSet::new();
    for file in weights.values() {
        let name = file
            .as_str()
            .filter(|name| is_plain_path(name) && name.ends_with(".safetensors"));
        let name =
            name.ok_or_else(|| unusable("it names something that is no file of safetensors"))?;
        if !shards.contains(name) {
            shards.insert(name.to_owned());
        }
    }
    match shards.is_empty() {
        true => Err(unusable("it names no files")),
        false => Ok(shards),
    }
}

fn no_shard(name: &str) -> PullError {
    PullError::new(format!(
        "the repository is incomplete: {INDEX_FILE} names {:?}, which is not there",
        shown(name)
    ))
}

/// Says what there is instead of weights that Backstop reads.
fn no_weights(listing: &Listing, has_safetensors: bool) -> PullError {
    if has_safetensors {
        return PullError::new(
            "the repository has safetensors and no GGUF files: ask for it without :QUANTISATION",
        );
    }
    let endings: BTreeSet<&str> = listing
        .files
        .iter()
        .filter_map(|file| Some(file.name.rsplit_once('.')?.1))
        .filter(|ending| {
            [
                "bin",
                "pth",
                "pt",
                "onnx",
                "msgpack",
                "h5",
                "nemo",
                "safetensors",
            ]
            .contains(ending)
        })
        .collect();
    let endings: Vec<String> = endings.iter().map(|ending| format!("*.{ending}")).collect();
    let found = match endings.is_empty() {
        true => "no weights at all".to_owned(),
        false => format!("only {}", endings.join(", ")),
    };
    PullError::new(format!(
        "the repository has neither {SINGLE_FILE} nor {INDEX_FILE} nor a GGUF file, but {found}: look for a conversion \
         of it to safetensors or GGUF (an adapter alone cannot be served)"
    ))
}

#[cfg(test)]
mod tests;
