//! Finds lookaheads and anchors in expressions.

use super::ConstraintReason;

/// How deep groups with lookaheads in them may be nested.
const DEPTH_MAX: usize = 32;

/// The alternatives of an expression; `None` if it has no lookaheads, and anchors at the ends of
/// its alternatives alone.
pub(super) fn parse(pattern: &str) -> Result<Option<Vec<Vec<Item<'_>>>>, ConstraintReason> {
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
    match parser.has_flags {
        true => Err(ConstraintReason::Construct("flags beside a lookahead")),
        false => Ok(Some(alternatives)),
    }
}

/// A part of an alternative.
#[derive(Debug)]
pub(super) enum Item<'a> {
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

impl Item<'_> {
    /// Whether there is a lookahead in it.
    pub(super) fn has_lookahead(&self) -> bool {
        match self {
            Self::Lookahead { .. } => true,
            Self::Group(body) => body.iter().flatten().any(Self::has_lookahead),
            Self::Plain(_) | Self::Start | Self::End => false,
        }
    }
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
