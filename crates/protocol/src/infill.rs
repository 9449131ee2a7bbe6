//! The body of `POST /infill` and its answers, as llama.cpp's server has them.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::fields::{Fields, element, parse_chat_body};
use crate::limits::{
    MAX_CHOICES, MAX_CONTEXT_FILES, MAX_LABEL_BYTES, MAX_RESPONSE_FIELDS, MAX_TOKEN_NUMBER,
};
use crate::output_format::refuse_output_format;
use crate::sampling::{SamplingFields, parse_priority};
use crate::unsupported;

/// A request to fill in the middle.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidInfillRequest {
    /// The model that was asked for, if any.
    pub model: Option<String>,
    /// What stands before the middle.
    pub prefix: String,
    /// What stands behind it.
    pub suffix: String,
    /// Other texts that say something of it, the last ones most.
    pub files: Vec<ContextFile>,
    /// How to sample and when to stop; no tokens at all only warm up the cache.
    pub sampling: SamplingFields,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Ends the middle before a line, not the first, that is indented by fewer characters.
    pub min_indent: u32,
    /// Ends the middle with the first line that ends so many milliseconds after its first token.
    pub max_predict_ms: Option<u32>,
    /// Report the ids of the tokens.
    pub return_tokens: bool,
    /// The fields that the answer has, where that is not all; paths with `/`.
    pub response_fields: Vec<String>,
    /// Lower runs earlier.
    pub priority: i32,
}

/// A text from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextFile {
    /// What it is called, if that is known.
    pub name: Option<String>,
    /// What it says.
    pub text: String,
}

impl ValidInfillRequest {
    /// Parses a body; every error is a 400 that names the field.
    pub fn from_bytes(body: &[u8]) -> Result<Self, ApiError> {
        let body = &parse_chat_body(body)?;
        let body = &Fields::of_body(body)?;
        let required = |name: &str| body.string(name)?.ok_or_else(|| body.missing(name));
        let (before, suffix) = (required("input_prefix")?, required("input_suffix")?);
        unsupported::check(body)?;
        refuse_output_format(body)?;
        // The prompt is the beginning of the line at which the middle begins.
        let prompt = body.string("prompt")?.unwrap_or_default();
        let time = body.integer("t_max_predict_ms", -1..=MAX_TOKEN_NUMBER)?;
        Ok(Self {
            model: body.label("model", MAX_LABEL_BYTES)?.map(str::to_owned),
            prefix: format!("{before}{prompt}"),
            suffix: suffix.to_owned(),
            files: parse_files(body)?,
            sampling: parse_sampling(body)?,
            stream: body.flag("stream", false)?,
            min_indent: body.unsigned("n_indent", 0..=u32::MAX)?.unwrap_or(0),
            max_predict_ms: time.and_then(|time| u32::try_from(time).ok().filter(|&ms| ms > 0)),
            return_tokens: body.flag("return_tokens", false)?,
            response_fields: parse_response_fields(body)?,
            priority: parse_priority(body)?,
        })
    }
}

/// The fields for sampling by llama.cpp's names.
fn parse_sampling(body: &Fields<'_>) -> Result<SamplingFields, ApiError> {
    let sampling = SamplingFields::parse_from(body, None, 0)?;
    let sampling = SamplingFields {
        choices: body.unsigned("n_cmpl", 1..=MAX_CHOICES)?.unwrap_or(1),
        seed: sampling.seed.filter(|seed| *seed >= 0),
        ..sampling
    };
    let penalises = sampling.repetition_penalty.is_some_and(|it| it != 1.0)
        || sampling.frequency_penalty.is_some_and(|it| it != 0.0)
        || sampling.presence_penalty.is_some_and(|it| it != 0.0);
    let window = body.integer("repeat_last_n", -1..=MAX_TOKEN_NUMBER)?;
    match window {
        Some(0..) if penalises => {
            Err(body.unsupported("repeat_last_n", "only -1, all tokens, is available"))
        }
        _ => Ok(sampling),
    }
}

fn parse_files(body: &Fields<'_>) -> Result<Vec<ContextFile>, ApiError> {
    let files = body.array("input_extra", MAX_CONTEXT_FILES)?;
    let files = files.unwrap_or_default().iter().enumerate();
    let files = files.map(|(index, value)| {
        let file = Fields::of_value(value, element("input_extra", index))?;
        let text = file.string("text")?.ok_or_else(|| file.missing("text"))?;
        let name = file.label("filename", MAX_LABEL_BYTES)?;
        Ok(ContextFile {
            name: name.map(str::to_owned),
            text: text.to_owned(),
        })
    });
    files.collect()
}

