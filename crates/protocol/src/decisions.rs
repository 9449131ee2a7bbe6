//! The body of `POST /v1/decisions` and its answer, as OpenAI has them: questions about an input, each
//! answered with probabilities.

mod input;

use serde::Serialize;
use serde_json::Value;

use crate::error::ApiError;
use crate::fields::{Fields, element, parse_chat_body};
use crate::limits::{
    MAX_DECISION_CHOICES, MAX_DECISION_LEVELS, MAX_DECISION_QUESTIONS, MAX_LABEL_BYTES,
    MAX_SEQUENCES,
};
use crate::response::Usage;
use crate::responses::ResponseUsage;
use crate::sampling::{parse_cache_salt, parse_priority};

/// Questions about an input.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidDecisionRequest {
    /// The model that was asked for, if any.
    pub model: Option<String>,
    /// What the questions are about, as text.
    pub input: String,
    /// At least one.
    pub questions: Vec<DecisionQuestion>,
    /// Cached prefixes are shared only with requests that give the same.
    pub cache_salt: Option<String>,
    /// Lower runs earlier.
    pub priority: i32,
}

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub struct DecisionQuestion {
    /// What its answer is called, if the request says.
    pub name: Option<String>,
    /// The question itself.
    pub instructions: String,
    /// What may be answered.
    pub kind: QuestionKind,
}

/// What a question can be answered with.
#[derive(Clone, Debug, PartialEq)]
pub enum QuestionKind {
    /// Yes or no.
    Predicate,
    /// One of at least two options.
    Choice(Vec<ChoiceOption>),
    /// One of at least two levels, from the lowest to the highest.
    Score(Vec<ScoreLevel>),
}

/// An option.
#[derive(Clone, Debug, PartialEq)]
pub struct ChoiceOption {
    /// What is answered.
    pub value: ChoiceValue,
    /// What it means, if the request says.
    pub description: Option<String>,
}

/// What is answered. A text and a truth value that reads alike are different.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ChoiceValue {
    /// A text.
    Text(String),
    /// A truth value.
    Flag(bool),
}

/// A level of a score.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreLevel {
    /// What it is called.
    pub label: String,
    /// What it means, if the request says.
    pub description: Option<String>,
}

impl ValidDecisionRequest {
    /// Parses a body; every error is a 400 that names the field.
    pub fn from_bytes(body: &[u8]) -> Result<Self, ApiError> {
        let body = &parse_chat_body(body)?;
        let body = &Fields::of_body(body)?;
        let input = input::parse(body)?;
        if body.flag("stream", false)? {
            return Err(body.unsupported("stream", "decisions are not streamed"));
        }
        let questions = body.array("questions", MAX_DECISION_QUESTIONS)?;
        let questions = questions.ok_or_else(|| body.missing("questions"))?;
        if questions.is_empty() {
            return Err(body.invalid("questions", "must not be empty"));
        }
        let questions = questions.iter().enumerate().map(|(index, value)| {
            parse_question(&Fields::of_value(value, element("questions", index))?)
        });
        let questions = questions.collect::<Result<Vec<_>, ApiError>>()?;
        let options: usize = questions.iter().map(|question| question.kind.len()).sum();
        if options > MAX_SEQUENCES {
            let requirement = format!(
                "must have at most {MAX_SEQUENCES} choices and levels in all; a predicate has two"
            );
            return Err(body.invalid("questions", &requirement));
        }
        Ok(Self {
            model: body.label("model", MAX_LABEL_BYTES)?.map(str::to_owned),
            input,
            questions,
            cache_salt: parse_cache_salt(body)?,
            priority: parse_priority(body)?,
        })
    }
}

impl QuestionKind {
    fn len(&self) -> usize {
        match self {
            Self::Predicate => 2,
            Self::Choice(options) => options.len(),
            Self::Score(levels) => levels.len(),
        }
    }
}

fn parse_question(question: &Fields<'_>) -> Result<DecisionQuestion, ApiError> {
    let kind = match question.string("type")? {
        None => return Err(question.missing("type")),
        Some("predicate") => QuestionKind::Predicate,
        Some("choice") => QuestionKind::Choice(parse_choices(question)?),
        Some("score") => QuestionKind::Score(parse_levels(question)?),
        Some(_) => {
            return Err(
                question.unsupported("type", "only predicate, choice and score are available")
            );
        }
    };
    Ok(DecisionQuestion {
        name: question.label("name", MAX_LABEL_BYTES)?.map(str::to_owned),
        instructions: input::parse_text(question, "instructions")?,
        kind,
    })
}

