//! The fields that say how to sample, when to stop, and whose prefixes to share: those that all
//! generating endpoints have.

use serde_json::Value;

use crate::error::ApiError;
use crate::fields::{Fields, as_token_id, element};
use crate::limits::{
    MAX_CHOICES, MAX_LABEL_BYTES, MAX_LOGIT_BIAS, MAX_STOP_STRING_BYTES, MAX_STOP_STRINGS,
    MAX_STOP_TOKEN_IDS, MAX_TOKEN_NUMBER,
};

/// The smallest repetition penalty: the sampler divides by it.
pub(crate) const MIN_REPETITION_PENALTY: f64 = 0.01;

/// How to sample and when to stop, as far as the request says. `None` leaves the choice to the
/// model's own defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingFields {
    /// 0 to 2; 0 is greedy.
    pub temperature: Option<f32>,
    /// Above 0 and up to 1. A request's 0 arrives as the smallest positive number, which keeps
    /// the single most likely token.
    pub top_p: Option<f32>,
    /// 0 is off (the wire form knows -1 as well).
    pub top_k: Option<u32>,
    /// 0 to 1.
    pub min_p: Option<f32>,
    /// 0.01 to 2.
    pub repetition_penalty: Option<f32>,
    /// -2 to 2.
    pub frequency_penalty: Option<f32>,
    /// -2 to 2.
    pub presence_penalty: Option<f32>,
    /// Token ids in ascending order, each once, with -100 to 100 each. The ids are not checked
    /// against the vocabulary.
    pub logit_bias: Vec<(u32, f32)>,
    /// The seed, if the client wants the same answer again.
    pub seed: Option<i64>,
    /// Choices per prompt; at least 1.
    pub choices: u32,
    /// Strings that end the answer; none is empty.
    pub stop: Vec<String>,
    /// Token ids that end the answer, unchecked against the vocabulary.
    pub stop_token_ids: Vec<u32>,
    /// Tokens to generate at most; at least 1, or 0 where only the prompt is asked about. `None`:
    /// `default_max_tokens`.
    pub max_tokens: Option<u32>,
    /// What a request that does not say gets, if the context leaves it. `None`: whatever that leaves.
    pub default_max_tokens: Option<u32>,
    /// Tokens to generate before anything may end the answer; not above `max_tokens`.
    pub min_tokens: u32,
    /// Do not end at the model's end-of-sequence tokens.
    pub ignore_eos: bool,
    /// Leave the stop string at the end of the answer.
    pub include_stop_str_in_output: bool,
    /// Leave special tokens out of the text.
    pub skip_special_tokens: bool,
    /// Report log-probabilities, with this many alternatives for each position.
    pub logprobs: Option<u32>,
    /// Report those of the prompt, with this many alternatives for each position.
    pub prompt_logprobs: Option<u32>,
    /// Report that of the stop token which ended the answer, too.
    pub stop_token_logprobs: bool,
    /// Cached prefixes are shared only with requests that give the same.
    pub cache_salt: Option<String>,
}

/// What a client that streams wants in its stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// A last chunk without choices reports the usage.
    pub include_usage: bool,
    /// Every chunk reports the usage so far.
    pub continuous_usage_stats: bool,
}

impl Default for SamplingFields {
    /// One choice, and everything else as the model has it.
    fn default() -> Self {
        Self {
            temperature: None,
            top_p: None,
            top_k: None,
            min_p: None,
            repetition_penalty: None,
            frequency_penalty: None,
            presence_penalty: None,
            logit_bias: Vec::new(),
            seed: None,
            choices: 1,
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            max_tokens: None,
            default_max_tokens: None,
            min_tokens: 0,
            ignore_eos: false,
            include_stop_str_in_output: false,
            skip_special_tokens: true,
            logprobs: None,
            prompt_logprobs: None,
            stop_token_logprobs: false,
            cache_salt: None,
        }
    }
}

impl SamplingFields {
    /// All fields but those on log-probabilities, whose wire form differs between the endpoints.
    pub(crate) fn parse(body: &Fields<'_>, logprobs: Option<u32>) -> Result<Self, ApiError> {
        Self::parse_from(body, logprobs, 1)
    }

