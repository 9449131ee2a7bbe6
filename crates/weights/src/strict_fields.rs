//! Reads a JSON object field by field and knows which fields nobody read.
//!
//! A configuration field that changes the mathematics and is not understood must be an error, and
//! one start of the server should report everything that is wrong, not the first thing.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// A reader over one JSON object.
///
/// An accessor that fails records the problem and returns a placeholder (zero, false, empty), so
/// that reading can go on. The values mean nothing until [`finish`](Self::finish) has succeeded.
#[derive(Debug)]
pub struct StrictFields<'a> {
    source: String,
    /// What stands before the name of a field that is reported as unread: `rope_scaling.`, if this is nested there.
    path: String,
    object: &'a Map<String, Value>,
    read: BTreeSet<String>,
    unread_within: Vec<String>,
    problems: Vec<String>,
}

impl<'a> StrictFields<'a> {
    /// A reader over `object`; `source` names it in messages.
    pub fn new(source: impl Into<String>, object: &'a Map<String, Value>) -> Self {
        Self {
            source: source.into(),
            path: String::new(),
            object,
            read: BTreeSet::new(),
            unread_within: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// The raw value, marked as read. A null counts as absent.
    pub fn value(&mut self, name: &str) -> Option<&'a Value> {
        self.read.insert(name.to_owned());
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// Whether the field is there, be it null.
    pub fn contains(&self, name: &str) -> bool {
        self.object.contains_key(name)
    }

    /// A non-negative integer.
    pub fn u32(&mut self, name: &str) -> u32 {
        let value = self.optional_u32_checked(name);
        self.required(name, value)
    }

    /// A number.
    pub fn f64(&mut self, name: &str) -> f64 {
        let value = self.typed(name, "a number", Value::as_f64);
        self.required(name, value)
    }

    /// A truth value.
    pub fn bool(&mut self, name: &str) -> bool {
        let value = self.typed(name, "true or false", Value::as_bool);
        self.required(name, value)
    }

    /// A text.
    pub fn string(&mut self, name: &str) -> String {
        let value = self.typed(name, "a text", text);
        self.required(name, value)
    }

    /// A list of texts.
    pub fn string_list(&mut self, name: &str) -> Vec<String> {
        let value = self.typed(name, "a list of texts", text_list);
        self.required(name, value)
    }

    /// A non-negative integer, if the field is there.
    pub fn optional_u32(&mut self, name: &str) -> Option<u32> {
        self.optional_u32_checked(name).flatten()
    }

    /// A number, if the field is there.
    pub fn optional_f64(&mut self, name: &str) -> Option<f64> {
        self.typed(name, "a number", Value::as_f64).flatten()
    }

    /// A truth value, if the field is there.
    pub fn optional_bool(&mut self, name: &str) -> Option<bool> {
        self.typed(name, "true or false", Value::as_bool).flatten()
    }

    /// A text, if the field is there.
    pub fn optional_string(&mut self, name: &str) -> Option<String> {
        self.typed(name, "a text", text).flatten()
    }

    /// A list of texts, if the field is there.
    pub fn optional_string_list(&mut self, name: &str) -> Option<Vec<String>> {
        self.typed(name, "a list of texts", text_list).flatten()
    }

    /// A non-negative integer, if the field is there. Tools write -1 where they mean that there is none.
    pub fn optional_u32_or_minus_one(&mut self, name: &str) -> Option<u32> {
        match self.value(name) {
            Some(value) if is_minus_one(value) => None,
            _ => self.optional_u32(name),
        }
    }

    /// One non-negative integer or a list of them, if the field is there.
    pub fn optional_u32_list(&mut self, name: &str) -> Option<Vec<u32>> {
        self.optional_u32_list_without(name, |_| false)
    }

    /// The same, without those that are -1.
    pub fn optional_token_ids(&mut self, name: &str) -> Option<Vec<u32>> {
        self.optional_u32_list_without(name, is_minus_one)
    }

    fn optional_u32_list_without(
        &mut self,
        name: &str,
        stands_for_none: fn(&Value) -> bool,
    ) -> Option<Vec<u32>> {
        let parse = |value: &Value| {
            let items = match value {
                Value::Array(items) => items.as_slice(),
                single => std::slice::from_ref(single),
            };
            let integers = items.iter().filter(|item| !stands_for_none(item));
            integers.map(small_integer).collect()
        };
        self.typed(name, "an integer from 0 to 2^32-1 or a list of such", parse)
            .flatten()
    }

    /// An object, if the field is there, to be read by its own [`StrictFields`].
    pub fn optional_object(&mut self, name: &str) -> Option<StrictFields<'a>> {
        let object = match self.value(name)? {
            Value::Object(object) => object,
            other => {
                self.wrong_type(name, "an object", other);
                return None;
            }
        };
        Some(Self {
            path: format!("{}{name}.", self.path),
            ..Self::new(format!("{}: {name}", self.source), object)
        })
    }

    /// Records a problem unless the field is absent, null or equal to the one supported value.
    pub fn only(&mut self, name: &str, supported: &Value) {
        if let Some(value) = self.value(name)
            && !same(value, supported)
        {
            self.problem(format!(
                "{name} is {}; only {supported} is supported",
                brief(value)
            ));
        }
    }

    /// Records a problem that the caller found.
    pub fn problem(&mut self, message: impl AsRef<str>) {
        self.problems
            .push(format!("{}: {}", self.source, message.as_ref()));
    }

    /// Takes over the problems of a nested reader, and its unread fields as problems.
    pub fn absorb(&mut self, nested: StrictFields<'_>, known_inert: &[&str]) {
        if let Err(problems) = nested.finish(known_inert) {
            self.problems.extend(problems);
        }
    }

    /// Takes over the problems of a nested reader, and its unread fields as unread ones.
    pub fn adopt(&mut self, nested: StrictFields<'_>, known_inert: &[&str]) {
        self.unread_within.extend(nested.unread_keys(known_inert));
        self.problems.extend(nested.problems);
    }

    /// The keys that have a value, were not read and are not among `known_inert`, in file order; then those of adopted
    /// readers, as in `rope_scaling.finetuned`.
    pub fn unread_keys(&self, known_inert: &[&str]) -> Vec<String> {
        let unread = self.unread(known_inert);
        let named = unread.map(|(key, _)| format!("{}{key}", self.path));
        named.chain(self.unread_within.iter().cloned()).collect()
    }

    /// The fields that have a value, were not read and are not among `known_inert`, in file order.
    pub fn unread(&self, known_inert: &[&str]) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let fields = self.object.iter().map(|(key, value)| (key.as_str(), value));
        fields.filter(move |(key, value)| {
            !value.is_null() && !self.read.contains(*key) && !known_inert.contains(key)
        })
    }

