//! Why a grammar cannot be followed.

/// Why a request's constraint cannot be enforced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part:?}: {reason:?}")]
pub struct ConstraintError {
    /// What is to blame.
    pub part: GrammarPart,
    /// What is wrong with it.
    pub reason: ConstraintReason,
    /// The schema within it that is at fault, if that is known: keywords, and the numbers of what
    /// stands under them, such as `properties.0.items`. The names of properties are the request's.
    pub place: Option<String>,
}

/// What is wrong with a part, and where in it if that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(super) reason: ConstraintReason,
    pub(super) place: Option<String>,
}

impl From<ConstraintReason> for Fault {
    fn from(reason: ConstraintReason) -> Self {
        Self {
            reason,
            place: None,
        }
    }
}

impl Fault {
    /// At the place that these parts of a path lead to.
    pub(super) fn at(reason: ConstraintReason, place: &[String]) -> Self {
        Self {
            reason,
            place: Some(place.join(".")).filter(|place| !place.is_empty()),
        }
    }

    pub(super) fn of(self, part: GrammarPart) -> ConstraintError {
        ConstraintError {
            part,
            reason: self.reason,
            place: self.place,
        }
    }
}

/// A part of an [`AnswerShape`](super::AnswerShape).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GrammarPart {
    /// The form of the text.
    Text,
    /// The parameters of the tool with this index among the request's tools.
    Tool(usize),
    /// All of it together.
    Whole,
}

/// What is wrong with a constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConstraintReason {
    /// It uses this keyword of JSON Schema, or uses it in a way, that cannot be enforced.
    Keyword(&'static str),
    /// It has an expression with this construct, which cannot be enforced.
    Construct(&'static str),
    /// Nothing satisfies it.
    Unsatisfiable,
    /// It takes too much time or memory.
    TooComplex,
    /// It is no schema, pattern or grammar.
    Invalid,
    /// The chat format, which is this one, has no tool calls.
    NoToolCalls(&'static str),
    /// The chat format cannot write a parameter that it requires, because of its name.
    ParameterName,
    /// The model's vocabulary cannot be constrained.
    Unavailable,
}

impl ConstraintError {
    pub(super) fn whole(reason: ConstraintReason) -> Self {
        Fault::from(reason).of(GrammarPart::Whole)
    }
}

/// Phrases of the library's messages, which may repeat the request and therefore go no further.
const PHRASES: &[(&str, ConstraintReason)] = &[
    // It counts too far, or asserts what does not hold for sources of that kind.
    ("panic: ", ConstraintReason::TooComplex),
    ("Unsatisfiable schema", ConstraintReason::Unsatisfiable),
    ("oneOf constraints", ConstraintReason::Keyword("oneOf")),
    (
        "min/maxProperties",
        ConstraintReason::Keyword("minProperties"),
    ),
    (
        "patternProperty regexes",
        ConstraintReason::Keyword("patternProperties"),
    ),
    ("circular references", ConstraintReason::Keyword("$ref")),
    ("$ref", ConstraintReason::Keyword("$ref")),
    ("Reference segment", ConstraintReason::Keyword("$ref")),
    ("multipleOf", ConstraintReason::Keyword("multipleOf")),
    ("too complex", ConstraintReason::TooComplex),
    ("too large", ConstraintReason::TooComplex),
    ("too big", ConstraintReason::TooComplex),
    ("too many", ConstraintReason::TooComplex),
    ("fuel", ConstraintReason::TooComplex),
    ("limit", ConstraintReason::TooComplex),
    ("exceeded", ConstraintReason::TooComplex),
    ("no tokens allowed", ConstraintReason::Unsatisfiable),
    ("NoExtension", ConstraintReason::Unsatisfiable),
];

/// What one of the library's messages means.
pub(super) fn reason(message: &str) -> ConstraintReason {
    let known = PHRASES.iter().find(|(phrase, _)| message.contains(phrase));
    known.map_or(ConstraintReason::Invalid, |(_, reason)| *reason)
}
