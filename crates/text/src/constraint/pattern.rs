//! Expressions with lookaheads. A lookahead speaks of the same text as what follows it, so that an
//! expression with one is the intersection of two: `^(?=.*\d).{8,}$` are the texts with a digit
//! that have eight characters or more, and `(?!…)` takes texts away.

use super::error::ConstraintReason;
use super::language::Language;
use super::plain_expression::expression_of;
use llguidance::regex_to_lark;

/// How deep groups with lookaheads in them may be nested, and how many parts may come of them.
const DEPTH_MAX: usize = 32;
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
    let mut parser = Parser {
        pattern,
        at: 0,
        has_lookahead: false,
        has_flags: false,
    };
    let may_look = ["(?=", "(?!"].iter().any(|mark| pattern.contains(mark));
    let alternatives = match parser.alternatives(0) {
        // Deep groups are the library's business.
        Err(ConstraintReason::TooComplex) if !may_look => return Ok(None),
        read => read?,
    };
    let groups = |item: &Item<'_>| matches!(item, Item::Group(_));
    if !parser.has_lookahead && (parser.has_flags || !alternatives.iter().flatten().any(groups)) {
        return Ok(None);
    }
    if parser.has_flags {
        return Err(ConstraintReason::Construct("flags beside a lookahead"));
    }
    let mut writer = Writer { reach, parts: 0 };
    let mut languages = Vec::new();
    for items in &alternatives {
        languages.extend(writer.found(items)?);
    }
    Ok(Some(any_of(languages)))
}

/// A part of an alternative.
#[derive(Debug)]
enum Item<'a> {
    /// An expression without lookaheads and anchors.
    Plain(&'a str),
    Start,
    End,
    Lookahead {
        negative: bool,
        body: Vec<Vec<Item<'a>>>,
    },
    /// A group with any of these in it.
    Group(Vec<Vec<Item<'a>>>),
}

struct Parser<'a> {
    pattern: &'a str,
    at: usize,
    has_lookahead: bool,
    has_flags: bool,
}

impl<'a> Parser<'a> {
    /// Reads alternatives up to the end of the group that they stand in.
    fn alternatives(&mut self, depth: usize) -> Result<Vec<Vec<Item<'a>>>, ConstraintReason> {
        if depth > DEPTH_MAX {
            return Err(ConstraintReason::TooComplex);
        }
        let mut alternatives = Vec::new();
        let mut items = Vec::new();
        // Where the plain expression began that is being read.
        let mut plain = self.at;
        while let Some(character) = self.peek() {
            let start = self.at;
            let item = match character {
                '^' => Item::Start,
                '$' => Item::End,
                '|' | ')' => {
                    self.end_plain(plain, &mut items);
                    if character == ')' {
                        break;
                    }
                    self.at += 1;
                    plain = self.at;
                    alternatives.push(std::mem::take(&mut items));
                    continue;
                }
                '(' => match self.group(depth)? {
                    Some(group) => group,
                    None => continue,
                },
                '\\' => {
                    self.escape()?;
                    continue;
                }
                '[' => {
                    self.class();
                    continue;
                }
                other => {
                    self.at += other.len_utf8();
                    continue;
                }
            };
            let end = match item {
                Item::Start | Item::End => start + 1,
                _ => self.at,
            };
            self.at = start;
            self.end_plain(plain, &mut items);
            self.at = end;
            if self.peek().is_some_and(|next| "*+?{".contains(next)) {
                return Err(ConstraintReason::Construct(
                    "a lookahead or anchor that is repeated",
                ));
            }
            plain = end;
            items.push(item);
        }
        if self.peek().is_none() {
            self.end_plain(plain, &mut items);
        }
        alternatives.push(items);
        match self.peek().is_some() == (depth > 0) {
            true => Ok(alternatives),
            false => Err(ConstraintReason::Invalid),
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn rest(&self) -> &'a str {
        &self.pattern[self.at..]
    }

    fn end_plain(&self, start: usize, items: &mut Vec<Item<'a>>) {
        if start < self.at {
            items.push(Item::Plain(&self.pattern[start..self.at]));
        }
    }

