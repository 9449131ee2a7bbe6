//! What of a schema is left out because it cannot be enforced.
//!
//! A schema that is binding is refused then; one that is a hint, as that of a tool that is not
//! strict, is enforced as far as it can be, and the client is told what was left out. Leaving out
//! a keyword allows more and never less: none of them stands under a `not`.

use serde_json::{Map, Value};

use super::error::{ConstraintReason, GrammarPart};
use super::schema::UNSUPPORTED;

/// Keywords that can be left out besides those that are never enforced. Others, such as a reference to
/// nowhere, are mistakes.
const DISPENSABLE: &[&str] = &[
    "oneOf",
    "pattern",
    "patternProperties",
    "minProperties",
    "maxProperties",
    "multipleOf",
];

/// A keyword of a part's schema that was left out, wherever it could not be enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftOut {
    /// The part.
    pub part: GrammarPart,
    /// The keyword.
    pub keyword: &'static str,
}

/// The keywords to leave out of one part.
#[derive(Clone, Debug, Default)]
pub(crate) struct Omissions {
    keywords: Vec<&'static str>,
}

impl Omissions {
    /// Those of a part.
    pub(super) fn of(left_out: &[LeftOut], part: GrammarPart) -> Self {
        let of_part = left_out.iter().filter(|left_out| left_out.part == part);
        Self {
            keywords: of_part.map(|left_out| left_out.keyword).collect(),
        }
    }

    pub(super) fn has(&self, keyword: &str) -> bool {
        self.keywords.contains(&keyword)
    }

    /// Takes them out of a schema, with what means something else without them.
    pub(super) fn take_out(&self, entries: &mut Map<String, Value>) {
        for keyword in &self.keywords {
            match *keyword {
                // Some patterns can be enforced.
                "pattern" => {}
                "oneOf" if !entries.contains_key("anyOf") => {
                    if let Some(branches) = entries.shift_remove("oneOf") {
                        entries.insert("anyOf".to_owned(), branches);
                    }
                }
                "patternProperties" if entries.contains_key("patternProperties") => {
                    entries.shift_remove("patternProperties");
                    entries.insert("additionalProperties".to_owned(), Value::Bool(true));
                }
                keyword => {
                    entries.shift_remove(keyword);
                }
            }
        }
    }
}

/// What to leave out beside all that is left out already, so that a part with this fault might be
/// enforced.
pub(super) fn remedy(
    part: GrammarPart,
    reason: ConstraintReason,
    left_out: &[LeftOut],
) -> Option<LeftOut> {
    let candidates = match reason {
        ConstraintReason::Keyword(keyword) => vec![keyword],
        ConstraintReason::Construct(_) => vec!["pattern", "patternProperties"],
        _ => return None,
    };
    let mut remedies = UNSUPPORTED
        .iter()
        .chain(DISPENSABLE)
        .filter(|keyword| candidates.contains(keyword))
        .map(|keyword| LeftOut { part, keyword });
    remedies.find(|remedy| !left_out.contains(remedy))
}
