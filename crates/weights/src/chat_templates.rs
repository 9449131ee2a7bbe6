//! The texts of a checkpoint's chat templates, by name. Most checkpoints have one, `default`; some have others for
//! requests with tools (`tool_use`) or documents (`rag`).

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Map, Value};

use crate::WeightsError;
use crate::gguf::Metadata;
use crate::text_files::{TEXT_BYTES_MAX, read_text};

/// The template where there is but one, and of requests that no other is for.
pub(crate) const DEFAULT: &str = "default";
/// Most templates of a checkpoint.
const TEMPLATES_MAX: usize = 32;
/// Longest name of a template.
const NAME_BYTES_MAX: usize = 64;
/// Where the files of those beside the default lie.
const FOLDER: &str = "additional_chat_templates";

pub(crate) type ChatTemplateTexts = BTreeMap<String, String>;

/// The templates of a directory. Files win: where there are any, what `tokenizer_config.json` says is often out of
/// date, and nothing of it is read.
pub(crate) fn of_directory(
    directory: &Path,
    tokenizer_config: &Map<String, Value>,
) -> Result<ChatTemplateTexts, WeightsError> {
    let mut files = additional_files(&directory.join(FOLDER))?;
    if let Some(text) = read_text(&directory.join("chat_template.jinja"), TEXT_BYTES_MAX)? {
        files.insert(DEFAULT.to_owned(), text);
    }
    if !files.is_empty() {
        return Ok(files);
    }
    let path = directory.join("tokenizer_config.json");
    of_configuration(tokenizer_config).map_err(|reason| WeightsError::malformed(&path, reason))
}

/// The files `NAME.jinja` in a folder, if it is there.
fn additional_files(folder: &Path) -> Result<ChatTemplateTexts, WeightsError> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries.map_err(|error| WeightsError::io(folder, error))?,
    };
    let mut texts = BTreeMap::new();
    for entry in entries {
        let path = entry
            .map_err(|error| WeightsError::io(folder, error))?
            .path();
        if path
            .extension()
            .is_none_or(|extension| extension != "jinja")
        {
            continue;
        }
        let name = path.file_stem().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| WeightsError::malformed(&path, "its name is not UTF-8"))?;
        let Some(text) = read_text(&path, TEXT_BYTES_MAX)? else {
            continue;
        };
        add(&mut texts, name, text).map_err(|reason| WeightsError::malformed(folder, reason))?;
    }
    Ok(texts)
}

/// The templates in a tokenizer's configuration: one text, a list of names and texts, or texts by name.
fn of_configuration(tokenizer_config: &Map<String, Value>) -> Result<ChatTemplateTexts, String> {
    let mut texts = BTreeMap::new();
    match tokenizer_config.get("chat_template") {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => add(&mut texts, DEFAULT, text.clone())?,
        Some(Value::Array(entries)) => {
            for entry in entries {
                let text = |key: &str| entry.get(key).and_then(Value::as_str);
                let (Some(name), Some(template)) = (text("name"), text("template")) else {
                    let reason = "chat_template lists something without a name and a template";
                    return Err(reason.to_owned());
                };
                add(&mut texts, name, template.to_owned())?;
            }
        }
        Some(Value::Object(entries)) => {
            for (name, template) in entries {
                let Some(template) = template.as_str() else {
                    return Err(format!("chat_template {name:?} is not a text"));
                };
                add(&mut texts, name, template.to_owned())?;
            }
        }
        Some(_) => return Err("chat_template is neither a text, a list nor an object".to_owned()),
    }
    Ok(texts)
}

/// The templates of a GGUF file; what is wrong with them is noted as its problems.
pub(crate) fn of_gguf(metadata: &mut Metadata) -> ChatTemplateTexts {
    const ONE: &str = "tokenizer.chat_template";
    let mut texts = BTreeMap::new();
    let default = metadata.text(ONE).map(|text| (DEFAULT.to_owned(), text));
    // The list of names says nothing that the texts do not, but a text that it promises must be there.
    let listed = metadata
        .texts("tokenizer.chat_templates")
        .unwrap_or_default();
    let prefix = format!("{ONE}.");
    let mut names: Vec<String> = metadata
        .unread(&prefix, &[])
        .iter()
        .filter_map(|key| Some(key.strip_prefix(&prefix)?.to_owned()))
        .collect();
    names.extend(listed.into_iter().filter(|name| name != DEFAULT));
    names.sort();
    names.dedup();
    let mut named: Vec<(String, String)> = Vec::new();
    for name in names {
        match metadata.text(&format!("{prefix}{name}")) {
            Some(text) => named.push((name, text)),
            None => metadata.problem(format!("there is no chat template {name:?}")),
        }
    }
    for (name, text) in named.into_iter().chain(default) {
        if let Err(reason) = add(&mut texts, &name, text) {
            metadata.problem(reason);
        }
    }
    texts
}

/// Of several with one name the last counts, as in transformers.
fn add(texts: &mut ChatTemplateTexts, name: &str, text: String) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
        return Err(format!(
            "the name of a chat template must have 1 to {NAME_BYTES_MAX} bytes, without control characters"
        ));
    }
    texts.insert(name.to_owned(), text);
    match texts.len() > TEMPLATES_MAX {
        true => Err(format!(
            "there are more than {TEMPLATES_MAX} chat templates"
        )),
        false => Ok(()),
    }
}
