//! Random numbers for seeds and ids, from the process's own entropy.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

static KEYS: OnceLock<[RandomState; 2]> = OnceLock::new();
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// 128 bits that no one outside the process can predict and that do not repeat in practice: a
/// keyed hash of a counter, whose keys the standard library takes from the operating system.
pub(crate) fn random_u128() -> u128 {
    let keys = KEYS.get_or_init(|| [RandomState::new(), RandomState::new()]);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let [high, low] = keys.each_ref().map(|key| key.hash_one(count));
    u128::from(high) << 64 | u128::from(low)
}

/// 64 random bits.
pub(crate) fn random_u64() -> u64 {
    (random_u128() >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_do_not_repeat() {
        let numbers: BTreeSet<u128> = (0..1000).map(|_| random_u128()).collect();
        assert_eq!(numbers.len(), 1000);
    }
}
