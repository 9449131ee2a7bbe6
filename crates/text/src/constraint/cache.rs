//! Compiled grammars by their source: agents send the same tools with every request.

use backstop_types::SharedConstraint;

use super::limits::{CACHED_GRAMMARS_MAX, CACHED_SOURCE_BYTES_MAX};

/// The most recently used grammars, least recently used first.
#[derive(Default)]
pub(super) struct Cache {
    entries: Vec<(String, SharedConstraint)>,
}

impl Cache {
    pub(super) fn find(&mut self, key: &str) -> Option<SharedConstraint> {
        let index = self.entries.iter().position(|(known, _)| known == key)?;
        let entry = self.entries.remove(index);
        let found = entry.1.clone();
        self.entries.push(entry);
        Some(found)
    }

    pub(super) fn insert(&mut self, key: String, constraint: SharedConstraint) {
        self.entries.retain(|(known, _)| *known != key);
        self.entries.push((key, constraint));
        while self.entries.len() > CACHED_GRAMMARS_MAX
            || (self.entries.len() > 1 && self.source_bytes() > CACHED_SOURCE_BYTES_MAX)
        {
            self.entries.remove(0);
        }
    }

    fn source_bytes(&self) -> usize {
        self.entries.iter().map(|(key, _)| key.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use backstop_types::{
        Constraint, ConstraintFault, ConstraintMatcher, SharedConstraint, TokenId,
    };

    use super::{CACHED_GRAMMARS_MAX, CACHED_SOURCE_BYTES_MAX, Cache};

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

    fn constraint() -> SharedConstraint {
        SharedConstraint(Arc::new(Nothing))
    }

    #[test]
    fn the_least_recently_used_grammar_is_dropped_first() {
        let mut cache = Cache::default();
        for index in 0..CACHED_GRAMMARS_MAX {
            cache.insert(index.to_string(), constraint());
        }
        assert!(cache.find("0").is_some());
        cache.insert("new".to_owned(), constraint());
        assert!(cache.find("0").is_some());
        assert!(cache.find("1").is_none());
        assert_eq!(cache.entries.len(), CACHED_GRAMMARS_MAX);
    }

    #[test]
    fn large_sources_push_each_other_out() {
        let mut cache = Cache::default();
        for letter in ["a", "b", "c"] {
            cache.insert(letter.repeat(CACHED_SOURCE_BYTES_MAX / 2), constraint());
        }
        assert_eq!(cache.entries.len(), 2);
    }
}
