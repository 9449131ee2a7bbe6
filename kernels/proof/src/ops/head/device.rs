//! The same on a device.

use std::sync::Arc;

use backstop_card::layout::{NONE, TiledMatrix};
use backstop_card::ops::head::{Head, LogitRows, run};
use backstop_card::{Device, DeviceError, Stream};
use backstop_kernels::Element;

use super::HeadCase;
use crate::bench::{self, Bench};
use crate::catalog::{Case, Cost, DeviceResult, DeviceWork};
use crate::ops::linear;

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
        let head = Head {
            weights,
            scale: super::CASE_SCALE,
        };
        // SAFETY: everything was set up above.
        unsafe { run(device, Stream::Main, arena, &input, chosen, head) }
    };
    let cost = Cost::of_product([vocabulary, hidden, count], Element::BF16);
    Ok(bench::work(bench, count, cost, launch))
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
            let head = Head {
                weights,
                scale: super::CASE_SCALE,
            };
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
            let rounded = bench::rounded_bf16(&case.input);
            case.run_on(&rounded, &case.rows, super::reference)
        };
        Ok(bench::rows_run(
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
    use crate::host::HostDevice;

    #[test]
    fn what_the_device_makes_of_logits_runs() {
        let device = HostDevice::for_tests().unwrap();
        let work = made_on_device(&device, [1000, 192, 9]).unwrap();
        assert_eq!((work.rows, work.cost.bytes), (9, 2 * 1000 * 192));
        (work.launch)().unwrap();
        (work.launch)().unwrap();
    }
}
