//! Per-sequence state on the executor's side: token history and block tables.

use std::sync::Arc;

use backstop_types::{
    BlockAppend, KvSpec, SamplingParams, ScheduledSequence, SequenceStart, StepPlan,
    StopConditions, TokenId,
};

use crate::constraint::{Follower, prepare_masks};

/// What the executor knows of the sequence in one slot.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Prompt and everything sampled so far.
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) prompt_len: usize,
    pub(crate) sampling: Arc<SamplingParams>,
    stop: Option<Arc<StopConditions>>,
    /// Present if a grammar restricts the answer.
    pub(crate) follower: Option<Follower>,
}

impl Slot {
    fn enter(&mut self, start: &SequenceStart) {
        self.tokens.clear();
        self.tokens.extend_from_slice(&start.tokens);
        self.prompt_len = start.prompt_len as usize;
        self.sampling = Arc::clone(&start.sampling);
        self.stop = Some(Arc::clone(&start.stop));
        self.follower = Follower::new(start);
    }

    /// Takes in what was sampled. A sequence without a token ends here; whatever stands in its
    /// history is not read.
    pub(crate) fn push(&mut self, token: Option<TokenId>) {
        self.tokens.push(token.unwrap_or(0));
        if let Some(follower) = &mut self.follower {
            follower.push(token);
        }
    }

    /// Tokens that must not be sampled now: the stop tokens, before `min_tokens` are generated.
    pub(crate) fn masked(&self) -> &[TokenId] {
        let generated = self.tokens.len() - self.prompt_len;
        match &self.stop {
            Some(stop) if generated < stop.min_tokens as usize => &stop.stop_token_ids,
            _ => &[],
        }
    }
}

/// All slots and their block tables.
#[derive(Debug)]
pub(crate) struct Slots {
    pub(crate) slots: Vec<Slot>,
    /// `[group][slot]`: block numbers by table index.
    pub(crate) tables: Vec<Vec<Vec<u32>>>,
}

impl Slots {
    pub(crate) fn new(spec: &KvSpec, max_num_seqs: u32) -> Self {
        let count = max_num_seqs as usize;
        Self {
            slots: (0..count).map(|_| Slot::default()).collect(),
            tables: vec![vec![Vec::new(); count]; spec.groups.len()],
        }
    }

    /// Takes in what a plan says of one sequence.
    pub(crate) fn update(&mut self, scheduled: &ScheduledSequence) {
        let slot = scheduled.slot.0 as usize;
        if let Some(start) = &scheduled.start {
            self.slots[slot].enter(start);
            for group in &mut self.tables {
                group[slot].clear();
            }
        }
        for append in &scheduled.new_blocks {
            extend(&mut self.tables[append.group][slot], append);
        }
    }

    /// Makes the masks of the plan's sequences that follow grammars.
    pub(crate) fn prepare_masks(&mut self, plan: &StepPlan, vocabulary: usize) {
        let followers = self.slots.iter_mut().map(|slot| slot.follower.as_mut());
        prepare_masks(plan, followers, vocabulary);
    }

    /// The tokens that the plan computes, guesses included.
    pub(crate) fn tokens<'a>(
        &'a self,
        scheduled: &'a ScheduledSequence,
    ) -> impl Iterator<Item = TokenId> + 'a {
        let first = scheduled.first_position as usize;
        let known = scheduled.num_tokens as usize - scheduled.draft.len();
        let history = &self.slots[scheduled.slot.0 as usize].tokens;
        let tokens = history[first..first + known].iter();
        tokens.chain(&scheduled.draft).copied()
    }
}

fn extend(table: &mut Vec<u32>, append: &BlockAppend) {
    let first = append.first_index as usize;
    assert!(
        first >= table.len(),
        "a block table entry is never replaced"
    );
    // Entries before a window that already passed are never read; any number does.
    table.resize(first, u32::MAX);
    table.extend(append.blocks.iter().map(|block| block.0));
}
