//! Numbers that look random and are the same each time: for tests, benchmarks and made-up weights.

use rayon::prelude::{IntoParallelIterator, ParallelIterator};

use crate::ops::sample::mix;

/// `len` numbers, roughly normal with a standard deviation of `scale`; the same for the same seed.
pub fn random_values(seed: u64, len: usize, scale: f32) -> Vec<f32> {
    let number = |index: usize| {
        let bits = mix(mix(seed).wrapping_add(index as u64));
        // The sum of four uniform numbers, centred, has a variance of 1/3.
        let sum: u64 = (0..4).map(|part| (bits >> (16 * part)) & 0xffff).sum();
        (sum as f32 / 65_535.0 - 2.0) * 1.732 * scale
    };
    (0..len).into_par_iter().map(number).collect()
}

/// `len` numbers below `bound`; the same for the same seed.
pub fn random_indices(seed: u64, len: usize, bound: usize) -> Vec<u32> {
    let number = |index: usize| mix(mix(seed).wrapping_add(index as u64)) % bound as u64;
    (0..len).map(|index| number(index) as u32).collect()
}
