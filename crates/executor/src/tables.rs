//! The block tables of all slots, for devices that have none of their own.

use backstop_types::{BlockAppend, StepPlan};

#[derive(Debug)]
pub(crate) struct BlockTables {
    /// `[group][slot]`: block numbers by table index.
    groups: Vec<Vec<Vec<u32>>>,
}

impl BlockTables {
    pub(crate) fn new(groups: usize, max_num_seqs: u32) -> Self {
        Self {
            groups: vec![vec![Vec::new(); max_num_seqs as usize]; groups],
        }
    }

    /// `[group][slot]`: block numbers by table index.
    pub(crate) fn groups(&self) -> &[Vec<Vec<u32>>] {
        &self.groups
    }

    /// Takes in the sequences that enter their slots, and the new blocks.
    pub(crate) fn update(&mut self, plan: &StepPlan) {
        for scheduled in &plan.sequences {
            let slot = scheduled.slot.0 as usize;
            if scheduled.start.is_some() {
                for group in &mut self.groups {
                    group[slot].clear();
                }
            }
            for append in &scheduled.new_blocks {
                extend(&mut self.groups[append.group][slot], append);
            }
        }
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
