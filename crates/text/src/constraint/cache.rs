//! Compiled grammars by their source: agents send the same tools with every request.

use super::Compiled;
use super::limits::{CACHED_BYTES_MAX, CACHED_GRAMMARS_MAX};

/// The most recently used grammars, least recently used first.
#[derive(Default)]
pub(super) struct Cache {
    entries: Vec<Entry>,
}

struct Entry {
    key: String,
    compiled: Compiled,
    /// Of the compiled grammar.
    bytes: usize,
}

impl Cache {
    pub(super) fn find(&mut self, key: &str) -> Option<Compiled> {
        let index = self.entries.iter().position(|entry| entry.key == key)?;
        let entry = self.entries.remove(index);
        let found = entry.compiled.clone();
        self.entries.push(entry);
        Some(found)
    }

    /// Keeps a grammar whose tables have so many bytes.
    pub(super) fn insert(&mut self, key: String, compiled: Compiled, bytes: usize) {
        self.entries.retain(|entry| entry.key != key);
        self.entries.push(Entry {
            key,
            compiled,
            bytes,
        });
        while self.entries.len() > CACHED_GRAMMARS_MAX
            || (self.entries.len() > 1 && self.bytes() > CACHED_BYTES_MAX)
        {
            self.entries.remove(0);
        }
    }

    fn bytes(&self) -> usize {
        let bytes = self
            .entries
            .iter()
            .map(|entry| entry.key.len() + entry.bytes);
        bytes.sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use backstop_types::{
        Constraint, ConstraintFault, ConstraintMatcher, SharedConstraint, TokenId,
    };

    use super::{CACHED_BYTES_MAX, CACHED_GRAMMARS_MAX, Cache, Compiled};

    #[derive(Debug)]
    struct Nothing;

    impl Constraint for Nothing {
        fn matcher(&self) -> Box<dyn ConstraintMatcher> {
            Box::new(Nothing)
        }
    }

    impl ConstraintMatcher for Nothing {
        fn advance(&mut self, _: TokenId) -> Result<(), ConstraintFault> {
            Err(ConstraintFault)
        }

        fn fill_mask(&mut self, _: &mut [u32]) -> Result<(), ConstraintFault> {
            Err(ConstraintFault)
        }
    }

    fn constraint() -> Compiled {
        Compiled {
            constraint: SharedConstraint(Arc::new(Nothing)),
            left_out: Arc::new([]),
        }
    }

    #[test]
    fn the_least_recently_used_grammar_is_dropped_first() {
        let mut cache = Cache::default();
        for index in 0..CACHED_GRAMMARS_MAX {
            cache.insert(index.to_string(), constraint(), 1);
        }
        assert!(cache.find("0").is_some());
        cache.insert("new".to_owned(), constraint(), 1);
        assert!(cache.find("0").is_some());
        assert!(cache.find("1").is_none());
        assert_eq!(cache.entries.len(), CACHED_GRAMMARS_MAX);
    }

    #[test]
    fn large_grammars_push_each_other_out() {
        let mut cache = Cache::default();
        for letter in ["a", "b", "c"] {
            cache.insert(letter.to_owned(), constraint(), CACHED_BYTES_MAX / 2 - 1);
        }
        assert_eq!(cache.entries.len(), 2);
    }
}
