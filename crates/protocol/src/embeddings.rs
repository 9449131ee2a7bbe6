//! The body of `POST /v1/embeddings`, parsed once, and its answer.

use serde::Serialize;

use crate::base64;
use crate::completions::{CompletionPrompt, parse_prompts};
use crate::encoder_fields::{self, EncoderUsage, parse_truncation};
use crate::error::ApiError;
use crate::fields::{Fields, element, parse_body};
use crate::limits::{MAX_ENCODER_INPUTS, MAX_LABEL_BYTES};
use crate::sampling::parse_priority;

/// The field with what is to be encoded.
const INPUT: &str = "input";
/// More than any vector has.
const MAX_DIMENSIONS: u32 = 1 << 20;

/// A request for embeddings that holds nothing the server would have to refuse, apart from what depends on the
/// model: its name, its vocabulary, how many tokens it takes and how long its vectors are.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidEmbeddingRequest {
    /// The model that was asked for, if any.
    pub model: Option<String>,
    /// At least one, and none of them empty.
    pub inputs: Vec<CompletionPrompt>,
    /// Numbers of a vector, if not all.
    pub dimensions: Option<u32>,
    /// How the vectors are to be written.
    pub encoding: VectorEncoding,
    /// Texts get the tokenizer's special tokens. Token ids are taken as they are.
    pub add_special_tokens: bool,
    /// Tokens to which longer inputs are cut; `None` refuses them.
    pub truncate_to: Option<u32>,
    /// Lower runs earlier.
    pub priority: i32,
    /// Whom the client serves.
    pub user: Option<String>,
    /// The input is one of an array, which errors tell.
    batched: bool,
}

/// How a vector is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VectorEncoding {
    /// An array of numbers.
    #[default]
    Float,
    /// The base64 text of 32-bit floating point numbers, lowest byte first.
    Base64,
}

impl ValidEmbeddingRequest {
    /// Parses a body; every error is a 400 that names the field.
    pub fn from_bytes(body: &[u8]) -> Result<Self, ApiError> {
        let value = parse_body(body)?;
        let body = &Fields::of_body(&value)?;
        encoder_fields::check(body)?;
        let request = Self {
            model: body.label("model", MAX_LABEL_BYTES)?.map(str::to_owned),
            inputs: parse_prompts(body, INPUT, MAX_ENCODER_INPUTS)?,
            dimensions: body.unsigned("dimensions", 1..=MAX_DIMENSIONS)?,
            encoding: parse_encoding(body)?,
            add_special_tokens: body.flag("add_special_tokens", true)?,
            truncate_to: parse_truncation(body)?,
            priority: parse_priority(body)?,
            user: body.label("user", MAX_LABEL_BYTES)?.map(str::to_owned),
            batched: is_batch(body),
        };
        let is_empty = |input: &CompletionPrompt| matches!(input, CompletionPrompt::Text(text) if text.is_empty());
        match request.inputs.iter().position(is_empty) {
            None => Ok(request),
            Some(index) => {
                let path = request.path(index);
                Err(ApiError::invalid_field(path, "must not be empty"))
            }
        }
    }

    /// The dotted path of an input, for errors.
    pub fn path(&self, index: usize) -> String {
        match self.batched {
            true => element(INPUT, index),
            false => INPUT.to_owned(),
        }
    }
}

/// Whether the input is an array of inputs, not of one input's tokens.
fn is_batch(body: &Fields<'_>) -> bool {
    let first = body.get(INPUT).and_then(|input| input.get(0));
    first.is_some_and(|first| !first.is_number())
}

fn parse_encoding(body: &Fields<'_>) -> Result<VectorEncoding, ApiError> {
    const NAME: &str = "encoding_format";
    match body.string(NAME)? {
        None | Some("float") => Ok(VectorEncoding::Float),
        Some("base64") => Ok(VectorEncoding::Base64),
        Some(_) => Err(body.invalid(NAME, "must be \"float\" or \"base64\"")),
    }
}

/// The answer to a [`ValidEmbeddingRequest`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EmbeddingList {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: EncoderUsage,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Vector {
    Float(Vec<f32>),
    Base64(String),
}

impl EmbeddingList {
    /// The vectors of a request's inputs, in their order, of the model of this served name. All numbers are
    /// finite, for JSON has no others.
    pub fn new(
        model: String,
        vectors: Vec<Vec<f32>>,
        encoding: VectorEncoding,
        usage: EncoderUsage,
    ) -> Self {
        let write = |vector: Vec<f32>| match encoding {
            VectorEncoding::Float => Vector::Float(vector),
            VectorEncoding::Base64 => Vector::Base64(base64::of_numbers(&vector)),
        };
        let embedding = |(index, vector)| Embedding {
            object: "embedding",
            index,
            embedding: write(vector),
        };
        Self {
            object: "list",
            data: vectors.into_iter().enumerate().map(embedding).collect(),
            model,
            usage,
        }
    }
}
