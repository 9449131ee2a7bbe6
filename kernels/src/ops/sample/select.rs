//! The most likely tokens, without sorting the vocabulary.

use backstop_types::TokenId;

/// Tokens that share one maximum.
const BLOCK: usize = 64;

/// Finds the tokens with the largest logits.
#[derive(Debug, Default)]
pub(super) struct Selector {
    /// Largest logit of each block.
    maxima: Vec<f32>,
    /// `maxima`, in the disorder that partial selection leaves.
    shuffled: Vec<f32>,
    /// Keys of the selected tokens, largest first.
    keys: Vec<u64>,
    /// Tokens that were kept, in ascending order.
    kept: Vec<TokenId>,
}

impl Selector {
    /// Selects the `count` tokens with the largest logits, in descending order; all that are not
    /// minus infinity if there are fewer.
    pub(super) fn select(&mut self, logits: &[f32], count: usize) {
        self.keys.clear();
        if count == 0 {
            return;
        }
        self.maxima.clear();
        self.maxima.extend(logits.chunks(BLOCK).map(block_maximum));
        // At least `count` tokens are no smaller than the count-th largest maximum.
        let threshold = if count < self.maxima.len() {
            self.shuffled.clone_from(&self.maxima);
            let descending = |a: &f32, b: &f32| b.total_cmp(a);
            *self
                .shuffled
                .select_nth_unstable_by(count - 1, descending)
                .1
        } else {
            f32::NEG_INFINITY
        };
        for (block, &maximum) in self.maxima.iter().enumerate() {
            if maximum < threshold {
                continue;
            }
            let first = block * BLOCK;
            for (offset, &logit) in logits[first..].iter().take(BLOCK).enumerate() {
                if logit >= threshold && logit > f32::NEG_INFINITY {
                    self.keys.push(key(logit, (first + offset) as TokenId));
                }
            }
        }
        if count < self.keys.len() {
            self.keys.select_nth_unstable_by(count - 1, |a, b| b.cmp(a));
            self.keys.truncate(count);
        }
        self.keys.sort_unstable_by(|a, b| b.cmp(a));
    }

    /// The selected tokens, largest logit first.
    pub(super) fn sorted(&self) -> impl Iterator<Item = TokenId> {
        self.keys.iter().map(|&key| token_of(key))
    }

    /// The first `count` selected tokens in ascending order of ids.
    pub(super) fn keep(&mut self, count: usize) -> &[TokenId] {
        self.kept.clear();
        self.kept
            .extend(self.keys.iter().take(count).map(|&key| token_of(key)));
        self.kept.sort_unstable();
        &self.kept
    }
}

fn block_maximum(block: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 8];
    for chunk in block.chunks(8) {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// A number that orders tokens by logit, equal ones by descending id.
pub(super) fn key(logit: f32, token: TokenId) -> u64 {
    // Adding zero makes the two zeros one.
    let bits = (logit + 0.0).to_bits();
    let ordered = if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    };
    u64::from(ordered) << 32 | u64::from(u32::MAX - token)
}

pub(super) fn token_of(key: u64) -> TokenId {
    u32::MAX - key as u32
}
