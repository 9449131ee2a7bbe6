//! Typed access to a GGUF file's metadata that knows what nobody read.

use std::collections::{BTreeMap, BTreeSet};

use super::reader::MetadataValue;

/// What files say for all layers at once or for each.
pub(super) enum Integers {
    /// The same for all.
    One(u32),
    /// One for each.
    List(Vec<i64>),
}

/// The metadata. An accessor that finds another type records a problem and returns nothing.
pub(crate) struct Metadata {
    values: BTreeMap<String, MetadataValue>,
    read: BTreeSet<String>,
    problems: Vec<String>,
}

impl Metadata {
    pub(super) fn new(values: BTreeMap<String, MetadataValue>) -> Self {
        Self {
            values,
            read: BTreeSet::new(),
            problems: Vec::new(),
        }
    }

    pub(super) fn u32(&mut self, key: &str) -> Option<u32> {
        self.typed(key, "an integer from 0 to 2^32-1", |value| match value {
            MetadataValue::Integer(number) => u32::try_from(*number).ok(),
            _ => None,
        })
    }

    /// A number; an integer counts as one.
    pub(super) fn number(&mut self, key: &str) -> Option<f64> {
        self.typed(key, "a number", |value| match value {
            MetadataValue::Float(number) => Some(*number),
            MetadataValue::Integer(number) => Some(*number as f64),
            _ => None,
        })
    }

    pub(super) fn bool(&mut self, key: &str) -> Option<bool> {
        self.typed(key, "true or false", |value| match value {
            MetadataValue::Bool(value) => Some(*value),
            _ => None,
        })
    }

    pub(crate) fn text(&mut self, key: &str) -> Option<String> {
        self.typed(key, "a text", |value| match value {
            MetadataValue::Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    pub(crate) fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        self.typed(key, "a list of texts", |value| match value {
            MetadataValue::Texts(texts) => Some(texts.clone()),
            _ => None,
        })
    }

    pub(super) fn integers(&mut self, key: &str) -> Option<Vec<i64>> {
        self.typed(key, "a list of integers", |value| match value {
            MetadataValue::Integers(integers) => Some(integers.clone()),
            _ => None,
        })
    }

    /// A list of integers, or of truth values as 0 and 1; or one integer for all.
    pub(super) fn integers_or_one(&mut self, key: &str) -> Option<Integers> {
        self.typed(key, "an integer or a list", |value| match value {
            MetadataValue::Integers(integers) => Some(Integers::List(integers.clone())),
            MetadataValue::Integer(number) => u32::try_from(*number).ok().map(Integers::One),
            _ => None,
        })
    }

    pub(super) fn numbers(&mut self, key: &str) -> Option<Vec<f64>> {
        self.typed(key, "a list of numbers", |value| match value {
            MetadataValue::Floats(numbers) => Some(numbers.clone()),
            _ => None,
        })
    }

    /// Records a problem that the caller found.
    pub(crate) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// Keys that begin with `prefix`, have not been read and are not among `inert`.
    pub(crate) fn unread(&self, prefix: &str, inert: &[&str]) -> Vec<String> {
        let keys = self.values.keys().filter(|key| {
            let rest = key.strip_prefix(prefix);
            rest.is_some_and(|rest| !inert.contains(&rest)) && !self.read.contains(*key)
        });
        keys.cloned().collect()
    }

    /// Every problem found.
    pub(super) fn finish(self) -> Result<(), String> {
        if self.problems.is_empty() {
            Ok(())
        } else {
            Err(self.problems.join("; "))
        }
    }

    fn typed<T>(
        &mut self,
        key: &str,
        kind: &str,
        convert: impl FnOnce(&MetadataValue) -> Option<T>,
    ) -> Option<T> {
        self.read.insert(key.to_owned());
        let converted = convert(self.values.get(key)?);
        if converted.is_none() {
            self.problems.push(format!("{key} is not {kind}"));
        }
        converted
    }
}