    /// The same for a request that generates at least `max_tokens_min` tokens.
    pub(crate) fn parse_from(
        body: &Fields<'_>,
        logprobs: Option<u32>,
        max_tokens_min: u32,
    ) -> Result<Self, ApiError> {
        let max_tokens = parse_max_tokens(body, max_tokens_min)?;
        let min_tokens = body
            .unsigned("min_tokens", 0..=i32::MAX as u32)?
            .unwrap_or(0);
        if max_tokens.is_some_and(|max_tokens| min_tokens > max_tokens) {
            return Err(body.invalid("min_tokens", "must not be greater than max_tokens"));
        }
        let choices = body.unsigned("n", 1..=MAX_CHOICES)?.unwrap_or(1);
        check_search(body, choices)?;
        Ok(Self {
            temperature: body.number("temperature", 0.0..=2.0)?,
            top_p: body
                .number("top_p", 0.0..=1.0)?
                .map(|top_p| top_p.max(f32::MIN_POSITIVE)),
            top_k: parse_top_k(body)?,
            min_p: body.number("min_p", 0.0..=1.0)?,
            repetition_penalty: parse_repetition_penalty(body)?,
            frequency_penalty: body.number("frequency_penalty", -2.0..=2.0)?,
            presence_penalty: body.number("presence_penalty", -2.0..=2.0)?,
            logit_bias: parse_logit_bias(body)?,
            seed: parse_seed(body)?,
            choices,
            stop: parse_stop(body)?,
            stop_token_ids: parse_stop_token_ids(body)?,
            max_tokens,
            default_max_tokens: None,
            min_tokens,
            ignore_eos: body.flag("ignore_eos", false)?,
            include_stop_str_in_output: body.flag("include_stop_str_in_output", false)?,
            skip_special_tokens: body.flag("skip_special_tokens", true)?,
            logprobs,
            prompt_logprobs: None,
            stop_token_logprobs: false,
            cache_salt: parse_cache_salt(body)?,
        })
    }
}

/// `Some` if the answer is to be streamed. `stream_options` without `stream` is ignored, because
/// gateways add it to everything.
pub(crate) fn parse_stream(body: &Fields<'_>) -> Result<Option<StreamOptions>, ApiError> {
    let stream = body.flag("stream", false)?;
    let mut options = StreamOptions::default();
    if let Some(fields) = body.object("stream_options")? {
        options.include_usage = fields.flag("include_usage", false)?;
        options.continuous_usage_stats = fields.flag("continuous_usage_stats", false)?;
    }
    Ok(stream.then_some(options))
}

/// Lower runs earlier; 0 where the request does not say.
pub(crate) fn parse_priority(body: &Fields<'_>) -> Result<i32, ApiError> {
    let range = i64::from(i32::MIN)..=i64::from(i32::MAX);
    let priority = body.integer("priority", range)?.unwrap_or(0);
    Ok(i32::try_from(priority).unwrap_or(0))
}

/// As vLLM has it: any text but an empty one.
pub(crate) fn parse_cache_salt(body: &Fields<'_>) -> Result<Option<String>, ApiError> {
    match body.label("cache_salt", MAX_LABEL_BYTES)? {
        Some("") => Err(body.invalid("cache_salt", "must not be empty")),
        salt => Ok(salt.map(str::to_owned)),
    }
}

/// Clients send one of the names and gateways sometimes two; the smallest number binds. That of
/// llama.cpp can be -1, for no limit.
fn parse_max_tokens(body: &Fields<'_>, least: u32) -> Result<Option<u32>, ApiError> {
    let range = least..=i32::MAX as u32;
    let old = body.unsigned("max_tokens", range.clone())?;
    let new = body.unsigned("max_completion_tokens", range)?;
    let other = body.integer("n_predict", -1..=MAX_TOKEN_NUMBER)?;
    let other = other.and_then(|tokens| u32::try_from(tokens).ok());
    if other.is_some_and(|tokens| tokens < least) {
        return Err(body.invalid("n_predict", &format!("must be at least {least}, or -1")));
    }
    Ok([old, new, other].into_iter().flatten().min())
}

/// As vLLM has it, or as llama.cpp does.
fn parse_repetition_penalty(body: &Fields<'_>) -> Result<Option<f32>, ApiError> {
    let range = MIN_REPETITION_PENALTY..=2.0;
    let penalty = body.number("repetition_penalty", range.clone())?;
    Ok(penalty.or(body.number("repeat_penalty", range)?))
}

/// As OpenAI has it, or as Mistral does.
fn parse_seed(body: &Fields<'_>) -> Result<Option<i64>, ApiError> {
    let seed = body.integer("seed", i64::MIN..=i64::MAX)?;
    Ok(seed.or(body.integer("random_seed", i64::MIN..=i64::MAX)?))
}

