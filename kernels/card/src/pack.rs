//! Rows into panels, the form in which matrix products take them: BF16, or E4M3 with a scale for
//! each row. Launches of `kernels/cuda/quantise.cu`.

use backstop_kernels::Element;

use super::device::{Device, DeviceError, DevicePointer, Grid, KernelArgs, Stream};
use super::layout::{PANEL_BYTES, PanelLayout, ROW_STEP};

/// Rows of f32 or BF16 numbers, in one of the forms in which kernels leave their results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowSource {
    /// Nothing: all zero.
    None,
    /// f32 `[parts][part_rows][columns]`, to be summed in order.
    Parts {
        /// The numbers.
        values: DevicePointer,
        /// How many parts, at least one.
        parts: usize,
        /// Rows of each part.
        part_rows: usize,
        /// The sums stand for their nearest BF16.
        rounded: bool,
    },
    /// BF16 `[rows][columns]`.
    Bf16 {
        /// The numbers.
        values: DevicePointer,
    },
    /// Weighted sums of the experts of each row, in the order of their ranks.
    Routed {
        /// BF16 `[pairs][columns]`: what the experts computed.
        values: DevicePointer,
        /// u32 `[rows][top_k]`: where among the pairs, or `NONE`.
        pair_of_slot: DevicePointer,
        /// f32 `[rows][top_k]`.
        weights: DevicePointer,
        /// Experts of a row.
        top_k: usize,
    },
}

impl RowSource {
    /// f32 `[rows][columns]`.
    pub fn f32(values: DevicePointer) -> Self {
        Self::Parts {
            values,
            parts: 1,
            part_rows: 0,
            rounded: false,
        }
    }

    /// As kernels take it.
    pub fn args(self) -> RowSourceArgs {
        let none = RowSourceArgs::default();
        match self {
            Self::None => none,
            Self::Parts {
                values,
                parts,
                part_rows,
                rounded,
            } => {
                assert!(parts >= 1, "at least one part");
                RowSourceArgs {
                    values,
                    kind: 1,
                    parts: int(parts),
                    part_rows: int(part_rows),
                    rounded: i32::from(rounded),
                    ..none
                }
            }
            Self::Bf16 { values } => RowSourceArgs {
                values,
                kind: 2,
                ..none
            },
            Self::Routed {
                values,
                pair_of_slot,
                weights,
                top_k,
            } => RowSourceArgs {
                values,
                pair_of_slot,
                weights,
                kind: 3,
                top_k: int(top_k),
                ..none
            },
        }
    }
}

/// A size as kernels take it.
pub fn int(size: usize) -> i32 {
    i32::try_from(size).expect("sizes of kernels fit 31 bits")
}

/// `RowSource` of `rows.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct RowSourceArgs {
    values: DevicePointer,
    pair_of_slot: DevicePointer,
    weights: DevicePointer,
    kind: i32,
    parts: i32,
    part_rows: i32,
    rounded: i32,
    top_k: i32,
    unused: i32,
}

const _: () = assert!(size_of::<RowSourceArgs>() == 48);

/// Where rows go as inputs of matrix products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PanelOutput {
    /// BF16 panels, unless null.
    pub bf16: DevicePointer,
    /// E4M3 panels, unless null.
    pub e4m3: DevicePointer,
    /// f32 `[capacity]`, wanted with E4M3.
    pub scales: DevicePointer,
    /// Rows of each panel, a multiple of [`ROW_STEP`].
    pub capacity: usize,
}

impl PanelOutput {
    /// Checks that `rows` rows fit.
    pub fn args(self, rows: usize) -> PanelOutputArgs {
        let quantises = self.e4m3 != DevicePointer::NULL;
        assert!(
            quantises || self.bf16 != DevicePointer::NULL,
            "panels of one kind at least"
        );
        assert!(
            !quantises || self.scales != DevicePointer::NULL,
            "E4M3 panels have scales"
        );
        assert!(self.capacity.is_multiple_of(ROW_STEP), "row capacity");
        assert!(rows <= self.capacity, "{rows} rows in {}", self.capacity);
        PanelOutputArgs {
            bf16: self.bf16,
            e4m3: self.e4m3,
            scales: self.scales,
            capacity: int(self.capacity),
            unused: 0,
        }
    }
}

/// `PanelOutput` of `rows.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PanelOutputArgs {
    bf16: DevicePointer,
    e4m3: DevicePointer,
    scales: DevicePointer,
    capacity: i32,
    unused: i32,
}

