//! How the token budget of a step is shared.

use backstop_kv::fault::{Fault, planted};

/// What one running sequence could use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    /// First position that it has not planned.
    pub(crate) position: u32,
    /// Positions that it could compute; 0 when its last token is in flight.
    pub(crate) tokens: u32,
}

/// Shares `budget` tokens among `wants`, which stand in rank order, into `shares`.
///
/// Sequences that want a single token, which are mostly those that generate, get it. Half of the
/// rest is shared evenly, so that short prompts pass a huge one. What remains goes to the first
/// in rank, so that prompts finish one after the other rather than all at the end. Every want
/// gets at least one token if the budget has one for each.
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
    let longer = wants.iter().filter(|want| want.tokens > 1).count() as u32;
    if longer == 0 {
        return;
    }
    let even = ((left / 2 / longer) / block_size * block_size).max(1);
    for (share, want) in shares
        .iter_mut()
        .zip(wants)
        .filter(|(_, want)| want.tokens > 1)
    {
        *share = tidy(want, even.min(left), block_size);
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
        let wants: Vec<Want> = wants
            .iter()
            .map(|&(position, tokens)| Want { position, tokens })
            .collect();
        let mut shares = Vec::new();
        share(&wants, budget, block_size, &mut shares);
        shares
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
                let shares = shares(&wants, budget, block_size);
                assert!(shares.iter().sum::<u32>() <= budget);
                for (share, want) in shares.iter().zip(wants) {
                    assert!(*share <= want.1 && (*share > 0 || want.1 == 0));
                }
            }
        }
    }
}
