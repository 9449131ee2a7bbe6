//! The same on a device.

use std::sync::Arc;

use backstop_card::layout::TiledMatrix;
use backstop_card::ops::linear::run;
use backstop_card::product::ProductWeights;
use backstop_card::{Device, DeviceError, DevicePointer, Stream};
use backstop_kernels::{CpuMatrix, Element};

use super::LinearCase;
use crate::bench::{self, Bench};
use crate::catalog::{Case, Cost, DeviceResult, DeviceWork, Tolerance};

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
    Ok(bench::work(bench, rows, cost, launch))
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
            let rounded = bench::rounded_bf16(&case.input);
            case.run(&rounded, super::reference)
        };
        Ok(bench::rows_run(
            bench,
            rows,
            launch,
            expected,
            Tolerance::BF16,
        ))
    };
    supported.then(set_up)
}
