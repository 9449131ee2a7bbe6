//! The gated feed-forward block on the device.
#![expect(unsafe_code, reason = "launches are outside the compiler's view")]

use std::sync::Arc;

use super::GatedMlpCase;
use crate::catalog::{Case, DeviceResult, Tolerance};
use crate::cuda::activation::{Panels, Rows};
use crate::cuda::arena::Arena;
use crate::cuda::check::{self, Bench};
use crate::cuda::layout::TiledMatrix;
use crate::cuda::product::{Epilogue, Product, ProductTokens, ProductWeights};
use crate::cuda::{Device, DeviceError, Stream};
use crate::element::Element;
use crate::ops::linear::cuda as linear;

/// Gate and up, then down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GatedMlpWeights {
    pub(crate) gate_up: ProductWeights,
    pub(crate) down: ProductWeights,
}

/// Queues `down(silu(gate(x)) * up(x))` of the first `tokens` rows; the result is like that of
/// [`linear::run`].
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
    weights: &GatedMlpWeights,
) -> Result<Rows, DeviceError> {
    let GatedMlpWeights { gate_up, down } = *weights;
    let width = gate_up.matrix.width();
    let inner = Panels::with_capacity(arena, input.capacity, width, &[Element::BF16]);
    let product = Product {
        weights: gate_up,
        input: input.input(Element::BF16),
        tokens: ProductTokens::All(tokens),
        epilogue: Epilogue::SwigluPanels,
        parts: 1,
        output: inner.output().bf16,
        scale: 1.0,
    };
    // SAFETY: the caller's promise; both panels have the same capacity.
    unsafe {
        product.launch(device, stream)?;
        linear::run(device, stream, arena, &inner, tokens, down)
    }
}

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
            let rounded = check::rounded_bf16(&case.input);
            case.run(&rounded, |args, out| args.reference(out))
        };
        // The intermediate activation is rounded to BF16 as well.
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
