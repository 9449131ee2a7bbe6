//! Log-probabilities under the raw distribution.

use backstop_types::{TokenId, TokenLogprobs};

use super::weights::UNIT;

/// Of `token`, given the raw logits, the largest of them, the sum of `exp(logit - largest)` in
/// units of [`UNIT`], and the tokens to report.
pub(super) fn of_token(
    logits: &[f32],
    largest: f32,
    total: u64,
    top: impl Iterator<Item = TokenId>,
    token: TokenId,
) -> TokenLogprobs {
    let log_total = (total as f64 / UNIT as f64).ln();
    let logprob = |token: TokenId| {
        let logit = f64::from(logits[token as usize]);
        (logit - f64::from(largest) - log_total) as f32
    };
    TokenLogprobs {
        logprob: logprob(token),
        rank: rank(logits, token),
        top: top.map(|token| (token, logprob(token))).collect(),
    }
}

/// 1 for the first token in the order by descending logit, then ascending id.
fn rank(logits: &[f32], token: TokenId) -> u32 {
    let (before, after) = logits.split_at(token as usize);
    let own = logits[token as usize];
    let earlier = before.iter().filter(|&&logit| logit >= own).count();
    let later = after.iter().filter(|&&logit| logit > own).count();
    1 + (earlier + later) as u32
}
