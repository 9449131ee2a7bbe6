//! How matrices lie in the device's memory: the host's side of `kernels/cuda/layout.cuh`.

use backstop_kernels::Element;
use rayon::prelude::{IndexedParallelIterator, ParallelIterator, ParallelSliceMut};

/// Bytes of one row in a panel.
pub const PANEL_BYTES: usize = 128;
/// Rows of a tile of weights.
pub const TILE_ROWS: usize = 64;
/// Row capacities of activations are multiples of this.
pub const ROW_STEP: usize = 128;
/// What stands for no row, token, expert or slot.
pub const NONE: u32 = u32::MAX;

/// Panels that rows of this many numbers take.
pub fn panels(columns: usize, element: Element) -> usize {
    (columns * element.bytes()).div_ceil(PANEL_BYTES)
}

/// Place within a panel of a byte of a row: 16-byte chunks are swizzled by the row's number.
fn swizzled(row: usize, byte_column: usize) -> usize {
    let (chunk, byte) = (byte_column % PANEL_BYTES / 16, byte_column % 16);
    (chunk ^ (row % 8)) * 16 + byte
}

/// An activation in panels: `[panel][row capacity][128 bytes]`, columns zero-padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PanelLayout {
    /// Rows that there is room for, a multiple of [`ROW_STEP`].
    pub capacity: usize,
    /// Numbers of a row.
    pub columns: usize,
    /// BF16 or E4M3.
    pub element: Element,
}

impl PanelLayout {
    /// The smallest layout with room for `rows` rows.
    pub fn for_rows(rows: usize, columns: usize, element: Element) -> Self {
        let capacity = rows.max(1).next_multiple_of(ROW_STEP);
        Self {
            capacity,
            columns,
            element,
        }
    }

    /// Panels of a row.
    pub fn panels(&self) -> usize {
        panels(self.columns, self.element)
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.panels() * self.capacity * PANEL_BYTES
    }

    /// Where a number lies.
    pub fn offset(&self, row: usize, column: usize) -> usize {
        let byte_column = column * self.element.bytes();
        let line = byte_column / PANEL_BYTES * self.capacity + row;
        line * PANEL_BYTES + swizzled(row, byte_column)
    }

    /// Rounds row-major values into panels, all else zero.
    pub fn pack(&self, values: &[f32]) -> Vec<u8> {
        let mut out = vec![0; self.bytes()];
        for (index, &value) in values.iter().enumerate() {
            let offset = self.offset(index / self.columns, index % self.columns);
            self.element.write(&mut out[offset..], 0, value);
        }
        out
    }

    /// The first `rows` rows, row-major.
    pub fn unpack(&self, bytes: &[u8], rows: usize) -> Vec<f32> {
        let places = (0..rows).flat_map(|row| (0..self.columns).map(move |column| (row, column)));
        places
            .map(|(row, column)| self.element.read(&bytes[self.offset(row, column)..], 0))
            .collect()
    }
}

/// A weight matrix in tiles: `[tile of 64 rows][panel][64][128 bytes]`, zero-padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TiledMatrix {
    /// Rows in the checkpoint, outputs of the product. Of gate-and-up matrices both kinds count.
    pub rows: usize,
    /// Columns in the checkpoint, inputs of the product.
    pub columns: usize,
    /// BF16 or E4M3.
    pub element: Element,
    /// Half the rows are gate rows, then come as many up rows. In memory, groups of 16 rows hold
    /// the gate rows of 8 intermediate elements and then their up rows.
    pub gate_up: bool,
}

impl TiledMatrix {
    /// An ordinary matrix.
    pub fn new(rows: usize, columns: usize, element: Element) -> Self {
        Self {
            rows,
            columns,
            element,
            gate_up: false,
        }
    }

    /// A matrix of `width` gate rows and `width` up rows.
    pub fn gate_up(width: usize, columns: usize, element: Element) -> Self {
        Self {
            rows: 2 * width,
            columns,
            element,
            gate_up: true,
        }
    }

    /// Intermediate elements of a gate-and-up matrix.
    pub fn width(&self) -> usize {
        assert!(self.gate_up && self.rows.is_multiple_of(2), "gate and up");
        self.rows / 2
    }

    /// Panels of a row.
    pub fn panels(&self) -> usize {
        panels(self.columns, self.element)
    }

    /// Rows in memory, a multiple of [`TILE_ROWS`].
    pub fn padded_rows(&self) -> usize {
        let rows = if self.gate_up {
            2 * self.width().next_multiple_of(8)
        } else {
            self.rows
        };
        rows.next_multiple_of(TILE_ROWS)
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.padded_rows() * self.panels() * PANEL_BYTES
    }

    /// Bytes of the checkpoint's matrix.
    pub fn source_bytes(&self) -> usize {
        self.rows * self.columns * self.element.bytes()
    }

    /// Row in memory of a row of the checkpoint.
    pub fn place_of_row(&self, row: usize) -> usize {
        if !self.gate_up {
            return row;
        }
        let (up, element) = (row / self.width(), row % self.width());
        element / 8 * 16 + up * 8 + element % 8
    }

