//! Expressions with lookaheads. A lookahead speaks of the same text as what follows it, so that an
//! expression with one is the intersection of two: `^(?=.*\d).{8,}$` are the texts with a digit
//! that have eight characters or more, and `(?!…)` takes texts away.

mod parser;

use llguidance::regex_to_lark;

use self::parser::Item;
use super::error::ConstraintReason;
use super::language::Language;
use super::plain_expression::expression_of;

/// Parts that may come of an expression.
const PARTS_MAX: usize = 500;

/// What a text must be to match an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The expression is found somewhere in it, and `\d` and `\w` are ASCII, as in JSON schemas.
    Search,
    /// The expression matches all of it.
    Whole,
}

/// The expressions that a text must match for one with lookaheads to be found in it, at least one
/// if `several` may be needed, or just one; `None` if the library can read it as it is.
pub(super) fn without_lookaheads(
    pattern: &str,
    several: bool,
) -> Result<Option<Vec<String>>, ConstraintReason> {
    let too_large = |reason| match reason {
        ConstraintReason::TooComplex => {
            ConstraintReason::Construct("lookaheads that would take too large an automaton")
        }
        other => other,
    };
    let Some(language) = language(pattern, Reach::Search).map_err(too_large)? else {
        return Ok(None);
    };
    let mut demands = Vec::new();
    match several {
        true => flatten(language, &mut demands),
        false => demands.push(language),
    }
    let expressions = demands.iter().map(|demand| {
        let expression = expression_of(demand).map_err(too_large)?;
        Ok(format!("^(?:{expression})$"))
    });
    expressions.collect::<Result<_, _>>().map(Some)
}

/// The texts that match an expression; `None` if it has no lookaheads, and anchors at its ends
/// alone.
pub(super) fn language(pattern: &str, reach: Reach) -> Result<Option<Language>, ConstraintReason> {
    let Some(alternatives) = parser::parse(pattern)? else {
        return Ok(None);
    };
    let mut writer = Writer { reach, parts: 0 };
    let mut languages = Vec::new();
    for items in &alternatives {
        languages.extend(writer.found(items)?);
    }
    Ok(Some(any_of(languages)))
}

/// Where in a text an item stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// At its beginning.
    Start,
    /// Behind its first character.
    Later,
    /// Behind an item that may have matched nothing.
    Anywhere,
}

struct Writer {
    reach: Reach,
    parts: usize,
}

impl Writer {
    /// The texts that an alternative is found in; with lookaheads, only those that it is found in
    /// at their beginning. What is left out is nothing that has to be said, and an intersection
    /// behind any text would take large automata.
    fn found(&mut self, items: &[Item<'_>]) -> Result<Vec<Language>, ConstraintReason> {
        let end = match self.reach {
            Reach::Search => Language::any(),
            Reach::Whole => Language::Literal(String::new()),
        };
        let first = self.sequence(items, &end, Position::Start)?;
        let later = match self.reach == Reach::Search && !items.iter().any(Item::has_lookahead) {
            true => self.sequence(items, &end, Position::Later)?,
            false => None,
        };
        let behind = |language| {
            let before = Language::regex("(?s:.+)");
            Language::Sequence(vec![before, language])
        };
        Ok(first.into_iter().chain(later.map(behind)).collect())
    }

    /// The texts that the items match from some position on to the end, and `tail` after them;
    /// `None` if there are none.
    fn sequence(
        &mut self,
        items: &[Item<'_>],
        tail: &Language,
        position: Position,
    ) -> Result<Option<Language>, ConstraintReason> {
        self.parts += 1;
        if self.parts > PARTS_MAX {
            return Err(ConstraintReason::TooComplex);
        }
        let Some((item, rest)) = items.split_first() else {
            return Ok(Some(tail.clone()));
        };
        match item {
            Item::Start => match position {
                Position::Start => self.sequence(rest, tail, position),
                Position::Later => Ok(None),
                Position::Anywhere => Err(ConstraintReason::Construct("an anchor within it")),
            },
            Item::End => {
                let rest = self.sequence(rest, tail, position)?;
                Ok(rest.map(|rest| all(rest, Language::Literal(String::new()))))
            }
            Item::Plain(source) => {
                let rest = self.sequence(rest, tail, Position::Anywhere)?;
                let classes = match self.reach {
                    Reach::Search => "dw",
                    Reach::Whole => "",
                };
                let plain = Language::Regex(format!("(?:{})", regex_to_lark(source, classes)));
                Ok(rest.map(|rest| followed_by(plain, rest)))
            }
            Item::Lookahead { negative, body } => {
                let ahead = self.alternatives(body, &[], &Language::any(), position)?;
                let rest = self.sequence(rest, tail, position)?;
                Ok(match (ahead, rest, negative) {
                    (_, None, _) | (None, _, false) => None,
                    (None, rest, true) => rest,
                    (Some(ahead), Some(rest), false) => Some(all(ahead, rest)),
                    (Some(ahead), Some(rest), true) => {
                        Some(all(Language::Not(Box::new(ahead)), rest))
                    }
                })
            }
            Item::Group(body) => self.alternatives(body, rest, tail, position),
        }
    }

    /// The same for a group and the items behind it.
    fn alternatives(
        &mut self,
        body: &[Vec<Item<'_>>],
        rest: &[Item<'_>],
        tail: &Language,
        position: Position,
    ) -> Result<Option<Language>, ConstraintReason> {
        let consumes =
            |items: &Vec<Item<'_>>| items.iter().any(|item| matches!(item, Item::Plain(_)));
        let mut languages = Vec::new();
        for items in body {
            let after = if consumes(items) {
                Position::Anywhere
            } else {
                position
            };
            if let Some(tail) = self.sequence(rest, tail, after)? {
                languages.extend(self.sequence(items, &tail, position)?);
            }
        }
        Ok((!languages.is_empty()).then(|| any_of(languages)))
    }
}

fn any_of(mut languages: Vec<Language>) -> Language {
    match languages.len() {
        1 => languages.remove(0),
        _ => Language::AnyOf(languages),
    }
}

/// What is in both.
fn all(one: Language, other: Language) -> Language {
    if one == Language::any() {
        return other;
    }
    if other == Language::any() {
        return one;
    }
    Language::All(vec![one, other])
}

fn followed_by(plain: Language, rest: Language) -> Language {
    match rest {
        Language::Literal(text) if text.is_empty() => plain,
        rest => Language::Sequence(vec![plain, rest]),
    }
}

/// All that a text must satisfy.
fn flatten(language: Language, demands: &mut Vec<Language>) {
    match language {
        Language::All(parts) if !parts.is_empty() => {
            parts.into_iter().for_each(|part| flatten(part, demands));
        }
        other => demands.push(other),
    }
}

#[cfg(test)]
mod tests;
