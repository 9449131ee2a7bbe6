//! A checkpoint, which is a directory or a GGUF file: its configuration, its text files and the list of its tensors.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use backstop_models::gguf_path;
use backstop_text::Tokenizer;
use serde_json::{Map, Value};

use crate::chat_templates::{self, ChatTemplateTexts};
use crate::generation::{GenerationConfig, SpecialTokens};
use crate::gguf::{EmbeddedTokenizer, GgufFamily, GgufFile};
use crate::header::HeaderEntry;
use crate::shards::Shards;
use crate::text_files::{TEXT_BYTES_MAX, read_object};
use crate::{ElementType, QuantizationScheme, WeightsError};

/// One tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub element_type: ElementType,
    /// Its extents, slowest first.
    pub shape: Vec<usize>,
    /// Its size.
    pub bytes: u64,
    pub(crate) shard_index: usize,
    pub(crate) offset_bytes: u64,
    pub(crate) row_order: RowOrder,
}

/// How the rows of a tensor lie in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowOrder {
    /// In the order of the model.
    AsStored,
    /// Within each head, the two rows that rotary embeddings rotate with one another are
    /// neighbours; the model wants the first of all pairs before the second of all.
    PairsTogether {
        /// Rows of one head.
        head_rows: usize,
    },
}

/// Where a checkpoint's tokenizer is.
#[derive(Clone, Debug)]
pub enum TokenizerSource<'a> {
    /// In a directory, with its vocabulary in this file, which may be absent.
    File(PathBuf),
    /// In the file of the weights.
    Embedded(&'a EmbeddedTokenizer),
}

impl TensorInfo {
    pub(crate) fn new(entry: HeaderEntry, shard_index: usize) -> Self {
        Self {
            name: entry.name,
            element_type: entry.element_type,
            shape: entry.shape,
            bytes: entry.length_bytes,
            shard_index,
            offset_bytes: entry.offset_bytes,
            row_order: RowOrder::AsStored,
        }
    }

    /// Where it lies: its weight file, and the place in that. Storage is read fastest in this order.
    pub fn position(&self) -> (usize, u64) {
        (self.shard_index, self.offset_bytes)
    }

    /// Whether these bytes are whole elements, or blocks of them, within the tensor.
    pub(crate) fn has_elements(&self, start: u64, bytes: u64) -> bool {
        let width = self.unit_bytes() as u64;
        let end = start.checked_add(bytes);
        end.is_some_and(|end| end <= self.bytes)
            && start.is_multiple_of(width)
            && bytes.is_multiple_of(width)
    }

    /// Bytes of the smallest piece that is stored by itself.
    pub(crate) fn unit_bytes(&self) -> usize {
        self.element_type.unit().map_or(1, |(_, bytes)| bytes)
    }
}

/// An open checkpoint.
///
/// Opening it reads the text files and the headers of the weight files, and checks that they fit
/// together; the weights themselves are read when they are copied.
pub struct Checkpoint {
    directory: PathBuf,
    config: Map<String, Value>,
    generation_file: Option<Map<String, Value>>,
    generation: GenerationConfig,
    special_tokens: SpecialTokens,
    chat_templates: ChatTemplateTexts,
    tokenizer: Option<EmbeddedTokenizer>,
    pub(crate) shards: Shards,
}

impl Checkpoint {
    /// Opens the checkpoint in `directory`, or the GGUF file that it names or alone holds, which
    /// must be of one of the families `gguf`.
    pub fn open(directory: &Path, gguf: &[GgufFamily]) -> Result<Self, WeightsError> {
        if let Some(path) = gguf_path(directory) {
            return Self::open_gguf(&path, gguf);
        }
        let status =
            std::fs::metadata(directory).map_err(|source| WeightsError::io(directory, source))?;
        if !status.is_dir() {
            return Err(WeightsError::malformed(directory, "not a directory"));
        }
        let mut checkpoint = Self::open_shape(&directory.join("config.json"), directory, gguf)?;
        checkpoint.shards = Shards::open(directory)?;
        Ok(checkpoint)
    }

    /// Opens what says how a model would compute and speak, without any weights: the configuration
    /// in the file `config`, and the text files in `directory`; a GGUF file, of one of the
    /// families `gguf`, is both. The result has no tensors.
    pub fn open_shape(
        config: &Path,
        directory: &Path,
        gguf: &[GgufFamily],
    ) -> Result<Self, WeightsError> {
        if let Some(path) = gguf_path(config) {
            let mut checkpoint = Self::open_gguf(&path, gguf)?;
            checkpoint.shards = Shards::default();
            return Ok(checkpoint);
        }
        let object = |name: &str| read_object(&directory.join(name), TEXT_BYTES_MAX);

        let config = read_object(config, TEXT_BYTES_MAX)?.ok_or_else(|| {
            let name = config.file_name().unwrap_or_default().to_string_lossy();
            let beside = config.parent().unwrap_or(config);
            WeightsError::malformed(beside, format!("there is no {name}"))
        })?;
        let generation_file = object("generation_config.json")?;
        let generation = GenerationConfig::parse(generation_file.as_ref(), &config)
            .map_err(|reason| WeightsError::malformed(directory, reason))?;
        let tokenizer_config_path = directory.join("tokenizer_config.json");
        let tokenizer_config =
            read_object(&tokenizer_config_path, TEXT_BYTES_MAX)?.unwrap_or_default();
        let special_tokens = SpecialTokens::parse(
            &tokenizer_config,
            object("special_tokens_map.json")?.as_ref(),
        )
        .map_err(|reason| WeightsError::malformed(directory, reason))?;
        let chat_templates = chat_templates::of_directory(directory, &tokenizer_config)?;

        Ok(Self {
            directory: directory.to_owned(),
            config,
            generation_file,
            generation,
            special_tokens,
            chat_templates,
            tokenizer: None,
            shards: Shards::default(),
        })
    }

