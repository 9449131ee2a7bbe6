//! Checkpoints in a GGUF file, or in the parts of one: tensors, configuration, tokenizer and chat template.
//!
//! What the file says is translated into what a Hugging Face checkpoint would say: tensors get the
//! names that architectures ask for, metadata becomes the fields of `config.json`. Nothing else in
//! Backstop knows the format.

mod config;
mod endings;
mod family;
mod metadata;
mod names;
mod parts;
pub(crate) mod reader;
mod tokenizer;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

pub use family::{GgufConventions, GgufExperts, GgufFamily, GgufField, GgufNorm};
pub use tokenizer::EmbeddedTokenizer;

use crate::chat_templates::{self, ChatTemplateTexts};
use crate::checkpoint::RowOrder;
use crate::header::HeaderEntry;
use crate::shard::Shard;
use crate::shards::Shards;
use crate::{ElementType, SpecialTokens, TensorInfo, WeightsError};
pub(crate) use metadata::Metadata;
use parts::Parts;

/// Factors on the wave lengths of rotary embeddings, one for each pair of a head's elements.
const ROPE_FACTORS: &str = "rope_freqs.weight";
/// Most such factors.
const ROPE_FACTORS_MAX: u64 = 4096;
/// Bytes of one head's rows, which are put in order in memory.
const HEAD_BYTES_MAX: u64 = 64 << 20;
/// Most experts of a layer.
const EXPERTS_MAX: usize = 4096;

/// What a GGUF file holds.
pub(crate) struct GgufFile {
    pub(crate) config: Map<String, Value>,
    pub(crate) special_tokens: SpecialTokens,
    pub(crate) chat_templates: ChatTemplateTexts,
    pub(crate) tokenizer: Option<EmbeddedTokenizer>,
    pub(crate) shards: Shards,
}

impl GgufFile {
    /// Opens the file, which must be of one of these families and may be the first of several parts, and translates what
    /// it says.
    pub(crate) fn open(path: &Path, families: &[GgufFamily]) -> Result<Self, WeightsError> {
        let parts = Parts::open(path)?;
        let malformed = |reason: String| WeightsError::malformed(path, reason);
        Self::translate(parts, families).map_err(malformed)
    }

    fn translate(parts: Parts, families: &[GgufFamily]) -> Result<Self, String> {
        let Parts {
            files,
            metadata,
            mut tensors,
        } = parts;
        let mut metadata = Metadata::new(metadata);
        let family = GgufFamily::of(families, &mut metadata)?;
        let (tokenizer, special) = EmbeddedTokenizer::read(&mut metadata);
        let rope_factors = tensors
            .iter()
            .position(|(_, entry)| entry.name == ROPE_FACTORS);
        let rope_factors = rope_factors.map(|index| {
            let (file, entry) = tensors.remove(index);
            read_rope_factors(&files[file], &entry)
        });
        let rope_factors = rope_factors.transpose()?;
        let mut config = family.config(&mut metadata, &tensors, rope_factors.as_deref());
        let ends: Vec<u32> = tokenizer
            .iter()
            .flat_map(|tokenizer| tokenizer.ends.iter().map(|end| end.id))
            .collect();
        if let Some(bos) = special.bos {
            config.insert("bos_token_id".to_owned(), bos.into());
        }
        if !ends.is_empty() {
            config.insert("eos_token_id".to_owned(), ends.into());
        }
        if let Some(padding) = special.padding {
            config.insert("pad_token_id".to_owned(), padding.into());
        }
        let chat_templates = chat_templates::of_gguf(&mut metadata);
        metadata.finish()?;
        let mut named = Vec::with_capacity(tensors.len());
        for (file, entry) in tensors {
            let experts = family.conventions.experts;
            match experts.filter(|names| names::expert_name(&entry.name, 0, *names).is_some()) {
                Some(names) => named.extend(expert_matrices(file, &entry, names)?),
                None => named.push(family.tensor(file, entry, &config)?),
            }
        }
        Ok(Self {
            shards: Shards {
                files,
                tensors: by_name(named)?,
                ..Shards::default()
            },
            config,
            special_tokens: special.texts,
            chat_templates,
            tokenizer,
        })
    }
}

