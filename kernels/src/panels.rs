//! Weights arranged for products: panels of 16 rows.
//!
//! A vector of 16 lanes holds something of each row of a panel, so that a product needs no sums
//! over lanes and reads memory from front to back. What such a vector holds of one row is a
//! *piece*: the scale of a block, four bytes of its codes, two BF16 numbers. A panel has the same
//! bytes as its rows, in another order: first the first piece of each row, then the second piece
//! of each row, and so on. Missing rows of the last panel are zeros.

use rayon::prelude::{ParallelIterator, ParallelSliceMut};

use crate::element::Element;
use crate::gemm::WeightFormat;

/// Rows of a panel.
pub const PANEL_ROWS: usize = 16;
/// Columns that products walk at a time; rows of a panel have a multiple of them.
pub const GROUP_COLUMNS: usize = 32;

/// `[bytes, count]` of pieces, first to last, in the unit of a row.
pub(crate) type Layout = &'static [[usize; 2]];

/// How products with a panel are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// 8-bit activations times codes, in integers.
    Integers,
    /// f32 activations times widened numbers.
    Floats,
    /// Activations as sums of two BF16 numbers, times BF16 numbers, on tiles; as `Floats` where the
    /// processor has none.
    Tiles,
}

/// How products with a format are computed, and the pieces of a unit (a block, or two numbers), if
/// it can be arranged in panels.
const fn plan(format: WeightFormat) -> Option<(Arithmetic, Layout)> {
    match format {
        WeightFormat::Numbers(Element::BF16) => Some((Arithmetic::Tiles, &[[4, 1]])),
        WeightFormat::Numbers(_) => None,
        WeightFormat::Blocks(format) => {
            let facts = format.facts();
            Some((facts.arithmetic, facts.pieces))
        }
    }
}

/// How products with panels of a format are computed, if it can be arranged in panels.
pub(crate) fn arithmetic(format: WeightFormat) -> Option<Arithmetic> {
    plan(format).map(|(arithmetic, _)| arithmetic)
}

/// The pieces of a format's unit in panels, and the rows of these.
pub(crate) fn layout(format: WeightFormat) -> Option<(usize, Layout)> {
    plan(format).map(|(_, layout)| (PANEL_ROWS, layout))
}

/// Whether rows of so many columns can be arranged in panels.
pub(crate) fn can_arrange(format: WeightFormat, columns: usize) -> bool {
    columns > 0 && columns.is_multiple_of(GROUP_COLUMNS) && plan(format).is_some()
}

/// Calls `visit` with the first byte in a row and the size of each of its pieces.
fn for_each_piece(format: WeightFormat, row_bytes: usize, mut visit: impl FnMut(usize, usize)) {
    let (_, layout) = plan(format).expect("a format that can be arranged in panels");
    let mut at = 0;
    while at < row_bytes {
        for &[size, count] in layout {
            for _ in 0..count {
                visit(at, size);
                at += size;
            }
        }
    }
}

/// Calls `visit` with the first byte in a row, the size and the count of each run of pieces of one size.
fn for_each_run(
    format: WeightFormat,
    row_bytes: usize,
    mut visit: impl FnMut(usize, usize, usize),
) {
    let (mut start, mut run_size, mut count) = (0, 0, 0);
    for_each_piece(format, row_bytes, |at, size| {
        if size != run_size && count > 0 {
            visit(start, run_size, count);
        }
        if size != run_size {
            (start, run_size, count) = (at, size, 0);
        }
        count += 1;
    });
    if count > 0 {
        visit(start, run_size, count);
    }
}

/// Turns rows into panels in their place. `data` is whole panels long: behind the rows there are zeros.
pub(crate) fn arrange(format: WeightFormat, columns: usize, data: &mut [u8]) {
    let row_bytes = format.bytes_of(columns);
    let panels = data.par_chunks_exact_mut(PANEL_ROWS * row_bytes);
    panels.for_each_init(Vec::new, |rows, panel| {
        rows.clear();
        rows.extend_from_slice(panel);
        arrange_rows(format, columns, rows, panel);
    });
}

