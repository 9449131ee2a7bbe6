//! Expressions for languages that are written with intersections and complements: the library's
//! expressions within JSON schemas have neither. A language is turned into an automaton of
//! characters, and this into an expression by taking out one state after the other
//! (Brzozowski and McCluskey, "Signal Flow Graph Techniques for Sequential Circuit State Diagrams",
//! 1963), as long as both stay small.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use llguidance::derivre::{Regex, RegexBuilder, StateID};

use super::error::ConstraintReason;
use super::language::Language;

/// States of an automaton.
const STATES_MAX: usize = 48;
/// Bytes of all expressions between states.
const BYTES_MAX: usize = 16 << 10;
/// Work that it may take to begin, and to find all states.
const STEPS_MAX: u64 = 20_000;
const COST_MAX: u64 = 2_000_000;

/// Characters by their first and last.
type Range = (u32, u32);

/// An expression that matches the strings of the language, and no others.
pub(super) fn expression_of(language: &Language) -> Result<String, ConstraintReason> {
    match plain(language) {
        Some(expression) => Ok(expression),
        None => Automaton::of(language)?.expression(),
    }
}

/// The expression of a language that is written without intersection and complement.
fn plain(language: &Language) -> Option<String> {
    let all = |parts: &[Language]| parts.iter().map(plain).collect::<Option<Vec<String>>>();
    match language {
        Language::Literal(text) if text.is_empty() => Some("(?:)".to_owned()),
        Language::Regex(pattern) => Some(pattern.clone()),
        Language::All(parts) if parts.is_empty() => Some("(?s:.*)".to_owned()),
        Language::AnyOf(parts) if !parts.is_empty() => {
            Some(format!("(?:{})", all(parts)?.join("|")))
        }
        Language::Sequence(parts) => Some(all(parts)?.concat()),
        _ => None,
    }
}

/// A deterministic automaton. States have numbers; the first is where it begins.
struct Automaton {
    accepting: Vec<bool>,
    /// `[state]`: where characters lead.
    edges: Vec<BTreeMap<usize, Vec<Range>>>,
}

impl Automaton {
    fn of(language: &Language) -> Result<Self, ConstraintReason> {
        let mut builder = RegexBuilder::new();
        let expression = builder.mk(&language.syntax());
        let expression = expression.map_err(|_| ConstraintReason::Invalid)?;
        let regex = builder.to_regex_limited(expression, STEPS_MAX);
        let mut regex = regex.map_err(|_| ConstraintReason::TooComplex)?;
        let mut states = vec![regex.initial_state()];
        let mut automaton = Self {
            accepting: Vec::new(),
            edges: Vec::new(),
        };
        while automaton.edges.len() < states.len() {
            let state = states[automaton.edges.len()];
            automaton.accepting.push(regex.is_accepting(state));
            let mut edges: BTreeMap<usize, Vec<Range>> = BTreeMap::new();
            for (range, target) in Characters::new(&mut regex).from(state)? {
                let known = states.iter().position(|state| *state == target);
                let number = known.unwrap_or(states.len());
                if known.is_none() {
                    states.push(target);
                }
                edges.entry(number).or_default().push(range);
            }
            if states.len() > STATES_MAX {
                return Err(ConstraintReason::TooComplex);
            }
            automaton.edges.push(edges);
        }
        Ok(automaton)
    }

    /// Takes out all states but a first and a last one, which are added.
    fn expression(&self) -> Result<String, ConstraintReason> {
        let count = self.edges.len();
        let (first, last) = (count, count + 1);
        let mut between = BTreeMap::from([((first, 0), String::new())]);
        for (state, edges) in self.edges.iter().enumerate() {
            for (target, ranges) in edges {
                between.insert((state, *target), class(ranges));
            }
            if self.accepting[state] {
                between.insert((state, last), String::new());
            }
        }
        let mut left: Vec<usize> = (0..count).collect();
        while let Some(index) = cheapest(&left, &between) {
            take_out(left.swap_remove(index), &mut between);
            if between.values().map(String::len).sum::<usize>() > BYTES_MAX {
                return Err(ConstraintReason::TooComplex);
            }
        }
        between
            .remove(&(first, last))
            .ok_or(ConstraintReason::Unsatisfiable)
    }
}

/// Expressions by the states between which they lead.
type Between = BTreeMap<(usize, usize), String>;

