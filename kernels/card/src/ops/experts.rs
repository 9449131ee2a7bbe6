//! Routed experts on the device: pairs of token and expert sorted by expert, two grouped products
//! with SwiGLU between them. The weighted sum of each token's experts is left to whoever reads the
//! result.

use backstop_kernels::Element;

use crate::activation::{Panels, Rows};
use crate::arena::{Arena, Piece};
use crate::group::{GroupMemory, Grouping};
use crate::layout::PanelLayout;
use crate::pack::{Gather, Pack, RowSource};
use crate::product::{self, Epilogue, Product, ProductTokens, ProductWeights};
use crate::{Device, DeviceError, DevicePointer, Stream};

/// The experts of a layer.
#[derive(Clone, Copy, Debug)]
pub struct DeviceExperts {
    /// How many there are.
    pub num_experts: usize,
    /// All experts' gate and up, one after the other.
    pub gate_up: ProductWeights,
    /// All experts' way back.
    pub down: ProductWeights,
}

/// Chosen experts and their weights, `[rows, top_k]` each.
#[derive(Clone, Copy, Debug)]
pub struct DeviceRouting {
    /// u32 `[tokens, top_k]`.
    pub experts: DevicePointer,
    /// f32 `[tokens, top_k]`.
    pub weights: DevicePointer,
    /// Experts of a token.
    pub top_k: usize,
}

/// Where and how the work of a layer is done.
#[derive(Clone, Copy)]
pub struct Queue<'a> {
    /// The device.
    pub device: &'a dyn Device,
    /// In whose order the work is queued.
    pub stream: Stream,
    /// Where outputs and what lies between find memory.
    pub arena: &'a Arena,
}

/// Pairs sorted by expert, on the device.
struct Pairs {
    grouping: Grouping,
    pair_of_slot: Piece,
    token_of_pair: Piece,
    tiles: Piece,
    counts: Piece,
}

impl Pairs {
    unsafe fn sort(
        queue: Queue<'_>,
        rows: usize,
        num_experts: usize,
        routing: DeviceRouting,
    ) -> Result<Self, DeviceError> {
        let slots = rows * routing.top_k;
        let grouping = Grouping {
            rows,
            top_k: routing.top_k,
            experts: num_experts,
            tile_width: product::grouped_token_tile(slots, num_experts),
        };
        let arena = queue.arena;
        let pairs = Self {
            pair_of_slot: arena.take(slots * 4),
            token_of_pair: arena.take(grouping.pair_capacity() * 4),
            tiles: arena.take(grouping.tile_capacity() * 16),
            counts: arena.take(8),
            grouping,
        };
        let scratch = arena.take(grouping.scratch_bytes());
        let memory = GroupMemory {
            experts: routing.experts,
            pair_of_slot: pairs.pair_of_slot.pointer(),
            token_of_pair: pairs.token_of_pair.pointer(),
            tiles: pairs.tiles.pointer(),
            counts: pairs.counts.pointer(),
            scratch: scratch.pointer(),
        };
        // SAFETY: the memory was taken in the sizes that the sort wants.
        unsafe { grouping.launch(queue.device, queue.stream, &memory)? };
        Ok(pairs)
    }

    fn tokens(&self) -> ProductTokens {
        ProductTokens::Grouped {
            tiles: self.tiles.pointer(),
            num_tiles: self.counts.pointer(),
            num_tiles_max: self.grouping.tile_capacity(),
            token_tile: self.grouping.tile_width,
        }
    }

    /// Copies each pair's token.
    unsafe fn gather(
        &self,
        queue: Queue<'_>,
        input: &Panels,
        element: Element,
    ) -> Result<Panels, DeviceError> {
        let capacity = self.grouping.pair_capacity();
        let gathered = Panels::with_capacity(queue.arena, capacity, input.columns, &[element]);
        let (from, to) = (input.input(element), gathered.input(element));
        let gather = Gather {
            source: from.panels,
            source_scales: from.scales,
            source_capacity: from.capacity,
            token_of_pair: self.token_of_pair.pointer(),
            counts: self.counts.pointer(),
            out: to.panels,
            scales: to.scales,
            pairs: PanelLayout {
                capacity,
                columns: input.columns,
                element,
            },
        };
        // SAFETY: both panels have the sizes given.
        unsafe { gather.launch(queue.device, queue.stream)? };
        Ok(gathered)
    }
}

/// Queues the experts of the first `rows` rows.
///
/// # Safety
///
/// The weights, the panels and the routing are valid.
pub unsafe fn run(
    queue: Queue<'_>,
    input: &Panels,
    rows: usize,
    routing: DeviceRouting,
    experts: &DeviceExperts,
) -> Result<Rows, DeviceError> {
    let Queue {
        device,
        stream,
        arena,
    } = queue;
    let DeviceExperts {
        num_experts,
        gate_up,
        down,
    } = *experts;
    let element = down.matrix.element;
    let (hidden, width) = (down.matrix.rows, gate_up.matrix.width());
    // SAFETY: the caller's promise.
    let (pairs, gathered) = unsafe {
        let pairs = Pairs::sort(queue, rows, num_experts, routing)?;
        let gathered = pairs.gather(queue, input, element)?;
        (pairs, gathered)
    };
    let capacity = pairs.grouping.pair_capacity();
    let product = |weights, input: &Panels, epilogue, output: &Piece| Product {
        weights,
        input: input.input(element),
        tokens: pairs.tokens(),
        epilogue,
        parts: 1,
        output: output.pointer(),
        scale: 1.0,
    };
    let inner = arena.take(capacity * width * 2);
    let packed = Panels::with_capacity(arena, capacity, width, &[element]);
    let pack = Pack {
        source: RowSource::Bf16 {
            values: inner.pointer(),
        },
        token_of_row: pairs.token_of_pair.pointer(),
        out: packed.output(),
        rows: capacity,
        columns: width,
    };
    let values = arena.take(capacity * hidden * 2);
    // SAFETY: the caller's promise; all memory was taken in the sizes that the kernels want.
    unsafe {
        product(gate_up, &gathered, Epilogue::Swiglu, &inner).launch(device, stream)?;
        pack.launch(device, stream)?;
        product(down, &packed, Epilogue::Bf16, &values).launch(device, stream)?;
    }
    let source = RowSource::Routed {
        values: values.pointer(),
        pair_of_slot: pairs.pair_of_slot.pointer(),
        weights: routing.weights,
        top_k: routing.top_k,
    };
    Ok(Rows {
        source,
        columns: hidden,
        memory: vec![values, pairs.pair_of_slot],
    })
}