/// Turns rows into panels elsewhere, on this thread. What is missing to a whole last panel stays as it is in `out`.
pub(crate) fn arrange_rows(format: WeightFormat, columns: usize, rows: &[u8], out: &mut [u8]) {
    let row_bytes = format.bytes_of(columns);
    let mut runs = Vec::new();
    for_each_run(format, row_bytes, |at, size, count| {
        runs.push((at, size, count));
    });
    let panels = out.chunks_exact_mut(PANEL_ROWS * row_bytes);
    for (rows, panel) in rows.chunks(PANEL_ROWS * row_bytes).zip(panels) {
        // No rows are missing, but to the last panel.
        let rows: Vec<&[u8]> = rows.chunks_exact(row_bytes).collect();
        for &(at, size, count) in &runs {
            let out = &mut panel[at * PANEL_ROWS..(at + size * count) * PANEL_ROWS];
            match size {
                1 => gather::<1>(&rows, at, out),
                2 => gather::<2>(&rows, at, out),
                _ => gather_fours(&rows, at, out),
            }
        }
    }
}

/// A run of pieces of `SIZE` bytes that begins at byte `at` of each row.
fn gather<const SIZE: usize>(rows: &[&[u8]], at: usize, out: &mut [u8]) {
    let pieces = out.as_chunks_mut::<SIZE>().0.chunks_exact_mut(PANEL_ROWS);
    for (index, out) in pieces.enumerate() {
        let at = at + index * SIZE;
        for (out, row) in out.iter_mut().zip(rows) {
            out.copy_from_slice(&row[at..at + SIZE]);
        }
    }
}

/// The same for pieces of four bytes. Most weights are in them, so four pieces of four rows are turned at once, in
/// vector registers.
fn gather_fours(rows: &[&[u8]], at: usize, out: &mut [u8]) {
    let (fours, rest) = rows.as_chunks::<4>();
    let whole = if rest.is_empty() {
        out.len() / BLOCK * BLOCK
    } else {
        0
    };
    let (blocks, behind) = out.split_at_mut(whole);
    for (index, out) in blocks.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let at = at + index * 16;
        for (group, rows) in fours.iter().enumerate() {
            let [a, b, c, d] = rows.map(|row| words(&row[at..at + 16]));
            for piece in 0..4 {
                let turned = [a[piece], b[piece], c[piece], d[piece]];
                let place = (piece * PANEL_ROWS + group * 4) * 4;
                out[place..place + 16].copy_from_slice(turned.as_flattened());
            }
        }
    }
    gather::<4>(rows, at + whole / PANEL_ROWS, behind);
}

/// Bytes of four pieces of four bytes in a panel.
const BLOCK: usize = 4 * 4 * PANEL_ROWS;

#[inline(always)]
fn words(bytes: &[u8]) -> [[u8; 4]; 4] {
    let words = bytes.as_chunks::<4>().0;
    [words[0], words[1], words[2], words[3]]
}

/// Copies row `row` of the panels, counted from their first, back together.
pub(crate) fn read_row(format: WeightFormat, panels: &[u8], row: usize, out: &mut [u8]) {
    let panel = &panels[row / PANEL_ROWS * PANEL_ROWS * out.len()..];
    let row = row % PANEL_ROWS;
    for_each_piece(format, out.len(), |at, size| {
        let piece = &panel[at * PANEL_ROWS + row * size..][..size];
        out[at..at + size].copy_from_slice(piece);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::BlockFormat;

    #[test]
    fn every_row_is_found_again_in_its_panel() {
        let formats = BlockFormat::ALL.iter().copied().map(WeightFormat::from);
        for format in formats.chain([Element::BF16.into()]) {
            assert!(can_arrange(format, 512), "{format:?}");
            let row_bytes = format.bytes_of(512);
            let rows: Vec<u8> = (0..32 * row_bytes).map(|at| (at * 7 / 3) as u8).collect();
            let mut panels = rows.clone();
            arrange(format, 512, &mut panels);
            assert_ne!(rows, panels);
            for (row, expected) in rows.chunks(row_bytes).enumerate() {
                let mut found = vec![0; row_bytes];
                read_row(format, &panels, row, &mut found);
                assert_eq!(found, expected, "row {row} of {format:?}");
            }
            let mut elsewhere = vec![0; panels.len()];
            arrange_rows(format, 512, &rows, &mut elsewhere);
            assert_eq!(elsewhere, panels, "{format:?}");
            // Of 27 rows the last panel has eleven, and zeros.
            let some = &rows[..27 * row_bytes];
            let mut padded = some.to_vec();
            padded.resize(rows.len(), 0);
            arrange(format, 512, &mut padded);
            elsewhere.fill(0);
            arrange_rows(format, 512, some, &mut elsewhere);
            assert_eq!(elsewhere, padded, "{format:?}");
        }
    }
}
