//! Checks that the books balance.

use crate::{KvCache, SequenceBlocks};

impl KvCache {
    /// Panics unless every count agrees with the others. `sequences` must yield every sequence
    /// that holds blocks. O(blocks), so for tests, simulation and idle moments.
    pub fn audit<'a>(&self, sequences: impl Iterator<Item = &'a SequenceBlocks> + Clone) {
        for (group, pool) in self.pools.iter().enumerate() {
            let mut table_entries = vec![0; pool.total() as usize];
            for table in sequences.clone().map(|sequence| &sequence.groups[group]) {
                table
                    .blocks
                    .iter()
                    .for_each(|block| table_entries[block.0 as usize] += 1);
            }
            pool.audit(&table_entries);
            let published = (0..pool.total()).map(backstop_types::BlockId);
            let published = published
                .filter(|&block| pool.node(block).is_some())
                .count() as u32;
            let indexed = self.index.count_blocks(group);
            assert_eq!(published, indexed, "published blocks of group {group}");
        }
        let pins = sequences.filter_map(|sequence| sequence.cursor);
        self.index
            .audit(pins, |group, block| self.pools[group].node(block));
    }
}
