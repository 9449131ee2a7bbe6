//! Logits of chosen rows on the device.

use backstop_kernels::Element;

use crate::activation::{Panels, Rows};
use crate::arena::Arena;
use crate::layout::{PanelLayout, ROW_STEP};
use crate::pack::{Gather, RowSource};
use crate::product::{Epilogue, Product, ProductTokens, ProductWeights};
use crate::{Device, DeviceError, DevicePointer, Stream};

/// Rows whose logits are wanted.
#[derive(Clone, Copy, Debug)]
pub struct LogitRows {
    /// u32 `[capacity]`: rows of the input; `NONE` behind the last.
    pub rows: DevicePointer,
    /// Two u32, of which the second is the number of rows.
    pub counts: DevicePointer,
    /// Rows that logits are computed for; some may be `NONE`.
    pub count: usize,
}

impl LogitRows {
    /// Length of `rows`.
    pub fn capacity(count: usize) -> usize {
        count.next_multiple_of(ROW_STEP)
    }
}

/// What makes logits of hidden states.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// `[vocabulary, hidden]`.
    pub weights: ProductWeights,
    /// Factor on the logits.
    pub scale: f32,
}

/// Queues the logits `(input * head^T) * scale` of the chosen rows, f32 `[count, vocabulary]`.
///
/// # Safety
///
/// The weights, the panels and the rows are valid.
pub unsafe fn run(
    device: &dyn Device,
    stream: Stream,
    arena: &Arena,
    input: &Panels,
    chosen: LogitRows,
    head: Head,
) -> Result<Rows, DeviceError> {
    let Head { weights, scale } = head;
    let matrix = weights.matrix;
    let gathered = Panels::take(arena, chosen.count, matrix.columns, &[Element::BF16]);
    let output = arena.take(chosen.count * matrix.rows * 4);
    let gather = Gather {
        source: input.input(Element::BF16).panels,
        source_scales: DevicePointer::NULL,
        source_capacity: input.capacity,
        token_of_pair: chosen.rows,
        counts: chosen.counts,
        out: gathered.output().bf16,
        scales: DevicePointer::NULL,
        pairs: PanelLayout {
            capacity: gathered.capacity,
            columns: matrix.columns,
            element: Element::BF16,
        },
    };
    let product = Product {
        weights,
        input: gathered.input(Element::BF16),
        tokens: ProductTokens::All(chosen.count),
        epilogue: Epilogue::Parts,
        parts: 1,
        output: output.pointer(),
        scale,
    };
    if chosen.count > 0 {
        // SAFETY: the caller's promise; both outputs have room for all rows.
        unsafe {
            gather.launch(device, stream)?;
            product.launch(device, stream)?;
        }
    }
    Ok(Rows {
        source: RowSource::f32(output.pointer()),
        columns: matrix.rows,
        memory: vec![output],
    })
}