/// `best_of` equal to `n` keeps every choice, which is plain sampling.
fn check_search(body: &Fields<'_>, choices: u32) -> Result<(), ApiError> {
    if body.flag("use_beam_search", false)? {
        return Err(body.unsupported("use_beam_search", "beam search is not available"));
    }
    let best_of = body.unsigned("best_of", 1..=MAX_CHOICES)?.unwrap_or(1);
    if best_of > 1 && best_of != choices {
        return Err(body.unsupported("best_of", "only 1, or the value of n, is available"));
    }
    Ok(())
}

pub(crate) fn parse_top_k(body: &Fields<'_>) -> Result<Option<u32>, ApiError> {
    let top_k = body.integer("top_k", -1..=MAX_TOKEN_NUMBER)?;
    Ok(top_k.map(|top_k| u32::try_from(top_k).unwrap_or(0)))
}

/// An object, or, as llama.cpp has it, pairs of a token id and its bias, which may be false for a
/// token that must not come.
fn parse_logit_bias(body: &Fields<'_>) -> Result<Vec<(u32, f32)>, ApiError> {
    const REQUIREMENT: &str = "must be an object from token ids to numbers between -100 and 100, \
                               or an array of such pairs";
    let invalid = || body.invalid("logit_bias", REQUIREMENT);
    let entries: Vec<(Option<u32>, &Value)> = match body.get("logit_bias") {
        None => return Ok(Vec::new()),
        Some(Value::Object(entries)) => {
            let entries = entries.iter();
            entries
                .map(|(key, value)| (key.parse::<u32>().ok(), value))
                .collect()
        }
        Some(Value::Array(pairs)) => {
            let pairs = pairs.iter().map(|pair| match pair.as_array()?.as_slice() {
                [id, bias] => Some((as_token_id(id), bias)),
                _ => None,
            });
            pairs.collect::<Option<_>>().ok_or_else(invalid)?
        }
        Some(_) => return Err(invalid()),
    };
    if entries.len() > MAX_LOGIT_BIAS {
        let requirement = format!("must have at most {MAX_LOGIT_BIAS} entries");
        return Err(body.invalid("logit_bias", &requirement));
    }
    let mut biases = Vec::with_capacity(entries.len());
    for (id, value) in entries {
        let token = id.filter(|id| i64::from(*id) <= MAX_TOKEN_NUMBER);
        let bias = match value {
            Value::Bool(false) => Some(-100.0),
            value => value.as_f64(),
        };
        let bias = bias.filter(|bias| (-100.0..=100.0).contains(bias));
        let (Some(token), Some(bias)) = (token, bias) else {
            return Err(invalid());
        };
        biases.push((token, bias as f32));
    }
    // Distinct keys can spell one id ("7", "07"); the last one stands, as for equal JSON keys.
    biases.reverse();
    biases.sort_by_key(|(token, _)| *token);
    biases.dedup_by_key(|(token, _)| *token);
    Ok(biases)
}

pub(crate) fn parse_stop(body: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let check = |text: &str, path: String| match text.len() {
        0 => Err(ApiError::invalid_field(path, "must not be an empty string")),
        1..=MAX_STOP_STRING_BYTES => Ok(text.to_owned()),
        _ => {
            let requirement = format!("must have at most {MAX_STOP_STRING_BYTES} bytes");
            Err(ApiError::invalid_field(path, &requirement))
        }
    };
    match body.get("stop") {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![check(text, body.path("stop"))?]),
        Some(Value::Array(_)) => {
            let elements = body.array("stop", MAX_STOP_STRINGS)?.unwrap_or_default();
            let texts = elements.iter().enumerate().map(|(index, value)| {
                let path = element(&body.path("stop"), index);
                match value.as_str() {
                    Some(text) => check(text, path),
                    None => Err(ApiError::invalid_field(path, "must be a string")),
                }
            });
            texts.collect()
        }
        Some(_) => Err(body.invalid("stop", "must be a string or an array of strings")),
    }
}

fn parse_stop_token_ids(body: &Fields<'_>) -> Result<Vec<u32>, ApiError> {
    let elements = body
        .array("stop_token_ids", MAX_STOP_TOKEN_IDS)?
        .unwrap_or_default();
    parse_token_ids(elements, "stop_token_ids")
}

/// The elements of the array at `path` as token ids.
pub(crate) fn parse_token_ids(elements: &[Value], path: &str) -> Result<Vec<u32>, ApiError> {
    let ids = elements.iter().enumerate().map(|(index, value)| {
        as_token_id(value)
            .ok_or_else(|| ApiError::invalid_field(element(path, index), "must be a token id"))
    });
    ids.collect()
}
