//! `input * weight^T` on the device.

use crate::activation::{Panels, Rows};
use crate::arena::Arena;
use crate::pack::RowSource;
use crate::product::{self, Epilogue, Product, ProductTokens, ProductWeights};
use crate::{Device, DeviceError, Stream};

/// Queues `input * weight^T + bias` of the first `tokens` rows. The result stands for BF16 numbers; for
/// few tokens it is left as f32 parts, which whoever reads them adds up.
///
/// # Safety
///
/// The weights and the panels are valid.
pub unsafe fn run(
    device: &dyn Device,
    stream: Stream,
    arena: &Arena,
    input: &Panels,
    tokens: usize,
    weights: ProductWeights,
) -> Result<Rows, DeviceError> {
    let columns = weights.matrix.rows;
    let parts = product::parts(&weights.matrix, tokens);
    let (epilogue, bytes) = if parts > 1 {
        (Epilogue::Parts, parts * tokens * columns * 4)
    } else {
        (Epilogue::Bf16, tokens * columns * 2)
    };
    let output = arena.take(bytes);
    let values = output.pointer();
    let product = Product {
        weights,
        input: input.input(weights.matrix.element),
        tokens: ProductTokens::All(tokens),
        epilogue,
        parts,
        output: values,
        scale: 1.0,
    };
    // SAFETY: the caller's promise; the output has room for all rows.
    unsafe { product.launch(device, stream)? };
    let source = if parts > 1 {
        RowSource::Parts {
            values,
            parts,
            part_rows: tokens,
            rounded: true,
        }
    } else {
        RowSource::Bf16 { values }
    };
    Ok(Rows {
        source,
        columns,
        memory: vec![output],
    })
}
