//! Attention over the paged cache, prefill and decode rows mixed.

use backstop_types::AttentionSpan;

use crate::backend::AttentionShape;
use crate::cpu::kv_cache::KvView;
use crate::features::InstructionSet;
use crate::ops::kv_write::SequenceRows;

/// Arguments. Keys and values of all rows are in the cache already.
#[derive(Clone, Copy, Debug)]
pub struct AttentionArgs<'a> {
    /// `[rows, (heads + 2 * kv_heads) * head_dim]`; only the queries, its first heads, are read.
    pub qkv: &'a [f32],
    /// Head counts.
    pub shape: AttentionShape,
    /// Which positions a query sees.
    pub span: AttentionSpan,
    /// The sequences of the batch.
    pub sequences: &'a [SequenceRows<'a>],
    /// Keys and values.
    pub cache: KvView<'a>,
}

impl AttentionArgs<'_> {
    fn columns(&self) -> usize {
        (self.shape.heads + 2 * self.shape.kv_heads) as usize * self.shape.head_dim as usize
    }

    fn check(&self, out: &[f32]) {
        let layout = self.cache.shape;
        assert_eq!(
            layout.kv_heads, self.shape.kv_heads as usize,
            "kv_heads of the cache"
        );
        assert_eq!(
            layout.head_dim, self.shape.head_dim as usize,
            "head_dim of the cache"
        );
        assert!(
            self.shape.heads.is_multiple_of(self.shape.kv_heads),
            "heads of attention"
        );
        let rows: usize = self.sequences.iter().map(|sequence| sequence.rows).sum();
        assert_eq!(self.qkv.len(), rows * self.columns(), "inputs of attention");
        let head_columns = self.shape.heads as usize * layout.head_dim;
        assert_eq!(out.len(), rows * head_columns, "outputs of attention");
    }

    /// Naive attention; `out` is `[rows, heads * head_dim]`.
    pub fn reference(&self, out: &mut [f32]) {
        self.check(out);
        let (heads, head_dim) = (self.shape.heads as usize, self.shape.head_dim as usize);
        for sequence in self.sequences {
            for row in 0..sequence.rows {
                let at = sequence.first_row + row;
                let position = sequence.first_position + row;
                for head in 0..heads {
                    let query = &self.qkv[at * self.columns() + head * head_dim..][..head_dim];
                    let out = &mut out[(at * heads + head) * head_dim..][..head_dim];
                    self.reference_row(sequence, position, head, query, out);
                }
            }
        }
    }

    fn reference_row(
        &self,
        sequence: &SequenceRows<'_>,
        position: usize,
        head: usize,
        query: &[f32],
        out: &mut [f32],
    ) {
        let layout = self.cache.shape;
        let kv_head = head / (self.shape.heads / self.shape.kv_heads) as usize;
        let memory = |position: usize| {
            let block = sequence.table[position / layout.block_size];
            let start = layout.keys_start(block, kv_head);
            (
                &self.cache.bytes[start..][..2 * layout.half_bytes()],
                position % layout.block_size,
            )
        };
        let visible = self.span.first_visible(position as u32) as usize..=position;
        let scores: Vec<f32> = visible
            .clone()
            .map(|position| {
                let (memory, offset) = memory(position);
                let key = |d: usize| layout.element.read(memory, layout.key_index(offset, d));
                let dot: f32 = query.iter().enumerate().map(|(d, q)| q * key(d)).sum();
                dot * self.shape.scale
            })
            .collect();
        let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
        let sum: f32 = weights.iter().sum();
        out.fill(0.0);
        for (position, weight) in visible.zip(&weights) {
            let (memory, offset) = memory(position);
            for (d, out) in out.iter_mut().enumerate() {
                let value = layout.element.read(memory, layout.value_index(offset, d));
                *out += weight / sum * value;
            }
        }
    }

    /// Attention; `out` is `[rows, heads * head_dim]`.
    pub fn run(&self, _instructions: InstructionSet, out: &mut [f32]) {
        self.reference(out);
    }
}
