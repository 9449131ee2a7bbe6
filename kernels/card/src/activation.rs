//! The forms that activations take on the device.

use backstop_kernels::Element;

use super::arena::{Arena, Piece};
use super::device::DevicePointer;
use super::layout::{PanelLayout, ROW_STEP};
use super::pack::{PanelOutput, RowSource};
use super::product::ProductInput;

/// A row of panels for matrix products: BF16, E4M3 with one scale for each row, or both.
#[derive(Debug)]
pub struct Panels {
    /// Rows that there is room for.
    pub capacity: usize,
    /// Numbers of a row.
    pub columns: usize,
    bf16: Option<Piece>,
    e4m3: Option<(Piece, Piece)>,
}

impl Panels {
    /// Memory for `rows` rows in the wanted formats.
    pub fn take(arena: &Arena, rows: usize, columns: usize, formats: &[Element]) -> Self {
        Self::with_capacity(arena, rows.next_multiple_of(ROW_STEP), columns, formats)
    }

    /// Memory for `capacity` rows in the wanted formats.
    pub fn with_capacity(
        arena: &Arena,
        capacity: usize,
        columns: usize,
        formats: &[Element],
    ) -> Self {
        let piece = |element| {
            let layout = PanelLayout {
                capacity,
                columns,
                element,
            };
            formats
                .contains(&element)
                .then(|| arena.take(layout.bytes()))
        };
        Self {
            capacity,
            columns,
            bf16: piece(Element::BF16),
            e4m3: piece(Element::F8E4M3).map(|panels| (panels, arena.take(capacity * 4))),
        }
    }

    /// Where whoever fills the panels writes.
    pub fn output(&self) -> PanelOutput {
        let (e4m3, scales) = self
            .e4m3
            .as_ref()
            .map_or_else(Default::default, |(panels, scales)| {
                (panels.pointer(), scales.pointer())
            });
        PanelOutput {
            bf16: self.bf16.as_ref().map(Piece::pointer).unwrap_or_default(),
            e4m3,
            scales,
            capacity: self.capacity,
        }
    }

    /// The panels in the format that a product with weights of `element` takes.
    ///
    /// # Panics
    ///
    /// If they were not wanted in that format.
    pub fn input(&self, element: Element) -> ProductInput {
        let output = self.output();
        let (panels, scales) = match element {
            Element::F8E4M3 => (output.e4m3, output.scales),
            _ => (output.bf16, DevicePointer::NULL),
        };
        assert!(panels != DevicePointer::NULL, "no panels of {element:?}");
        ProductInput {
            panels,
            scales,
            capacity: self.capacity,
        }
    }
}

/// Rows that a kernel left for whoever reads them next.
#[derive(Debug)]
pub struct Rows {
    /// What and where they are.
    pub source: RowSource,
    /// Numbers of a row.
    pub columns: usize,
    /// The memory behind `source`.
    pub memory: Vec<Piece>,
}
