//! Logits of chosen rows on the device.
#![expect(unsafe_code, reason = "launches are outside the compiler's view")]

use std::sync::Arc;

use super::HeadCase;
use crate::catalog::{Case, Cost, DeviceResult, DeviceWork};
use crate::cuda::activation::{Panels, Rows};
use crate::cuda::arena::Arena;
use crate::cuda::check::{self, Bench};
use crate::cuda::layout::{NONE, PanelLayout, ROW_STEP, TiledMatrix};
use crate::cuda::pack::{Gather, RowSource};
use crate::cuda::product::{Epilogue, Product, ProductTokens, ProductWeights};
use crate::cuda::{Device, DeviceError, DevicePointer, Stream};
use crate::element::Element;
use crate::ops::linear::cuda as linear;

/// Rows whose logits are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogitRows {
    /// u32 `[capacity]`: rows of the input; `NONE` behind the last.
    pub(crate) rows: DevicePointer,
    /// Two u32, of which the second is the number of rows.
    pub(crate) counts: DevicePointer,
    /// Rows that logits are computed for; some may be `NONE`.
    pub(crate) count: usize,
}

impl LogitRows {
    /// Length of `rows`.
    pub(crate) fn capacity(count: usize) -> usize {
        count.next_multiple_of(ROW_STEP)
    }
}

/// Queues the logits `(input * head^T) * scale` of the chosen rows, f32 `[count, vocabulary]`.
///
/// # Safety
///
/// The weights, the panels and the rows are valid.
pub(crate) unsafe fn run(
    device: &dyn Device,
    stream: Stream,
    arena: &Arena,
    input: &Panels,
    chosen: LogitRows,
    (weights, scale): (ProductWeights, f32),
) -> Result<Rows, DeviceError> {
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

/// Bytes for what a case takes of its bench's arena.
fn arena_bytes([vocabulary, hidden, tokens]: [usize; 3], count: usize) -> usize {
    4 * count * vocabulary + 16 * (tokens * hidden).next_multiple_of(128 * hidden) + (1 << 20)
}

/// Logits of all rows, with data that the device makes.
pub(super) fn made_on_device(
    device: &Arc<dyn Device>,
    [vocabulary, hidden, count]: [usize; 3],
) -> DeviceResult<'static, DeviceWork<'static>> {
    let mut bench = Bench::new(device, arena_bytes([vocabulary, hidden, count], count))?;
    let weights = bench.make_weights(TiledMatrix::new(vocabulary, hidden, Element::BF16), 1)?;
    let input = bench.make_panels([count, hidden], &[Element::BF16])?;
    let rows: Vec<u32> = (0..count as u32).collect();
    let chosen = choose(&mut bench, rows)?;
    let launch = move |bench: &Bench| {
        let (device, arena) = (&*bench.device, &bench.arena);
        let head = (weights, super::CASE_SCALE);
        // SAFETY: everything was set up above.
        unsafe { run(device, Stream::Main, arena, &input, chosen, head) }
    };
    let cost = Cost::of_product([vocabulary, hidden, count], Element::BF16);
    Ok(check::work(bench, (count, cost), launch))
}

fn choose(bench: &mut Bench, mut rows: Vec<u32>) -> Result<LogitRows, DeviceError> {
    let count = rows.len();
    rows.resize(LogitRows::capacity(count), NONE);
    Ok(LogitRows {
        rows: bench.upload(&rows)?,
        counts: bench.upload(&[0, count as u32])?,
        count,
    })
}

pub(super) fn device<'a>(
    case: &'a HeadCase,
    device: &'a Arc<dyn Device>,
) -> Option<DeviceResult<'a>> {
    let (vocabulary, hidden) = (case.weight.rows(), case.weight.columns());
    let set_up = || {
        let count = case.rows.len();
        let tokens = case.input.len() / hidden;
        let mut bench = Bench::new(device, arena_bytes([vocabulary, hidden, tokens], count))?;
        let layout = TiledMatrix::new(vocabulary, hidden, Element::BF16);
        let weights = linear::upload(&mut bench, &case.weight, layout)?;
        let input = bench.panels(&case.input, hidden, &[Element::BF16])?;
        let chosen = choose(&mut bench, case.rows.clone())?;
        let launch = move |bench: &Bench| {
            let head = (weights, super::CASE_SCALE);
            // SAFETY: everything was set up above.
            unsafe {
                run(
                    &*bench.device,
                    Stream::Main,
                    &bench.arena,
                    &input,
                    chosen,
                    head,
                )
            }
        };
        let expected = || {
            let rounded = check::rounded_bf16(&case.input);
            case.run_on(&rounded, &case.rows, |args, out| args.reference(out))
        };
        Ok(check::rows_run(
            bench,
            count,
            launch,
            expected,
            case.tolerance(),
        ))
    };
    Some(set_up())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::host::HostDevice;

    #[test]
    fn what_the_device_makes_of_logits_runs() {
        let device = HostDevice::for_tests().unwrap();
        let work = made_on_device(&device, [1000, 192, 9]).unwrap();
        assert_eq!((work.rows, work.cost.bytes), (9, 2 * 1000 * 192));
        (work.launch)().unwrap();
        (work.launch)().unwrap();
    }
}
