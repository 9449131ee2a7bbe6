//! The strings that satisfy a JSON schema, as they stand without quotes.

use std::cell::Cell;

use llguidance::regex_to_lark;
use serde_json::{Map, Value};

use super::error::ConstraintReason;
use super::language::Language;
use super::pattern::{self, Reach};
use super::string_formats;
use crate::json_types::{JsonTypes, resolve};

/// Subschemas that are looked at for one string.
const VISITS_MAX: usize = 1000;

/// The strings, and whether `null`, `true` and `false`, satisfy schemas of one document.
pub(super) struct Strings<'a> {
    document: &'a Value,
    visits_left: Cell<usize>,
}

impl<'a> Strings<'a> {
    /// `document` is what references are relative to.
    pub(super) fn new(document: &'a Value) -> Self {
        Self {
            document,
            visits_left: Cell::new(VISITS_MAX),
        }
    }

    /// The strings that satisfy the schema; `None` if no string does.
    pub(super) fn of(&self, schema: &Value) -> Result<Option<Language>, ConstraintReason> {
        let mut demands = Vec::new();
        let found = self.demands(schema, &mut demands)?;
        Ok(found.then_some(Language::All(demands)))
    }

    /// Adds what the schema demands of a string; false if no string satisfies it.
    fn demands(
        &self,
        schema: &Value,
        demands: &mut Vec<Language>,
    ) -> Result<bool, ConstraintReason> {
        self.visit()?;
        let entries = match schema {
            Value::Object(entries) => entries,
            other => return Ok(*other != Value::Bool(false)),
        };
        if let Some(length) = length(entries)? {
            demands.push(length);
        }
        for (keyword, value) in entries {
            let satisfiable = match (keyword.as_str(), value) {
                ("type", Value::Array(names)) => names.iter().any(|name| name == "string"),
                ("type", name) => name == "string",
                ("const", value) => choice(std::slice::from_ref(value), demands),
                ("enum", Value::Array(values)) => choice(values, demands),
                ("pattern", Value::String(pattern)) => {
                    let language = pattern::language(pattern, Reach::Search)?;
                    demands.push(language.map_or_else(|| search(pattern), Ok)?);
                    true
                }
                ("format", Value::String(name)) => {
                    demands.extend(string_formats::language(name));
                    true
                }
                ("allOf", Value::Array(branches)) => {
                    let mut all = true;
                    for branch in branches {
                        all &= self.demands(branch, demands)?;
                    }
                    all
                }
                ("anyOf" | "oneOf", Value::Array(branches)) => {
                    self.one_of(keyword, branches, demands)?
                }
                ("$ref", Value::String(reference)) => {
                    let target = resolve(reference, self.document);
                    self.demands(target.ok_or(ConstraintReason::Keyword("$ref"))?, demands)?
                }
                _ => true,
            };
            if !satisfiable {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn one_of(
        &self,
        keyword: &str,
        branches: &[Value],
        demands: &mut Vec<Language>,
    ) -> Result<bool, ConstraintReason> {
        let mut languages = Vec::new();
        let mut listed = Vec::new();
        for branch in branches {
            if let Some(language) = self.of(branch)? {
                languages.push(language);
                listed.push(self::listed(branch));
            }
        }
        let disjoint = || {
            let strings: Option<Vec<Vec<&str>>> = listed.into_iter().collect();
            strings.is_some_and(|strings| {
                let mut strings = strings.concat();
                let count = strings.len();
                strings.sort_unstable();
                strings.dedup();
                strings.len() == count
            })
        };
        if keyword == "oneOf" && languages.len() > 1 && !disjoint() {
            return Err(ConstraintReason::Keyword("oneOf"));
        }
        let satisfiable = !languages.is_empty();
        demands.push(Language::AnyOf(languages));
        Ok(satisfiable)
    }

    /// Whether `null`, `true` or `false` satisfies the schema.
    pub(super) fn admits(&self, schema: &Value, value: &Value) -> Result<bool, ConstraintReason> {
        self.visit()?;
        let entries = match schema {
            Value::Object(entries) => entries,
            other => return Ok(*other != Value::Bool(false)),
        };
        let count = |branches: &[Value]| -> Result<usize, ConstraintReason> {
            let mut admitting = 0;
            for branch in branches {
                admitting += usize::from(self.admits(branch, value)?);
            }
            Ok(admitting)
        };
        for (keyword, demand) in entries {
            let admits = match (keyword.as_str(), demand) {
                ("type", _) => {
                    let types = Value::from_iter([("type", demand.clone())]);
                    JsonTypes::of_schema(&types, self.document).has(JsonTypes::of_value(value))
                }
                ("const", only) => only == value,
                ("enum", Value::Array(values)) => values.contains(value),
                ("allOf", Value::Array(branches)) => count(branches)? == branches.len(),
                ("anyOf", Value::Array(branches)) => count(branches)? > 0,
                ("oneOf", Value::Array(branches)) => count(branches)? == 1,
                ("$ref", Value::String(reference)) => {
                    let target = resolve(reference, self.document);
                    self.admits(target.ok_or(ConstraintReason::Keyword("$ref"))?, value)?
                }
                _ => true,
            };
            if !admits {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// References may lead in circles, or to the same place in many ways.
    fn visit(&self) -> Result<(), ConstraintReason> {
        let left = self.visits_left.get().checked_sub(1);
        self.visits_left
            .set(left.ok_or(ConstraintReason::TooComplex)?);
        Ok(())
    }
}

/// The strings that a schema lists, if it lists all.
fn listed(schema: &Value) -> Option<Vec<&str>> {
    let values = match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => std::slice::from_ref(value),
        (None, Some(Value::Array(values))) => values,
        _ => return None,
    };
    Some(values.iter().filter_map(Value::as_str).collect())
}

/// Adds the strings among the values; false if there are none.
fn choice(values: &[Value], demands: &mut Vec<Language>) -> bool {
    let strings = values.iter().filter_map(Value::as_str);
    let strings: Vec<Language> = strings
        .map(|text| Language::Literal(text.to_owned()))
        .collect();
    let satisfiable = !strings.is_empty();
    demands.push(Language::AnyOf(strings));
    satisfiable
}

fn length(entries: &Map<String, Value>) -> Result<Option<Language>, ConstraintReason> {
    let bound = |name: &str| match entries.get(name) {
        None => Ok(None),
        Some(bound) => {
            let bound = bound.as_u64().and_then(|bound| u32::try_from(bound).ok());
            bound.ok_or(ConstraintReason::Invalid).map(Some)
        }
    };
    let pattern = match (bound("minLength")?, bound("maxLength")?) {
        (None, None) => return Ok(None),
        (Some(least), Some(most)) if least > most => return Err(ConstraintReason::Unsatisfiable),
        (least, Some(most)) => format!("(?s:.{{{},{most}}})", least.unwrap_or(0)),
        (least, None) => format!("(?s:.{{{},}})", least.unwrap_or(0)),
    };
    Ok(Some(Language::Regex(pattern)))
}

/// The strings that a pattern is found in. Its anchors can stand at both ends of it, or of the
/// alternatives that it consists of.
fn search(pattern: &str) -> Result<Language, ConstraintReason> {
    let mut alternatives = Vec::new();
    for alternative in alternatives_of(pattern) {
        let (begins, rest) = match alternative.strip_prefix('^') {
            Some(rest) => ("", rest),
            None => ("(?s:.*)", alternative),
        };
        let (rest, ends) = match rest.strip_suffix('$').filter(|rest| !ends_escaped(rest)) {
            Some(rest) => (rest, ""),
            None => (rest, "(?s:.*)"),
        };
        if has_anchor(rest) {
            return Err(ConstraintReason::Keyword("pattern"));
        }
        let rest = regex_to_lark(rest, "dw");
        alternatives.push(Language::Regex(format!("{begins}({rest}){ends}")));
    }
    Ok(Language::AnyOf(alternatives))
}

/// Whether what follows is escaped: an odd number of backslashes stands before it.
fn ends_escaped(pattern: &str) -> bool {
    let backslashes = pattern.bytes().rev().take_while(|byte| *byte == b'\\');
    backslashes.count() % 2 == 1
}

/// The characters of a pattern that stand outside of classes and are not escaped, with how deep in
/// groups they are.
fn operators(pattern: &str) -> impl Iterator<Item = (usize, char, usize)> + '_ {
    let (mut escaped, mut depth, mut class_start) = (false, 0_usize, None);
    pattern
        .char_indices()
        .filter_map(move |(index, character)| {
            if std::mem::take(&mut escaped) {
                return None;
            }
            if character == '\\' {
                escaped = true;
                return None;
            }
            if let Some(start) = class_start {
                // A bracket at the beginning of a class is a character of it.
                let first = pattern[start..index].trim_start_matches('^').is_empty();
                if character == ']' && !first {
                    class_start = None;
                }
                return None;
            }
            match character {
                '[' => class_start = Some(index + 1),
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            Some((index, character, depth))
        })
}

fn alternatives_of(pattern: &str) -> Vec<&str> {
    let mut alternatives = Vec::new();
    let mut start = 0;
    for (index, character, depth) in operators(pattern) {
        if character == '|' && depth == 0 {
            alternatives.push(&pattern[start..index]);
            start = index + 1;
        }
    }
    alternatives.push(&pattern[start..]);
    alternatives
}

fn has_anchor(pattern: &str) -> bool {
    operators(pattern).any(|(_, character, _)| matches!(character, '^' | '$'))
}

#[cfg(test)]
mod tests;
