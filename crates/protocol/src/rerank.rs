//! The body of `POST /v1/rerank`, parsed once, and its answer: as Cohere, Jina and vLLM have it.

use serde::Serialize;
use serde_json::Value;

use crate::encoder_fields::{self, EncoderUsage, parse_truncation};
use crate::error::ApiError;
use crate::fields::{Fields, element, parse_body};
use crate::limits::{MAX_ENCODER_INPUTS, MAX_LABEL_BYTES, MAX_TOKEN_NUMBER};
use crate::sampling::parse_priority;
use crate::unsupported::is_set;

/// Known fields that change the scores and that are not available.
const REFUSED: &[(&str, &str)] = &[
    (
        "instruction",
        "the models that are served here read a query and a document, and no instruction",
    ),
    ("max_tokens_per_query", "queries are not cut"),
];
/// The field with what is to be ranked.
const DOCUMENTS: &str = "documents";

/// A request to rank documents that holds nothing the server would have to refuse, apart from what depends on the
/// model: its name and how many tokens it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidRerankRequest {
    /// The model that was asked for, if any.
    pub model: Option<String>,
    /// What the documents are to answer; not empty.
    pub query: String,
    /// At least one.
    pub documents: Vec<String>,
    /// How many of the best are wanted, if not all.
    pub top_n: Option<usize>,
    /// The answer repeats the texts.
    pub return_documents: bool,
    /// Tokens to which longer documents are cut, and to what there is room for; `None` refuses what is too long.
    pub max_tokens_per_doc: Option<u32>,
    /// Tokens to which longer pairs of query and document are cut; `None` refuses them.
    pub truncate_to: Option<u32>,
    /// Lower runs earlier.
    pub priority: i32,
    /// Whom the client serves.
    pub user: Option<String>,
}

impl ValidRerankRequest {
    /// Parses a body; every error is a 400 that names the field.
    pub fn from_bytes(body: &[u8]) -> Result<Self, ApiError> {
        let value = parse_body(body)?;
        let body = &Fields::of_body(&value)?;
        encoder_fields::check(body)?;
        for (name, explanation) in REFUSED {
            if body.get(name).is_some_and(is_set) {
                return Err(body.unsupported(name, explanation));
            }
        }
        let top_n = body.integer("top_n", 0..=MAX_TOKEN_NUMBER)?;
        let top_n = top_n.and_then(|count| usize::try_from(count).ok());
        let tokens = 1..=MAX_TOKEN_NUMBER as u32;
        Ok(Self {
            model: body.label("model", MAX_LABEL_BYTES)?.map(str::to_owned),
            query: parse_query(body)?,
            documents: parse_documents(body)?,
            // None of them would be no answer: vLLM's clients mean all of them.
            top_n: top_n.filter(|count| *count > 0),
            return_documents: body.flag("return_documents", true)?,
            max_tokens_per_doc: body.unsigned("max_tokens_per_doc", tokens)?,
            truncate_to: parse_truncation(body)?,
            priority: parse_priority(body)?,
            user: body.label("user", MAX_LABEL_BYTES)?.map(str::to_owned),
        })
    }

    /// The dotted path of a document, for errors.
    pub fn path(index: usize) -> String {
        element(DOCUMENTS, index)
    }
}

fn parse_query(body: &Fields<'_>) -> Result<String, ApiError> {
    match body.string("query")? {
        None => Err(body.missing("query")),
        Some("") => Err(body.invalid("query", "must not be empty")),
        Some(query) => Ok(query.to_owned()),
    }
}

fn parse_documents(body: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let documents = body.array(DOCUMENTS, MAX_ENCODER_INPUTS)?;
    let documents = documents.ok_or_else(|| body.missing(DOCUMENTS))?;
    if documents.is_empty() {
        return Err(body.invalid(DOCUMENTS, "must not be empty"));
    }
    let documents = documents.iter().enumerate();
    documents
        .map(|(index, document)| parse_document(document, element(DOCUMENTS, index)))
        .collect()
}

/// A text, or an object with one.
fn parse_document(document: &Value, path: String) -> Result<String, ApiError> {
    match document {
        Value::String(text) => Ok(text.clone()),
        Value::Object(_) => {
            let fields = Fields::of_value(document, path)?;
            let text = fields.string("text")?;
            text.map(str::to_owned)
                .ok_or_else(|| fields.missing("text"))
        }
        _ => Err(ApiError::invalid_field(
            path,
            "must be a string or an object with 'text'",
        )),
    }
}

/// The answer to a [`ValidRerankRequest`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranking {
    /// The answer's id.
    pub id: String,
    /// The model's served name.
    pub model: String,
    /// Tokens of all pairs of query and document.
    pub usage: EncoderUsage,
    /// The most relevant first.
    pub results: Vec<RankedDocument>,
}

/// One document's place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankedDocument {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<DocumentText>,
    relevance_score: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct DocumentText {
    text: String,
}

impl RankedDocument {
    /// The document of this index in the request, with its text if that is wanted.
    pub fn new(index: usize, relevance_score: f32, text: Option<String>) -> Self {
        Self {
            index,
            document: text.map(|text| DocumentText { text }),
            relevance_score,
        }
    }
}
