//! `input * weight^T` on the device.
#![expect(unsafe_code, reason = "launches are outside the compiler's view")]

use std::sync::Arc;

use super::LinearCase;
use crate::catalog::{Case, Cost, DeviceResult, DeviceWork, Tolerance};
use crate::cpu::CpuMatrix;
use crate::cuda::activation::{Panels, Rows};
use crate::cuda::arena::Arena;
use crate::cuda::check::{self, Bench};
use crate::cuda::layout::TiledMatrix;
use crate::cuda::pack::RowSource;
use crate::cuda::product::{self, Epilogue, Product, ProductTokens, ProductWeights};
use crate::cuda::{Device, DeviceError, DevicePointer, Stream};
use crate::element::Element;

/// Queues `input * weight^T + bias` of the first `tokens` rows. The result stands for BF16 numbers; for
/// few tokens it is left as f32 parts, which whoever reads them adds up.
///
/// # Safety
///
/// The weights and the panels are valid.
pub(crate) unsafe fn run(
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

/// A BF16 matrix as products take it.
pub(crate) fn upload(
    bench: &mut Bench,
    matrix: &CpuMatrix,
    layout: TiledMatrix,
) -> Result<ProductWeights, DeviceError> {
    Ok(ProductWeights {
        data: bench.upload(&layout.pack(&matrix.view().bytes()))?,
        scales: DevicePointer::NULL,
        bias: DevicePointer::NULL,
        matrix: layout,
    })
}

/// Bytes for what a case takes of its bench's arena.
fn arena_bytes([outputs, inputs, rows]: [usize; 3]) -> usize {
    (8 * outputs * rows + 4 * inputs * rows + (1 << 20)) * 4
}

/// A product of BF16 weights, with data that the device makes.
pub(super) fn made_on_device(
    device: &Arc<dyn Device>,
    (outputs, inputs, rows): (usize, usize, usize),
) -> DeviceResult<'static, DeviceWork<'static>> {
    let mut bench = Bench::new(device, arena_bytes([outputs, inputs, rows]))?;
    let layout = TiledMatrix::new(outputs, inputs, Element::BF16);
    let weights = bench.make_weights(layout, 1)?;
    let input = bench.make_panels([rows, inputs], &[Element::BF16])?;
    let launch = move |bench: &Bench| {
        let (device, arena) = (&*bench.device, &bench.arena);
        // SAFETY: everything was set up above.
        unsafe { run(device, Stream::Main, arena, &input, rows, weights) }
    };
    let cost = Cost::of_product([outputs, inputs, rows], Element::BF16);
    Ok(check::work(bench, (rows, cost), launch))
}

/// The device computes with BF16 weights and writes words of two columns.
pub(super) fn device<'a>(
    case: &'a LinearCase,
    device: &'a Arc<dyn Device>,
) -> Option<DeviceResult<'a>> {
    let (outputs, inputs) = (case.weight.rows(), case.weight.columns());
    let supported = case.weight.view().element() == Element::BF16 && outputs.is_multiple_of(2);
    let set_up = || {
        let rows = case.rows();
        let mut bench = Bench::new(device, arena_bytes([outputs, inputs, rows]))?;
        let layout = TiledMatrix::new(outputs, inputs, Element::BF16);
        let mut weights = upload(&mut bench, &case.weight, layout)?;
        if let Some(bias) = &case.bias {
            weights.bias = bench.upload(bias)?;
        }
        let input = bench.panels(&case.input, inputs, &[Element::BF16])?;
        let launch = move |bench: &Bench| {
            // SAFETY: everything was set up above.
            unsafe {
                run(
                    &*bench.device,
                    Stream::Main,
                    &bench.arena,
                    &input,
                    rows,
                    weights,
                )
            }
        };
        let expected = || {
            let rounded = check::rounded_bf16(&case.input);
            case.run(&rounded, |args, out| args.reference(out))
        };
        Ok(check::rows_run(
            bench,
            rows,
            launch,
            expected,
            Tolerance::BF16,
        ))
    };
    supported.then(set_up)
}