    /// Row of the checkpoint that lies in a row in memory, unless that is padding.
    pub fn row_of_place(&self, place: usize) -> Option<usize> {
        if !self.gate_up {
            return (place < self.rows).then_some(place);
        }
        let element = place / 16 * 8 + place % 8;
        (element < self.width()).then_some(place % 16 / 8 * self.width() + element)
    }

    /// Where a number lies, given its row and column in the checkpoint.
    pub fn offset(&self, row: usize, column: usize) -> usize {
        let place = self.place_of_row(row);
        let byte_column = column * self.element.bytes();
        let piece = place / TILE_ROWS * self.panels() + byte_column / PANEL_BYTES;
        (piece * TILE_ROWS + place % TILE_ROWS) * PANEL_BYTES + swizzled(place, byte_column)
    }

    /// The matrix in memory order, from the checkpoint's row-major bytes.
    pub fn pack(&self, source: &[u8]) -> Vec<u8> {
        assert_eq!(
            source.len(),
            self.source_bytes(),
            "bytes of a weight matrix"
        );
        let mut out = vec![0; self.bytes()];
        let row_bytes = self.columns * self.element.bytes();
        let tiles = out.par_chunks_exact_mut(TILE_ROWS * self.panels() * PANEL_BYTES);
        tiles.enumerate().for_each(|(tile, out)| {
            for place in 0..TILE_ROWS {
                let Some(row) = self.row_of_place(tile * TILE_ROWS + place) else {
                    continue;
                };
                let chunks = source[row * row_bytes..][..row_bytes].chunks(16);
                for (byte_column, chunk) in (0..).step_by(16).zip(chunks) {
                    let line = byte_column / PANEL_BYTES * TILE_ROWS + place;
                    let offset = line * PANEL_BYTES + swizzled(place, byte_column);
                    out[offset..][..chunk.len()].copy_from_slice(chunk);
                }
            }
        });
        out
    }

    /// One scale for each row in memory, from one for each row of the checkpoint; padding is zero.
    pub fn pack_scales(&self, scales: &[f32]) -> Vec<f32> {
        assert_eq!(scales.len(), self.rows, "scales of a weight matrix");
        let mut out = vec![0.0; self.padded_rows()];
        for (row, &scale) in scales.iter().enumerate() {
            out[self.place_of_row(row)] = scale;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_consecutive_streams_of_swizzled_panels() {
        let matrix = TiledMatrix::new(70, 130, Element::BF16);
        assert_eq!((matrix.padded_rows(), matrix.panels()), (128, 3));
        assert_eq!(matrix.bytes(), 128 * 3 * 128);
        assert_eq!(matrix.offset(0, 0), 0);
        assert_eq!(matrix.offset(3, 9), 3 * 128 + (1 ^ 3) * 16 + 2);
        assert_eq!(matrix.offset(0, 64), 64 * 128);
        assert_eq!(matrix.offset(64, 0), 3 * 64 * 128);
    }

    #[test]
    fn gate_and_up_rows_of_eight_elements_stand_together() {
        let matrix = TiledMatrix::gate_up(10, 16, Element::F8E4M3);
        assert_eq!(matrix.padded_rows(), 64);
        let places = [0, 7, 8, 9, 10, 17, 18].map(|row| matrix.place_of_row(row));
        assert_eq!(places, [0, 7, 16, 17, 8, 15, 24]);
        for place in 0..matrix.padded_rows() {
            if let Some(row) = matrix.row_of_place(place) {
                assert_eq!(matrix.place_of_row(row), place);
            }
        }
        let real = (0..64).filter_map(|place| matrix.row_of_place(place));
        assert_eq!(real.count(), 20);
    }

    #[test]
    fn every_byte_of_a_matrix_has_a_place_of_its_own() {
        for matrix in [
            TiledMatrix::new(65, 200, Element::F8E4M3),
            TiledMatrix::gate_up(37, 70, Element::BF16),
        ] {
            let source = vec![0xa5; matrix.source_bytes()];
            let packed = matrix.pack(&source);
            let written = packed.iter().filter(|&&byte| byte == 0xa5).count();
            assert_eq!(written, source.len());
            for (row, column) in [(0, 0), (7, 8), (64, 69), (36, 17)] {
                let mut source = vec![0; matrix.source_bytes()];
                let byte = (row * matrix.columns + column) * matrix.element.bytes();
                source[byte] = 1;
                let place = matrix.pack(&source).iter().position(|&byte| byte == 1);
                assert_eq!(place, Some(matrix.offset(row, column)));
            }
            let scales = matrix.pack_scales(&vec![2.0; matrix.rows]);
            assert_eq!(scales.iter().sum::<f32>(), 2.0 * matrix.rows as f32);
        }
    }

    #[test]
    fn panels_give_back_what_was_packed() {
        for element in [Element::BF16, Element::F8E4M3] {
            let layout = PanelLayout::for_rows(9, 150, element);
            let values: Vec<f32> = (0..9 * 150).map(|index| (index % 13) as f32).collect();
            assert_eq!(layout.unpack(&layout.pack(&values), 9), values);
        }
    }
}