fn parse_choices(question: &Fields<'_>) -> Result<Vec<ChoiceOption>, ApiError> {
    const NAME: &str = "choices";
    let options = parse_each(question, NAME, MAX_DECISION_CHOICES, |option| {
        let value = match option.get("value") {
            None => return Err(option.missing("value")),
            Some(Value::Bool(flag)) => ChoiceValue::Flag(*flag),
            Some(_) => ChoiceValue::Text(required(option, "value")?),
        };
        Ok(ChoiceOption {
            value,
            description: description(option)?,
        })
    })?;
    for (index, option) in options.iter().enumerate() {
        if options[..index]
            .iter()
            .any(|other| other.value == option.value)
        {
            let path = format!("{}.value", element(&question.path(NAME), index));
            return Err(ApiError::invalid_field(path, "must not be given twice"));
        }
    }
    Ok(options)
}

fn parse_levels(question: &Fields<'_>) -> Result<Vec<ScoreLevel>, ApiError> {
    parse_each(question, "levels", MAX_DECISION_LEVELS, |level| {
        Ok(ScoreLevel {
            label: required(level, "label")?,
            description: description(level)?,
        })
    })
}

/// The objects of an array of at least two.
fn parse_each<T>(
    question: &Fields<'_>,
    name: &str,
    most: usize,
    parse: impl Fn(&Fields<'_>) -> Result<T, ApiError>,
) -> Result<Vec<T>, ApiError> {
    let values = question.array(name, most)?;
    let values = values.ok_or_else(|| question.missing(name))?;
    if values.len() < 2 {
        return Err(question.invalid(name, "must have at least 2 elements"));
    }
    let parsed = values.iter().enumerate().map(|(index, value)| {
        parse(&Fields::of_value(
            value,
            element(&question.path(name), index),
        )?)
    });
    parsed.collect()
}

fn required(fields: &Fields<'_>, name: &str) -> Result<String, ApiError> {
    match fields.label(name, MAX_LABEL_BYTES)? {
        None => Err(fields.missing(name)),
        Some("") => Err(fields.invalid(name, "must not be empty")),
        Some(text) => Ok(text.to_owned()),
    }
}

fn description(fields: &Fields<'_>) -> Result<Option<String>, ApiError> {
    let text = fields.string("description")?;
    Ok(text.filter(|text| !text.is_empty()).map(str::to_owned))
}

/// The answers to all questions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision<'a> {
    /// The model's name.
    pub model: &'a str,
    /// In the order of the questions.
    pub answers: Vec<DecisionAnswer>,
    usage: ResponseUsage,
}

impl<'a> Decision<'a> {
    /// Answers for which so many tokens were read.
    pub fn new(model: &'a str, answers: Vec<DecisionAnswer>, usage: Usage) -> Self {
        Self {
            model,
            answers,
            usage: usage.into(),
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum DecisionAnswer {
    /// To a predicate.
    Predicate {
        /// As the question has it.
        name: Option<String>,
        /// Of yes.
        probability: f64,
    },
    /// To a choice.
    Choice {
        /// As the question has it.
        name: Option<String>,
        /// The likeliest option.
        choice: ChoiceValue,
        /// Of all options, in their order.
        probabilities: Vec<ChoiceProbability>,
        /// How likely the model is to give that answer rather than any other text.
        confidence: f64,
    },
    /// To a score.
    Score {
        /// As the question has it.
        name: Option<String>,
        /// The number of the level that is to be expected, from 0.
        score: f64,
        /// Of all levels, in their order.
        probabilities: Vec<LevelProbability>,
        /// How likely the model is to name the likeliest level rather than any other text.
        confidence: f64,
    },
}

/// How likely an option is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChoiceProbability {
    /// The option.
    pub value: ChoiceValue,
    /// Among all options.
    pub probability: f64,
}

/// How likely a level is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LevelProbability {
    /// Its number, from 0.
    pub value: usize,
    /// What it is called.
    pub label: String,
    /// Among all levels.
    pub probability: f64,
}