    fn open_gguf(path: &Path, families: &[GgufFamily]) -> Result<Self, WeightsError> {
        let file = GgufFile::open(path, families)?;
        let generation = GenerationConfig::parse(None, &file.config)
            .map_err(|reason| WeightsError::malformed(path, reason))?;
        Ok(Self {
            directory: path.to_owned(),
            config: file.config,
            generation_file: None,
            generation,
            special_tokens: file.special_tokens,
            chat_templates: file.chat_templates,
            tokenizer: file.tokenizer,
            shards: file.shards,
        })
    }

    /// The directory or GGUF file that was opened.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// `config.json`, or what a GGUF file says in its place, with any overrides applied.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// Merges `overrides` into the configuration: objects merge key by key, all else replaces.
    ///
    /// The checkpoint is unchanged if this fails.
    pub fn apply_overrides(&mut self, overrides: &Value) -> Result<(), WeightsError> {
        let Value::Object(overrides) = overrides else {
            return Err(WeightsError::Overrides(
                "they must be a JSON object".to_owned(),
            ));
        };
        let mut config = self.config.clone();
        merge(&mut config, overrides);
        self.generation = GenerationConfig::parse(self.generation_file.as_ref(), &config)
            .map_err(WeightsError::Overrides)?;
        self.config = config;
        Ok(())
    }

    /// Lets the configuration say that the head is not the embedding.
    pub fn untie_embeddings(&mut self) {
        let field = "tie_word_embeddings".to_owned();
        self.config.insert(field, Value::Bool(false));
    }

    /// Gives a tensor another name, which none has.
    pub fn rename(&mut self, from: &str, to: &str) {
        if let Some(mut tensor) = self.shards.tensors.remove(from) {
            to.clone_into(&mut tensor.name);
            self.shards.tensors.insert(to.to_owned(), tensor);
        }
    }

    /// The first of `architectures` in the configuration.
    pub fn architecture(&self) -> Option<&str> {
        self.config.get("architectures")?.get(0)?.as_str()
    }

    /// How the weights are quantised, by the configuration.
    pub fn quantization(&self) -> Result<QuantizationScheme, WeightsError> {
        Ok(QuantizationScheme::parse(&self.config)?)
    }

    /// Generation defaults: `generation_config.json`, and `config.json` for the token ids it lacks.
    pub fn generation_config(&self) -> GenerationConfig {
        self.generation.clone()
    }

    /// The texts of the special tokens that chat templates use.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special_tokens
    }

    /// The texts of the chat templates by name: those of `chat_template.jinja` (`default`) and
    /// `additional_chat_templates`, or else those in `tokenizer_config.json`.
    pub fn chat_templates(&self) -> &BTreeMap<String, String> {
        &self.chat_templates
    }

    /// The text of the chat template of requests that no other is for.
    pub fn default_chat_template(&self) -> Option<&str> {
        let default = self.chat_templates.get(chat_templates::DEFAULT);
        default.map(String::as_str)
    }

    /// Where the tokenizer is. Nothing here reads a file of it.
    pub fn tokenizer(&self) -> TokenizerSource<'_> {
        match &self.tokenizer {
            Some(tokenizer) => TokenizerSource::Embedded(tokenizer),
            None => TokenizerSource::File(Tokenizer::vocabulary_file(&self.directory)),
        }
    }

    /// The tensors, by name in ascending order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.shards.tensors.values()
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.shards.tensors.get(name)
    }

    /// The sum of the tensors' sizes.
    pub fn bytes_total(&self) -> u64 {
        self.tensors().map(|tensor| tensor.bytes).sum()
    }

    /// How the index differs from the files that it is about, if it does.
    pub fn index_differences(&self) -> Option<String> {
        let gaps = &self.shards.gaps;
        (!gaps.is_empty()).then(|| gaps.to_string())
    }

    /// The file in which the index has a tensor that is in none, and what is wrong with it.
    pub fn file_of_lost(&self, tensor: &str) -> Option<String> {
        self.shards.gaps.file_of_lost(tensor)
    }

    /// Number of weight files.
    pub fn file_count(&self) -> usize {
        self.shards.files.len()
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Checkpoint")
            .field("directory", &self.directory)
            .field("tensors", &self.shards.tensors.len())
            .finish_non_exhaustive()
    }
}

fn merge(target: &mut Map<String, Value>, overrides: &Map<String, Value>) {
    for (key, value) in overrides {
        match (target.get_mut(key), value) {
            (Some(Value::Object(inner)), Value::Object(changes)) => merge(inner, changes),
            _ => {
                target.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