const _: () = assert!(size_of::<PanelOutputArgs>() == 32);

/// Rows on their way into panels.
#[derive(Clone, Copy, Debug)]
pub struct Pack {
    /// Where they come from.
    pub source: RowSource,
    /// u32 `[rows]`, unless null: rows for which this is `NONE` are left alone.
    pub token_of_row: DevicePointer,
    /// Where they go.
    pub out: PanelOutput,
    /// How many.
    pub rows: usize,
    /// Numbers of a row.
    pub columns: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct PackArgs {
    source: RowSourceArgs,
    token_of_row: DevicePointer,
    out: PanelOutputArgs,
    rows: i32,
    columns: i32,
}

const _: () = assert!(size_of::<PackArgs>() == 96);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for PackArgs {}

const PACK_THREADS: usize = 128;

impl Pack {
    /// Queues it.
    ///
    /// # Safety
    ///
    /// All pointers are null or valid for the sizes given.
    pub unsafe fn launch(&self, device: &dyn Device, stream: Stream) -> Result<(), DeviceError> {
        if self.rows == 0 {
            return Ok(());
        }
        let args = PackArgs {
            source: self.source.args(),
            token_of_row: self.token_of_row,
            out: self.out.args(self.rows),
            rows: int(self.rows),
            columns: int(self.columns),
        };
        let grid = Grid::line(self.rows.div_ceil(PACK_THREADS / 32), PACK_THREADS as u32);
        // SAFETY: the caller's promise; the struct is the kernel's.
        unsafe { device.launch(stream, "pack", grid, &args) }
    }
}

/// Copies rows of panels into other places, see [`Gather::launch`].
#[derive(Clone, Copy, Debug)]
pub struct Gather {
    /// Panels to copy from.
    pub source: DevicePointer,
    /// f32 `[source_capacity]`, or null if the rows have no scales.
    pub source_scales: DevicePointer,
    /// Rows of each panel of the source.
    pub source_capacity: usize,
    /// u32 `[pairs.capacity]`: row of the source for each row, or `NONE`.
    pub token_of_pair: DevicePointer,
    /// Two u32: the number of tiles, and the end of the pairs.
    pub counts: DevicePointer,
    /// Panels to copy to.
    pub out: DevicePointer,
    /// f32 `[pairs.capacity]`, if the source has scales.
    pub scales: DevicePointer,
    /// Layout of the copy.
    pub pairs: PanelLayout,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct GatherArgs {
    source: DevicePointer,
    source_scales: DevicePointer,
    token_of_pair: DevicePointer,
    counts: DevicePointer,
    out: DevicePointer,
    scales: DevicePointer,
    source_capacity: i32,
    capacity: i32,
    panels: i32,
    unused: i32,
}

const _: () = assert!(size_of::<GatherArgs>() == 64);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for GatherArgs {}

const GATHER_THREADS: usize = 256;
const GATHER_ROWS: usize = GATHER_THREADS / (PANEL_BYTES / 16);
const GATHER_PANELS: usize = 4;

impl Gather {
    /// Queues the copy. Rows without a source up to 128 behind the end of the pairs become zero,
    /// rows further behind are left alone.
    ///
    /// # Safety
    ///
    /// All pointers are null or valid for the sizes given.
    pub unsafe fn launch(&self, device: &dyn Device, stream: Stream) -> Result<(), DeviceError> {
        let panels = self.pairs.panels();
        assert!(self.pairs.element != Element::F32, "panels of 8 or 16 bits");
        assert!(
            self.pairs.capacity.is_multiple_of(ROW_STEP)
                && self.source_capacity.is_multiple_of(ROW_STEP),
            "row capacities"
        );
        let args = GatherArgs {
            source: self.source,
            source_scales: self.source_scales,
            token_of_pair: self.token_of_pair,
            counts: self.counts,
            out: self.out,
            scales: self.scales,
            source_capacity: int(self.source_capacity),
            capacity: int(self.pairs.capacity),
            panels: int(panels),
            unused: 0,
        };
        let blocks = [
            self.pairs.capacity / GATHER_ROWS,
            panels.div_ceil(GATHER_PANELS),
            1,
        ];
        let grid = Grid::new(blocks, GATHER_THREADS as u32);
        // SAFETY: the caller's promise; the struct is the kernel's.
        unsafe { device.launch(stream, "gather", grid, &args) }
    }
}
