//! Numbers that follow from a seed, the same on every machine and in every release.

use sha2::{Digest, Sha256};

/// Seeds of requests are smaller than this: every server takes a positive 32-bit integer.
const REQUEST_SEEDS: u64 = 1 << 31;

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// One seed gives one sequence.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// From 0 to `bound` - 1, each as likely as any other (Lemire, 2019, without his rejection: a bound of 2^32 is off by
    /// less than one in 2^32). `bound` is at least 1.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_bits()) * bound.max(1) as u128) >> 64) as usize
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low).max(0) as usize + 1) as i64
    }

    /// One of at least one.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Any order is as likely as any other (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// The seed of what these names name, under a seed.
pub fn seed_of(seed: u64, names: &[&str]) -> u64 {
    let mut digest = Sha256::new();
    digest.update(seed.to_le_bytes());
    for name in names {
        digest.update((name.len() as u64).to_le_bytes());
        digest.update(name.as_bytes());
    }
    let digest = digest.finalize();
    digest[..8]
        .iter()
        .fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

/// The seed of one answer. It depends on nothing else: not on when it is asked, nor beside what.
pub fn request_seed(seed: u64, suite: &str, task: &str, sample: u32) -> u64 {
    seed_of(seed, &[suite, task, &sample.to_string()]) % REQUEST_SEEDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_splitmix64() {
        // The first outputs of the authors' program for 1234567.
        let mut random = Random::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next_bits()).collect();
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn every_number_below_the_bound_comes_about_as_often() {
        let mut random = Random::new(3);
        let mut counts = [0_u32; 7];
        for _ in 0..70_000 {
            counts[random.below(7)] += 1;
        }
        assert!(
            counts.iter().all(|count| (9_500..10_500).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn seeds_differ_by_each_of_their_names_and_fit_everywhere() {
        let of = request_seed;
        let one = of(0, "code", "a/1", 0);
        for other in [
            of(1, "code", "a/1", 0),
            of(0, "codea", "/1", 0),
            of(0, "code", "a/1", 1),
        ] {
            assert_ne!(one, other);
        }
        assert_eq!(one, of(0, "code", "a/1", 0));
        assert!((0..1000).all(|sample| of(9, "s", "t", sample) < 1 << 31));
    }
}