fn by_name(tensors: Vec<TensorInfo>) -> Result<BTreeMap<String, TensorInfo>, String> {
    let mut named = BTreeMap::new();
    for tensor in tensors {
        if let Some(earlier) = named.insert(tensor.name.clone(), tensor) {
            return Err(format!("two tensors stand for {}", earlier.name));
        }
    }
    Ok(named)
}

/// The matrices in a tensor of all experts `[experts, rows, columns]`, or their biases `[experts, rows]`, under the names that the
/// model asks for.
fn expert_matrices(
    file: usize,
    entry: &HeaderEntry,
    names: GgufExperts,
) -> Result<Vec<TensorInfo>, String> {
    let dimensions = if entry.name.ends_with(".bias") { 2 } else { 3 };
    let of_each = entry.shape.split_first();
    let Some((&count @ 1..=EXPERTS_MAX, of_each)) =
        of_each.filter(|_| entry.shape.len() == dimensions)
    else {
        return Err(format!(
            "tensor {:?} of shape {:?} is not a matrix for each of at most {EXPERTS_MAX} experts",
            entry.name, entry.shape
        ));
    };
    let bytes = entry.length_bytes / count as u64;
    let expert = |expert: usize| {
        let name = names::expert_name(&entry.name, expert, names)?;
        let matrix = HeaderEntry {
            name,
            element_type: entry.element_type,
            shape: of_each.to_vec(),
            offset_bytes: entry.offset_bytes + expert as u64 * bytes,
            length_bytes: bytes,
        };
        Some(TensorInfo::new(matrix, file))
    };
    Ok((0..count).filter_map(expert).collect())
}

impl GgufFamily {
    /// The tensor under the name, and in the order of rows, that the model asks for.
    fn tensor(
        &self,
        file: usize,
        entry: HeaderEntry,
        config: &Map<String, Value>,
    ) -> Result<TensorInfo, String> {
        let row_order = self.row_order(&entry, config)?;
        let name = names::hugging_face_name(&entry.name, &self.conventions);
        Ok(TensorInfo {
            row_order,
            ..TensorInfo::new(HeaderEntry { name, ..entry }, file)
        })
    }

    /// Converters store the rows of queries and keys of some architectures such that the two
    /// elements of a rotated pair are neighbours.
    fn row_order(
        &self,
        entry: &HeaderEntry,
        config: &Map<String, Value>,
    ) -> Result<RowOrder, String> {
        let heads = match names::layer_part(&entry.name) {
            Some(names::QUERY) if self.conventions.pairs_together => "num_attention_heads",
            Some(names::KEY) if self.conventions.pairs_together => "num_key_value_heads",
            _ => return Ok(RowOrder::AsStored),
        };
        let heads = config.get(heads).and_then(Value::as_u64).unwrap_or(0);
        let rows = entry.shape[0] as u64;
        let head_rows = rows.checked_div(heads).unwrap_or(0);
        if head_rows == 0 || !head_rows.is_multiple_of(2) || head_rows * heads != rows {
            let name = &entry.name;
            return Err(format!(
                "tensor {name:?}: {rows} rows are not {heads} heads"
            ));
        }
        if entry.length_bytes / heads > HEAD_BYTES_MAX {
            return Err(format!("tensor {:?}: its heads are too large", entry.name));
        }
        Ok(RowOrder::PairsTogether {
            head_rows: head_rows as usize,
        })
    }
}

fn read_rope_factors(shard: &Shard, entry: &HeaderEntry) -> Result<Vec<f32>, String> {
    let fits = entry.element_type == ElementType::F32 && entry.length_bytes <= 4 * ROPE_FACTORS_MAX;
    if !fits {
        return Err(format!(
            "{ROPE_FACTORS} is {} {:?}, expected up to {ROPE_FACTORS_MAX} of F32",
            entry.element_type, entry.shape
        ));
    }
    let mut bytes = vec![0; entry.length_bytes as usize];
    shard
        .read_at(&mut bytes, entry.offset_bytes)
        .map_err(|error| format!("cannot read {ROPE_FACTORS}: {error}"))?;
    let (numbers, _) = bytes.as_chunks::<4>();
    Ok(numbers
        .iter()
        .map(|&bytes| f32::from_le_bytes(bytes))
        .collect())
}

#[cfg(test)]
mod tests;
