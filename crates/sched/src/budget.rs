//! How the token budget of a step is shared.

use std::collections::BTreeMap;

use backstop_kv::fault::{Fault, planted};

/// What one running sequence could use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    /// First position that it has not planned.
    pub(crate) position: u32,
    /// Positions that it could compute; 0 when its last token is in flight.
    pub(crate) tokens: u32,
    /// Whose it is.
    pub(crate) tenant: u64,
}

/// Shares `budget` tokens among `wants`, which stand in rank order, into `shares`.
///
/// Sequences that want a single token, which are mostly those that generate, get it. Half of the
/// rest is shared evenly, first between tenants and then between the sequences of each, so that
/// short prompts pass a huge one and nobody's prompt waits for a crowd of another's. What remains
/// goes to the first in rank, so that prompts finish one after the other rather than all at the
/// end. Every want gets at least one token if the budget has one for each.
pub(crate) fn share(wants: &[Want], budget: u32, block_size: u32, shares: &mut Vec<u32>) {
    shares.clear();
    shares.resize(wants.len(), 0);
    let mut left = budget;
    for (share, _) in shares
        .iter_mut()
        .zip(wants)
        .filter(|(_, want)| want.tokens == 1)
    {
        *share = left.min(1);
        left -= *share;
    }
    let mut longer = BTreeMap::<u64, u32>::new();
    for want in wants.iter().filter(|want| want.tokens > 1) {
        *longer.entry(want.tenant).or_default() += 1;
    }
    let mut behind: u32 = longer.values().sum();
    let of_tenant = (left / 2).checked_div(longer.len() as u32).unwrap_or(0);
    for (share, want) in shares
        .iter_mut()
        .zip(wants)
        .filter(|(_, want)| want.tokens > 1)
    {
        let even = (of_tenant / longer[&want.tenant] / block_size * block_size).max(1);
        behind -= 1;
        // One token is left for each that follows.
        *share = tidy(want, even.min(left.saturating_sub(behind)), block_size);
        left -= *share;
    }
    for (share, want) in shares
        .iter_mut()
        .zip(wants)
        .filter(|(_, want)| want.tokens > 1)
    {
        let more = tidy(want, *share + left, block_size);
        left -= more - *share;
        *share = more;
        if planted(Fault::BudgetIgnored) {
            *share = want.tokens;
        }
    }
}

/// The most that a want can use of `tokens`, so that it ends where a block ends unless it is
/// complete or does not get that far.
pub(crate) fn tidy(want: &Want, tokens: u32, block_size: u32) -> u32 {
    if want.tokens <= tokens {
        return want.tokens;
    }
    let block_start = (want.position + tokens) / block_size * block_size;
    if block_start > want.position {
        block_start - want.position
    } else {
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(wants: &[(u32, u32)], budget: u32, block_size: u32) -> Vec<u32> {
        let wants = wants
            .iter()
            .map(|&(position, tokens)| (position, tokens, 0));
        shares_of(&wants.collect::<Vec<_>>(), budget, block_size)
    }

    /// Shares of wants of several tenants.
    fn shares_of(wants: &[(u32, u32, u64)], budget: u32, block_size: u32) -> Vec<u32> {
        let wants = wants.iter().map(|&(position, tokens, tenant)| Want {
            position,
            tokens,
            tenant,
        });
        let mut shares = Vec::new();
        share(&wants.collect::<Vec<_>>(), budget, block_size, &mut shares);
        shares
    }

    #[test]
    fn a_crowd_of_one_tenants_prompts_does_not_thin_out_the_share_of_another() {
        let mut wants = vec![(0, 10_000, 0); 15];
        wants.push((0, 10_000, 1));
        let shares = shares_of(&wants, 1024, 16);
        assert_eq!((shares[1], shares[15]), (16, 256));
        assert_eq!(shares.iter().sum::<u32>(), 1024);
    }

    #[test]
    fn sequences_that_generate_come_before_prompts() {
        assert_eq!(shares(&[(0, 100), (7, 1), (9, 1)], 34, 16), [32, 1, 1]);
    }

    #[test]
    fn a_huge_prompt_leaves_room_for_short_ones_behind_it() {
        assert_eq!(
            shares(&[(0, 100_000), (0, 16), (0, 16)], 256, 16),
            [224, 16, 16]
        );
    }

    #[test]
    fn the_first_in_rank_gets_the_larger_share_of_equal_prompts() {
        assert_eq!(
            shares(&[(0, 1000), (0, 1000), (0, 1000)], 192, 16),
            [128, 32, 32]
        );
    }

    #[test]
    fn everyone_gets_a_token_even_if_there_are_only_just_enough() {
        assert_eq!(
            shares(&[(0, 9), (3, 9), (0, 1), (0, 9)], 4, 4),
            [1, 1, 1, 1]
        );
    }

    #[test]
    fn unfinished_chunks_end_with_a_block() {
        assert_eq!(shares(&[(5, 100)], 30, 16), [27]);
        assert_eq!(shares(&[(5, 100)], 8, 16), [8]);
        assert_eq!(shares(&[(5, 12)], 30, 16), [12]);
    }

    #[test]
    fn no_share_exceeds_its_want_and_all_fit_the_budget() {
        for budget in 5..200 {
            for block_size in [1, 3, 16] {
                let wants = [(0, 40), (3, 1), (17, 90), (16, 0), (2, 5), (31, 64)];
                for tenants in 1..=4 {
                    let wants = wants.map(|(at, tokens)| (at, tokens, u64::from(at % tenants)));
                    let shares = shares_of(&wants, budget, block_size);
                    assert!(shares.iter().sum::<u32>() <= budget);
                    for (share, want) in shares.iter().zip(wants) {
                        assert!(*share <= want.1 && (*share > 0 || want.1 == 0));
                    }
                }
            }
        }
    }
}