    /// Passes what is escaped.
    fn escape(&mut self) -> Result<(), ConstraintReason> {
        let escaped = self
            .rest()
            .chars()
            .nth(1)
            .ok_or(ConstraintReason::Invalid)?;
        match escaped {
            '1'..='9' | 'k' => Err(ConstraintReason::Construct("a backreference")),
            'b' | 'B' => Err(ConstraintReason::Construct("a word boundary")),
            _ => {
                self.at += 1 + escaped.len_utf8();
                Ok(())
            }
        }
    }

    /// Passes a class. A bracket at its beginning is a character of it.
    fn class(&mut self) {
        let mut escaped = false;
        let mut first = true;
        for (index, character) in self.rest().char_indices().skip(1) {
            if character == ']' && !escaped && !first {
                self.at += index + 1;
                return;
            }
            first &= character == '^';
            escaped = character == '\\' && !escaped;
        }
        self.at = self.pattern.len();
    }

    /// Passes a group; one with lookaheads or anchors in it is an item.
    fn group(&mut self, depth: usize) -> Result<Option<Item<'a>>, ConstraintReason> {
        let start = self.at;
        let opening = opening(self.rest())?;
        let (length, lookahead) = match opening {
            Opening::Lookahead { negative } => (3, Some(negative)),
            Opening::Group(length) => (length, None),
            Opening::Flags(length) => {
                self.has_flags = true;
                self.at += length;
                return Ok(None);
            }
        };
        self.has_lookahead |= lookahead.is_some();
        self.at += length;
        let body = self.alternatives(depth + 1)?;
        self.at += 1;
        if let Some(negative) = lookahead {
            return Ok(Some(Item::Lookahead { negative, body }));
        }
        let is_plain = |item: &Item<'_>| matches!(item, Item::Plain(_));
        if body.iter().flatten().all(is_plain) {
            return Ok(None);
        }
        let opened = &self.pattern[start..start + length];
        self.has_flags |= opened.ends_with(':') && opened != "(?:";
        Ok(Some(Item::Group(body)))
    }
}

/// How a group begins, with the bytes that it takes.
enum Opening {
    Lookahead {
        negative: bool,
    },
    Group(usize),
    /// No group at all.
    Flags(usize),
}

fn opening(rest: &str) -> Result<Opening, ConstraintReason> {
    const REFUSED: [(&str, &str); 6] = [
        ("(?<=", "a lookbehind"),
        ("(?<!", "a lookbehind"),
        ("(?>", "an atomic group"),
        ("(?(", "a condition"),
        ("(?P=", "a backreference"),
        ("(?P>", "a recursion"),
    ];
    if let Some((_, construct)) = REFUSED.iter().find(|(start, _)| rest.starts_with(start)) {
        return Err(ConstraintReason::Construct(construct));
    }
    let Some(after) = rest.strip_prefix("(?") else {
        return Ok(Opening::Group(1));
    };
    let end = |mark: char| after.find(mark).map(|index| index + 3);
    match after.chars().next() {
        Some('=') => Ok(Opening::Lookahead { negative: false }),
        Some('!') => Ok(Opening::Lookahead { negative: true }),
        Some('<' | 'P') => end('>')
            .map(Opening::Group)
            .ok_or(ConstraintReason::Invalid),
        _ => {
            let flags =
                after.trim_start_matches(|flag: char| flag.is_ascii_alphabetic() || flag == '-');
            let length = rest.len() - flags.len() + 1;
            match flags.chars().next() {
                Some(':') => Ok(Opening::Group(length)),
                Some(')') => Ok(Opening::Flags(length)),
                _ => Err(ConstraintReason::Invalid),
            }
        }
    }
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
    /// The texts that an alternative is found in.
    fn found(&mut self, items: &[Item<'_>]) -> Result<Vec<Language>, ConstraintReason> {
        let end = match self.reach {
            Reach::Search => Language::any(),
            Reach::Whole => Language::Literal(String::new()),
        };
        let first = self.sequence(items, &end, Position::Start)?;
        let later = match self.reach {
            Reach::Search => self.sequence(items, &end, Position::Later)?,
            Reach::Whole => None,
        };
        let anywhere = first == later;
        let behind = |language: Language| {
            let before = match anywhere {
                true => Language::any(),
                false => Language::regex("(?s:.+)"),
            };
            Language::Sequence(vec![before, language])
        };
        let first = first.filter(|_| !anywhere);
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
