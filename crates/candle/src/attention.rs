//! Attention over the paged cache: what a piece of the batch sees is gathered through its block tables, and then
//! attended to as in any textbook. Pieces are rows of one sequence, or of several that have as many rows each.

use std::ops::Range;

use backstop_kernels::{AttentionShape, Batch, BatchSequence, KvGroupLayout};
use backstop_types::AttentionSpan;
use candle_core::{D, DType, Result, Tensor};
use candle_nn::ops::softmax_last_dim;

use crate::device::CandleDevice;
use crate::step::SlotTables;

/// Pairs of a row and a position in a piece: for each there is a score of every head.
pub(crate) const PAIRS_MAX: usize = 1 << 20;
/// Positions that are gathered for a piece of several sequences.
pub(crate) const POSITIONS_MAX: usize = 1 << 14;
/// Rows of a sequence in a piece.
const ROWS_MAX: usize = 256;

/// Rows that attend together.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Rows in the batch: those of the first sequence, then those of the next.
    rows: Range<u32>,
    sequences: usize,
    /// Positions that are gathered for each sequence.
    context: usize,
    /// `[sequences * context]`: slots of the cache.
    slots: Tensor,
    /// `[sequences, 1, rows of each, context]`: what is added to scores; nothing if all see everything.
    mask: Option<Tensor>,
}

/// Rows of one sequence.
#[derive(Clone, Copy, Debug)]
struct Part {
    first_row: u32,
    rows: u32,
    first_position: u32,
    slot: u32,
}

impl Part {
    /// The first position that a row at `position` sees.
    fn first_visible(position: u32, span: AttentionSpan) -> u32 {
        match span {
            AttentionSpan::Full => 0,
            AttentionSpan::Sliding { visible_keys } => (position + 1).saturating_sub(visible_keys),
        }
    }

    /// All positions that any of its rows sees.
    fn visible(&self, span: AttentionSpan) -> Range<u32> {
        Self::first_visible(self.first_position, span)..self.first_position + self.rows
    }
}

/// The batch in pieces of bounded size, in its order.
pub(crate) fn pieces(
    batch: &Batch,
    slots: &SlotTables<'_>,
    layout: &KvGroupLayout,
    device: &CandleDevice,
) -> Result<Vec<Piece>> {
    let span = layout.span;
    let mut pieces: Vec<Vec<Part>> = Vec::new();
    for part in batch.sequences.iter().flat_map(parts) {
        match pieces.last_mut() {
            Some(piece) if fits(piece, part, span) => piece.push(part),
            _ => pieces.push(vec![part]),
        }
    }
    let padding = layout.num_blocks * slots.block_size() as u32;
    let pieces = pieces.iter();
    let pieces = pieces.map(|parts| Piece::new(parts, slots, span, padding, device));
    pieces.collect()
}

/// A sequence's rows in parts with a bounded number of pairs.
fn parts(sequence: &BatchSequence) -> impl Iterator<Item = Part> {
    let positions = sequence.end_position() as usize;
    let step = (PAIRS_MAX / positions).clamp(1, ROWS_MAX);
    let (rows, slot) = (sequence.rows.clone(), sequence.slot);
    let first_position = sequence.first_position;
    rows.clone().step_by(step).map(move |first_row| Part {
        first_row,
        rows: (step as u32).min(rows.end - first_row),
        first_position: first_position + (first_row - rows.start),
        slot,
    })
}

/// Whether a part may be added to a piece: it has as many rows, what is gathered stays bounded, and most of that is
/// no padding.
fn fits(piece: &[Part], part: Part, span: AttentionSpan) -> bool {
    let all = || piece.iter().chain([&part]);
    let contexts = || all().map(|part| part.visible(span).len());
    let padded = contexts().max().unwrap_or(0) * (piece.len() + 1);
    piece[0].rows == part.rows
        && piece[0].slot != part.slot
        && padded <= POSITIONS_MAX
        && padded * part.rows as usize <= PAIRS_MAX
        && padded <= 2 * contexts().sum::<usize>()
}