/// The place among `left` of the state whose ways through it are the fewest.
fn cheapest(left: &[usize], between: &Between) -> Option<usize> {
    let ways = |state: usize| {
        let into = between
            .keys()
            .filter(|(from, to)| *to == state && *from != state);
        let out = between
            .keys()
            .filter(|(from, to)| *from == state && *to != state);
        into.count() * out.count()
    };
    (0..left.len()).min_by_key(|index| ways(left[*index]))
}

/// Leads all ways around a state.
fn take_out(state: usize, between: &mut Between) {
    let around = between.remove(&(state, state));
    let around = around.map_or(String::new(), |again| format!("(?:{again})*"));
    let ways = between.clone();
    between.retain(|(from, to), _| *from != state && *to != state);
    for ((from, _), into) in ways.iter().filter(|((_, to), _)| *to == state) {
        for ((_, to), out) in ways.iter().filter(|((from, _), _)| *from == state) {
            let way = format!("{into}{around}{out}");
            between
                .entry((*from, *to))
                .and_modify(|ways| *ways = format!("(?:{ways}|{way})"))
                .or_insert(way);
        }
    }
}

fn class(ranges: &[Range]) -> String {
    let mut class = "[".to_owned();
    for (first, last) in ranges {
        // Writing to a string cannot fail.
        let _ignored = write!(class, "\\x{{{first:x}}}-\\x{{{last:x}}}");
    }
    class + "]"
}

/// Steps from one state of an automaton of bytes to the next along whole characters.
struct Characters<'a> {
    regex: &'a mut Regex,
    /// Where a number of further bytes leads from a state, by what they add to the character.
    known: BTreeMap<(u32, u32), Vec<(Range, StateID)>>,
}

impl<'a> Characters<'a> {
    fn new(regex: &'a mut Regex) -> Self {
        Self {
            regex,
            known: BTreeMap::new(),
        }
    }

    /// Where characters lead, ascending.
    fn from(mut self, state: StateID) -> Result<Vec<(Range, StateID)>, ConstraintReason> {
        // The first bytes of characters, the bits of them that count, and how many bytes follow.
        const LEADS: [(u8, u8, u32); 4] = [
            (0, 0x7f, 0),
            (0xc2, 0xdf, 1),
            (0xe0, 0xef, 2),
            (0xf0, 0xf4, 3),
        ];
        // In what is no Unicode, and in what is written with more bytes than it needs.
        const VALID: [&[Range]; 4] = [
            &[(0, 0x7f)],
            &[(0x80, 0x7ff)],
            &[(0x800, 0xd7ff), (0xe000, 0xffff)],
            &[(0x1_0000, 0x10_ffff)],
        ];
        let mut found = Vec::new();
        for ((first, last, further), valid) in LEADS.into_iter().zip(VALID) {
            for byte in first..=last {
                let bits = match further {
                    0 => u32::from(byte),
                    _ => u32::from(byte) & (0x3f >> further),
                };
                let base = bits << (6 * further);
                let next = self.step(state, byte)?;
                for ((start, end), target) in self.further(next, further)? {
                    for (least, most) in valid {
                        let range = ((base + start).max(*least), (base + end).min(*most));
                        if range.0 <= range.1 && !target.is_dead() {
                            push(&mut found, range, target);
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    fn further(
        &mut self,
        state: StateID,
        bytes: u32,
    ) -> Result<Vec<(Range, StateID)>, ConstraintReason> {
        let all = (0, (1 << (6 * bytes)) - 1);
        if bytes == 0 || state.is_dead() {
            return Ok(vec![(all, state)]);
        }
        if let Some(known) = self.known.get(&(state.as_u32(), bytes)) {
            return Ok(known.clone());
        }
        let mut found = Vec::new();
        for byte in 0..64_u8 {
            let base = u32::from(byte) << (6 * (bytes - 1));
            let next = self.step(state, 0x80 | byte)?;
            for ((start, end), target) in self.further(next, bytes - 1)? {
                push(&mut found, (base + start, base + end), target);
            }
        }
        self.known.insert((state.as_u32(), bytes), found.clone());
        Ok(found)
    }

    fn step(&mut self, state: StateID, byte: u8) -> Result<StateID, ConstraintReason> {
        let next = self.regex.transition(state, byte);
        match self.regex.alpha().has_error() || self.regex.cost() > COST_MAX {
            true => Err(ConstraintReason::TooComplex),
            false => Ok(next),
        }
    }
}

/// Adds a range, to the one before it if it goes on there.
fn push(found: &mut Vec<(Range, StateID)>, range: Range, target: StateID) {
    match found.last_mut() {
        Some(((_, end), last)) if *last == target && *end + 1 == range.0 => *end = range.1,
        _ => found.push((range, target)),
    }
}