    /// The problems so far, without those that unread fields would be.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Every problem met, and every field that was neither read nor is known to change nothing.
    pub fn finish(mut self, known_inert: &[&str]) -> Result<(), Vec<String>> {
        let unread: Vec<_> = self.unread(known_inert).collect();
        for (key, value) in unread {
            self.not_understood(key, value);
        }
        if self.problems.is_empty() {
            Ok(())
        } else {
            Err(self.problems)
        }
    }

    /// Records that a field is there that would have to be read.
    pub fn not_understood(&mut self, name: &str, value: &Value) {
        self.problem(format!("{name} = {} is not understood", brief(value)));
    }

    fn optional_u32_checked(&mut self, name: &str) -> Option<Option<u32>> {
        self.typed(name, "an integer from 0 to 2^32-1", small_integer)
    }

    /// `None` after a type error, which is recorded; `Some(None)` if the field is absent.
    fn typed<T>(
        &mut self,
        name: &str,
        kind: &str,
        parse: impl Fn(&'a Value) -> Option<T>,
    ) -> Option<Option<T>> {
        let Some(value) = self.value(name) else {
            return Some(None);
        };
        let parsed = parse(value);
        if parsed.is_none() {
            self.wrong_type(name, kind, value);
        }
        parsed.map(Some)
    }

    fn wrong_type(&mut self, name: &str, kind: &str, value: &Value) {
        self.problem(format!("{name} must be {kind}, not {}", brief(value)));
    }

    fn required<T: Default>(&mut self, name: &str, value: Option<Option<T>>) -> T {
        if let Some(None) = value {
            self.problem(format!("{name} is missing"));
        }
        value.flatten().unwrap_or_default()
    }
}

fn small_integer(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}

fn is_minus_one(value: &Value) -> bool {
    value.as_i64() == Some(-1)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn text_list(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(text).collect()
}

/// Equality that does not tell 1 from 1.0, which writers of configurations use alike.
fn same(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

/// A value as a message shows it: a whole nested configuration would bury the field's name.
pub(crate) fn brief(value: &Value) -> String {
    const CHARACTERS_MAX: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(CHARACTERS_MAX) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests;
