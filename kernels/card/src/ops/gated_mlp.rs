//! The gated feed-forward block on the device.

use backstop_kernels::Element;

use crate::activation::{Panels, Rows};
use crate::arena::Arena;
use crate::ops::linear;
use crate::product::{Epilogue, Product, ProductTokens, ProductWeights};
use crate::{Device, DeviceError, Stream};

/// Gate and up, then down.
#[derive(Clone, Copy, Debug)]
pub struct GatedMlpWeights {
    /// Gate and up.
    pub gate_up: ProductWeights,
    /// The way back.
    pub down: ProductWeights,
}

/// Queues `down(silu(gate(x)) * up(x))` of the first `tokens` rows; the result is like that of
/// [`linear::run`].
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