fn parse_response_fields(body: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    const NAME: &str = "response_fields";
    let fields = body.array(NAME, MAX_RESPONSE_FIELDS)?.unwrap_or_default();
    let fields = fields.iter().enumerate().map(|(index, value)| {
        let text = value.as_str().filter(|text| text.len() <= MAX_LABEL_BYTES);
        let requirement = format!("must be a string of at most {MAX_LABEL_BYTES} bytes");
        text.map(str::to_owned)
            .ok_or_else(|| ApiError::invalid_field(element(NAME, index), &requirement))
    });
    fields.collect()
}

/// A part of a streamed answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InfillChunk<'a> {
    /// Its choice.
    pub index: usize,
    /// What is new.
    pub content: &'a str,
    /// The ids of the new tokens, if they were asked for.
    pub tokens: &'a [u32],
    /// Always false.
    pub stop: bool,
    /// Tokens generated so far.
    pub tokens_predicted: u32,
    /// Tokens of the prompt.
    pub tokens_evaluated: u32,
}

/// A whole answer, or the last part of a streamed one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InfillAnswer<'a> {
    /// Its choice.
    pub index: usize,
    /// The middle; nothing in the last part of a streamed answer.
    pub content: &'a str,
    /// The ids of its tokens, if they were asked for.
    pub tokens: &'a [u32],
    /// Always true.
    pub stop: bool,
    /// The model's name.
    pub model: &'a str,
    /// Tokens generated.
    pub tokens_predicted: u32,
    /// Tokens of the prompt.
    pub tokens_evaluated: u32,
    /// Tokens that the cache holds of both.
    pub tokens_cached: u32,
    /// What the request came to.
    pub generation_settings: &'a InfillSettings,
    /// The prompt that was made of the texts.
    pub prompt: &'a str,
    /// Whether the middle has more than one line.
    pub has_new_line: bool,
    /// Whether something was cut off from the text before or behind the middle.
    pub truncated: bool,
    /// Why it ended: `eos`, `word` or `limit`.
    pub stop_type: &'static str,
    /// The stop string that it ended with, if any.
    pub stopping_word: &'a str,
    /// How long it took.
    pub timings: InfillTimings,
}

/// How the answer was made, with the model's defaults where the request is silent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct InfillSettings {
    /// Prompt and answer together, in tokens.
    pub n_ctx: u32,
    /// -1 if it was left open.
    pub n_predict: i64,
    /// -1 if it was left open.
    pub seed: i64,
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 is off.
    pub top_k: u32,
    /// 1 is off.
    pub top_p: f32,
    /// 0 is off.
    pub min_p: f32,
    /// 1 is off.
    pub repeat_penalty: f32,
    /// 0 is off.
    pub presence_penalty: f32,
    /// 0 is off.
    pub frequency_penalty: f32,
    /// Stop strings.
    pub stop: Vec<String>,
    /// 0 is off.
    pub n_indent: u32,
    /// 0 is off.
    pub t_max_predict_ms: u32,
    /// Whether the ends of texts were ignored.
    pub ignore_eos: bool,
}

/// How long prompt and answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct InfillTimings {
    cache_n: u32,
    prompt_n: u32,
    prompt_ms: f64,
    prompt_per_token_ms: f64,
    prompt_per_second: f64,
    predicted_n: u32,
    predicted_ms: f64,
    predicted_per_token_ms: f64,
    predicted_per_second: f64,
}

impl InfillTimings {
    /// Of a prompt of which `cached` tokens were known and the others had to be computed, and of its
    /// answer.
    pub fn new(cached: u32, prompt: TimedTokens, answer: TimedTokens) -> Self {
        Self {
            cache_n: cached,
            prompt_n: prompt.count,
            prompt_ms: prompt.milliseconds,
            prompt_per_token_ms: prompt.milliseconds_each(),
            prompt_per_second: prompt.per_second(),
            predicted_n: answer.count,
            predicted_ms: answer.milliseconds,
            predicted_per_token_ms: answer.milliseconds_each(),
            predicted_per_second: answer.per_second(),
        }
    }
}

/// Tokens, and how long they took together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimedTokens {
    /// How many.
    pub count: u32,
    /// Together.
    pub milliseconds: f64,
}

impl TimedTokens {
    fn milliseconds_each(self) -> f64 {
        ratio(self.milliseconds, f64::from(self.count))
    }

    fn per_second(self) -> f64 {
        ratio(1000.0 * f64::from(self.count), self.milliseconds)
    }
}

/// Nothing is no time at all, not a number of which there is none in JSON.
fn ratio(of: f64, to: f64) -> f64 {
    if to > 0.0 { of / to } else { 0.0 }
}

/// What a request wants to see of an answer: everything, or an object whose keys are the paths that it
/// named and that lead somewhere.
pub fn selected(answer: Value, paths: &[String]) -> Value {
    if paths.is_empty() {
        return answer;
    }
    let mut selected = Map::new();
    for path in paths {
        let mut keys = path.split('/');
        let found = keys.try_fold(&answer, |value, key| value.get(key));
        if let Some(found) = found {
            selected.insert(path.clone(), found.clone());
        }
    }
    Value::Object(selected)
}
