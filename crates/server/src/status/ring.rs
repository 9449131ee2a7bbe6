//! The latest of many.

use std::collections::VecDeque;

/// At most `MOST` values, of which the oldest makes room.
#[derive(Clone, Debug)]
pub(super) struct Ring<T, const MOST: usize> {
    values: VecDeque<T>,
}

impl<T, const MOST: usize> Default for Ring<T, MOST> {
    fn default() -> Self {
        Self {
            values: VecDeque::new(),
        }
    }
}

impl<T, const MOST: usize> Ring<T, MOST> {
    pub(super) fn push(&mut self, value: T) {
        if self.values.len() == MOST {
            self.values.pop_front();
        }
        self.values.push_back(value);
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.values.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room() {
        let mut ring = Ring::<u32, 3>::default();
        (1..=5).for_each(|value| ring.push(value));
        assert_eq!(ring.iter().copied().collect::<Vec<_>>(), [3, 4, 5]);
    }
}