impl Piece {
    fn new(
        parts: &[Part],
        tables: &SlotTables<'_>,
        span: AttentionSpan,
        padding: u32,
        device: &CandleDevice,
    ) -> Result<Self> {
        let contexts = parts.iter().map(|part| part.visible(span).len());
        let context = contexts.max().unwrap_or(0);
        let rows = parts[0].rows as usize;
        let mut slots = Vec::with_capacity(parts.len() * context);
        let mut mask = Vec::with_capacity(parts.len() * rows * context);
        for part in parts {
            let visible = part.visible(span);
            let gathered = visible
                .clone()
                .map(|position| tables.slot(part.slot, position));
            slots.extend(gathered);
            slots.resize(slots.len().next_multiple_of(context), padding);
            for position in part.first_position..part.first_position + part.rows {
                let seen = Part::first_visible(position, span)..position + 1;
                let places = visible.start..visible.start + context as u32;
                mask.extend(places.map(|place| match seen.contains(&place) {
                    true => 0.0,
                    false => f32::NEG_INFINITY,
                }));
            }
        }
        let masks = mask.iter().any(|&addend| addend != 0.0);
        let shape = (parts.len(), 1, rows, context);
        let first_row = parts[0].first_row;
        Ok(Self {
            rows: first_row..first_row + (parts.len() * rows) as u32,
            sequences: parts.len(),
            context,
            slots: Tensor::new(slots, device.inner())?,
            mask: masks
                .then(|| Tensor::from_vec(mask, shape, device.inner()))
                .transpose()?,
        })
    }

    /// Attention of the piece's rows; `queries` is `[rows of the batch, heads * head_dim]`, the result
    /// `[rows of the piece, heads * head_dim]`.
    fn attend(
        &self,
        queries: &Tensor,
        cache: &Tensor,
        shape: AttentionShape,
        sinks: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (heads, kv_heads) = (shape.heads as usize, shape.kv_heads as usize);
        let (head_dim, group) = (shape.head_dim as usize, heads / kv_heads);
        let (sequences, context, count) = (self.sequences, self.context, self.rows.len());
        let rows = count / sequences;

        let gathered = cache.index_select(&self.slots, 0)?;
        let gathered = gathered.reshape((sequences, context, 2, kv_heads, head_dim))?;
        let half = |index: usize| {
            let half = gathered.narrow(2, index, 1)?.squeeze(2)?.transpose(1, 2)?;
            half.to_dtype(DType::F32)?.contiguous()
        };
        let (keys, values) = (half(0)?, half(1)?);

        // Query heads of one key-value head side by side.
        let queries = queries.narrow(0, self.rows.start as usize, count)?;
        let queries = queries.reshape((sequences, rows, kv_heads, group, head_dim))?;
        let queries = queries.permute((0, 2, 3, 1, 4))?.contiguous()?;
        let queries = queries.reshape((sequences, kv_heads, group * rows, head_dim))?;

        let scores = (queries.matmul(&keys.t()?)? * f64::from(shape.scale))?;
        let scores = scores.reshape((sequences, heads, rows, context))?;
        let weights = self.softmax(&scores, sinks)?;
        let weights = weights.reshape((sequences, kv_heads, group * rows, context))?;
        let output = weights.matmul(&values)?;
        let output = output.reshape((sequences, heads, rows, head_dim))?;
        output.transpose(1, 2)?.reshape((count, heads * head_dim))
    }

    /// Weights of the positions, `[sequences, heads, rows, context]`. Sinks take a share of them and give nothing.
    fn softmax(&self, scores: &Tensor, sinks: Option<&Tensor>) -> Result<Tensor> {
        let scores = match &self.mask {
            Some(mask) => scores.broadcast_add(mask)?,
            None => scores.clone(),
        };
        let Some(sinks) = sinks else {
            return softmax_last_dim(&scores);
        };
        let (sequences, heads, rows, context) = scores.dims4()?;
        let sinks = sinks.reshape((1, heads, 1, 1))?;
        let sinks = sinks.broadcast_as((sequences, heads, rows, 1))?;
        let weights = softmax_last_dim(&Tensor::cat(&[scores, sinks.contiguous()?], D::Minus1)?)?;
        weights.narrow(D::Minus1, 0, context)?.contiguous()
    }
}

/// Attention of all rows over a layer's cache, `[rows, heads * head_dim]`.
pub(crate) fn attend(
    pieces: &[Piece],
    queries: &Tensor,
    cache: &Tensor,
    shape: AttentionShape,
    sinks: Option<&Tensor>,
) -> Result<Tensor> {
    let outputs = pieces.iter();
    let outputs = outputs.map(|piece| piece.attend(queries, cache, shape, sinks));
    let mut outputs = outputs.collect::<Result<Vec<_>>>()?;
    match outputs.len() {
        1 => Ok(outputs.remove(0)),
        _ => Tensor::cat(&outputs, 0),
    }
}
