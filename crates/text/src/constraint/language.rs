//! Sets of strings, written as terminals of llguidance's dialect of Lark.

use llguidance::derivre::{RegexAst, RegexBuilder};

use super::error::ConstraintReason;
use super::shape::literal;

/// A set of strings.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Language {
    /// This string alone.
    Literal(String),
    /// What this regular expression matches as a whole. Slashes in it are escaped.
    Regex(String),
    /// What is in all of them; any string if there are none.
    All(Vec<Language>),
    /// What is in one of them.
    AnyOf(Vec<Language>),
    /// One after the other.
    Sequence(Vec<Language>),
    /// Any other string.
    Not(Box<Language>),
}

/// Steps after which it stays unknown whether a language has any string.
const STEPS_MAX: u64 = 100_000;

impl Language {
    /// Any string.
    pub(super) fn any() -> Self {
        Self::All(Vec::new())
    }

    pub(super) fn regex(pattern: &str) -> Self {
        Self::Regex(pattern.to_owned())
    }

    /// Any string that does not contain `text`.
    pub(super) fn without(text: &str) -> Self {
        let any = Self::any;
        let containing = vec![any(), Self::Literal(text.to_owned()), any()];
        Self::Not(Box::new(Self::Sequence(containing)))
    }

    /// The terminal's expression.
    pub(super) fn lark(&self) -> String {
        let join = |parts: &[Self], between: &str| {
            let parts: Vec<String> = parts.iter().map(Self::lark).collect();
            format!("({})", parts.join(between))
        };
        match self {
            // The grammar's reader takes no empty literal in a terminal.
            Self::Literal(text) if text.is_empty() => "/()/".to_owned(),
            Self::Literal(text) => literal(text),
            Self::Regex(pattern) => format!("/{pattern}/"),
            Self::All(parts) if parts.is_empty() => "/(?s:.*)/".to_owned(),
            Self::All(parts) => join(parts, " & "),
            Self::AnyOf(parts) => join(parts, " | "),
            Self::Sequence(parts) => join(parts, " "),
            Self::Not(part) => format!("(~{})", part.lark()),
        }
    }

    /// Whether there is no such string.
    pub(super) fn is_empty(&self) -> Result<bool, ConstraintReason> {
        let mut builder = RegexBuilder::new();
        let expression = builder.mk(&self.syntax());
        let expression = expression.map_err(|_| ConstraintReason::Invalid)?;
        let regex = builder.to_regex_limited(expression, STEPS_MAX);
        let mut regex = regex.map_err(|_| ConstraintReason::TooComplex)?;
        Ok(regex.always_empty())
    }

    pub(super) fn syntax(&self) -> RegexAst {
        let all = |parts: &[Self]| parts.iter().map(Self::syntax).collect();
        match self {
            Self::Literal(text) => RegexAst::Literal(text.clone()),
            Self::Regex(pattern) => RegexAst::Regex(pattern.replace("\\/", "/")),
            Self::All(parts) if parts.is_empty() => RegexAst::Regex("(?s:.*)".to_owned()),
            Self::All(parts) => RegexAst::And(all(parts)),
            Self::AnyOf(parts) => RegexAst::Or(all(parts)),
            Self::Sequence(parts) => RegexAst::Concat(all(parts)),
            Self::Not(part) => RegexAst::Not(Box::new(part.syntax())),
        }
    }
}
