//! Opens a directory: which kind of encoder it is, its network, its tokenizer, and what comes behind.

use std::path::Path;
use std::sync::Arc;

use backstop_types::{Encoder, EncoderFacts, EncoderKind};
use backstop_weights::Checkpoint;
use serde_json::{Map, Value};

use crate::activation::Activation;
use crate::encoder::{Output, TensorEncoder};
use crate::families::{self, Loaded};
use crate::modules::{Plan, class_named};
use crate::settings::{file_error, read_object};
use crate::tokenizer::{TextTokenizer, TokenLimits};
use crate::{EncoderDevice, EncoderError};

/// Opens the encoder in `directory`, with all its weights, in single precision.
///
/// The directory is as transformers or sentence-transformers save it: `config.json`, safetensors, `tokenizer.json`, and
/// for embeddings `modules.json` with what it names. A model whose `architectures` end in `ForSequenceClassification` and
/// that has one label scores pairs, unless `modules.json` has pooling.
pub fn open_encoder(
    directory: &Path,
    device: EncoderDevice,
) -> Result<Arc<dyn Encoder>, EncoderError> {
    let plan = Plan::read(directory)?;
    let checkpoint = open_checkpoint(&plan.network)?;
    let scores = !plan.is_embedding() && is_classifier(checkpoint.config());
    let score_activation = scores
        .then(|| score_activation(directory, checkpoint.config()))
        .transpose()?;
    let device = device.open()?;
    let (loaded, architecture) = families::load(&checkpoint, &device, scores)?;
    let Loaded {
        network,
        shape,
        tokens_max,
        reads_segments,
    } = loaded;
    let limits = TokenLimits {
        tokens_max,
        vocabulary: shape.vocabulary,
        reads_segments,
    };
    let tokenizer = TextTokenizer::open(&plan.network, limits)?;
    let (kind, output) = match score_activation {
        Some(activation) => (EncoderKind::Relevance, Output::Scores(activation)),
        None => {
            let modules = plan.load(shape.width, &device)?;
            let kind = EncoderKind::Embedding {
                dimensions: modules.dimensions as u32,
                shortens: shortens(checkpoint.config()),
            };
            (kind, Output::Vectors(modules))
        }
    };
    let facts = EncoderFacts {
        kind,
        max_tokens: tokenizer.limits().tokens_max as u32,
        vocabulary: shape.vocabulary as u32,
        architecture,
    };
    Ok(Arc::new(TensorEncoder::new(
        facts, tokenizer, network, output,
    )))
}

/// Opens configuration and headers; says what to do about weights that can run code.
fn open_checkpoint(directory: &Path) -> Result<Checkpoint, EncoderError> {
    Checkpoint::open(directory, &[]).map_err(|error| {
        let has_safetensors = directory
            .read_dir()
            .is_ok_and(|mut files| files.any(|file| is_safetensors(&file)));
        let pickled = directory.join("pytorch_model.bin");
        match pickled.is_file() && !has_safetensors {
            true => file_error(
                &pickled,
                "only safetensors are read; save the model again with transformers, which writes them",
            ),
            false => error.into(),
        }
    })
}

fn is_safetensors(file: &std::io::Result<std::fs::DirEntry>) -> bool {
    let path = file.as_ref().map(std::fs::DirEntry::path);
    path.is_ok_and(|path| path.extension().is_some_and(|end| end == "safetensors"))
}

/// Whether it was trained to rate texts, which for pairs is relevance.
fn is_classifier(config: &Map<String, Value>) -> bool {
    let architectures = config.get("architectures").and_then(Value::as_array);
    let first = architectures.and_then(|names| names.first()?.as_str());
    first.is_some_and(|name| name.ends_with("ForSequenceClassification"))
}

/// What a score goes through: what the files name, or else a sigmoid, as `CrossEncoder` of sentence-transformers has it
/// for one label. Several labels are an error.
fn score_activation(
    directory: &Path,
    config: &Map<String, Value>,
) -> Result<Activation, EncoderError> {
    let named = config.get("id2label").and_then(Value::as_object);
    let named = named.map(|labels| labels.len() as u64);
    let counted = config.get("num_labels").and_then(Value::as_u64);
    let labels = named.or(counted).unwrap_or(2);
    if labels != 1 {
        return Err(EncoderError::unsupported(format!(
            "config.json: it is a classifier with {labels} labels; a model that scores pairs has one, and one for \
             embeddings has a modules.json with pooling"
        )));
    }
    let beside_path = directory.join("config_sentence_transformers.json");
    let beside = read_object(&beside_path)?;
    let nested = config
        .get("sentence_transformers")
        .and_then(Value::as_object);
    let nested = nested.and_then(|nested| class_named(nested, "activation_fn"));
    class_named(&beside, "activation_fn")
        .or(nested)
        .or_else(|| class_named(config, "sbert_ce_default_activation_function"))
        .unwrap_or(Ok(Activation::Sigmoid))
        .map_err(EncoderError::unsupported)
}

/// Whether the first numbers of its vectors are vectors, by the fields that such models have.
fn shortens(config: &Map<String, Value>) -> bool {
    let sizes = config
        .get("matryoshka_dimensions")
        .and_then(Value::as_array);
    config.get("is_matryoshka") == Some(&Value::Bool(true))
        || sizes.is_some_and(|sizes| !sizes.is_empty())
}
