//! The same on a device.

use std::sync::Arc;

use backstop_card::layout::TiledMatrix;
use backstop_card::ops::gated_mlp::{GatedMlpWeights, run};
use backstop_card::{Device, Stream};
use backstop_kernels::Element;

use super::GatedMlpCase;
use crate::bench::{self, Bench};
use crate::catalog::{Case, DeviceResult, Tolerance};
use crate::ops::linear;

pub(super) fn device<'a>(
    case: &'a GatedMlpCase,
    device: &'a Arc<dyn Device>,
) -> Option<DeviceResult<'a>> {
    let (hidden, width) = (case.down.rows(), case.down.columns());
    let even = hidden.is_multiple_of(2) && width.is_multiple_of(2);
    let supported = case.down.view().element() == Element::BF16 && even;
    let set_up = || {
        let rows = case.rows();
        let numbers = rows.next_multiple_of(128) * (12 * hidden + 4 * width);
        let mut bench = Bench::new(device, numbers * 4 + (1 << 20))?;
        let gate_up = TiledMatrix::gate_up(width, hidden, Element::BF16);
        let down = TiledMatrix::new(hidden, width, Element::BF16);
        let weights = GatedMlpWeights {
            gate_up: linear::upload(&mut bench, &case.gate_up, gate_up)?,
            down: linear::upload(&mut bench, &case.down, down)?,
        };
        let input = bench.panels(&case.input, hidden, &[Element::BF16])?;
        let launch = move |bench: &Bench| {
            // SAFETY: everything was set up above.
            unsafe {
                run(
                    &*bench.device,
                    Stream::Main,
                    &bench.arena,
                    &input,
                    rows,
                    &weights,
                )
            }
        };
        let expected = || {
            let rounded = bench::rounded_bf16(&case.input);
            case.run(&rounded, super::reference)
        };
        // The intermediate activation is rounded to BF16 as well.
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
