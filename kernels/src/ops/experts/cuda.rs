//! Routed experts on the device: pairs of token and expert sorted by expert, two grouped products
//! with SwiGLU between them. The weighted sum of each token's experts is left to whoever reads the
//! result.
#![expect(unsafe_code, reason = "launches are outside the compiler's view")]

use std::sync::Arc;

use super::ExpertsArgs;
use super::cases::{self, ExpertsCase, random_routing};
use crate::backend::GatedActivation;
use crate::catalog::{Case, DeviceResult, DeviceWork, Tolerance};
use crate::cpu::CpuExperts;
use crate::cuda::activation::{Panels, Rows};
use crate::cuda::arena::{Arena, Piece};
use crate::cuda::check::{self, Bench};
use crate::cuda::group::{GroupMemory, Grouping};
use crate::cuda::layout::{PanelLayout, TiledMatrix};
use crate::cuda::pack::{Gather, Pack, RowSource};
use crate::cuda::product::{self, Epilogue, Product, ProductTokens, ProductWeights};
use crate::cuda::{Device, DeviceError, DevicePointer, Stream};
use crate::element::Element;
use crate::gemm::WeightFormat;
use crate::ops::router::Routing;

/// The experts of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceExperts {
    pub(crate) num_experts: usize,
    pub(crate) gate_up: ProductWeights,
    pub(crate) down: ProductWeights,
}

/// Chosen experts and their weights, `[rows, top_k]` each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceRouting {
    pub(crate) experts: DevicePointer,
    pub(crate) weights: DevicePointer,
    pub(crate) top_k: usize,
}

/// Where and how the work of a layer is done.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) device: &'a dyn Device,
    pub(crate) stream: Stream,
    pub(crate) arena: &'a Arena,
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
        place: Place<'_>,
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
        let arena = place.arena;
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
        unsafe { grouping.launch(place.device, place.stream, &memory)? };
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
        place: Place<'_>,
        input: &Panels,
        element: Element,
    ) -> Result<Panels, DeviceError> {
        let capacity = self.grouping.pair_capacity();
        let gathered = Panels::with_capacity(place.arena, capacity, input.columns, &[element]);
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
        unsafe { gather.launch(place.device, place.stream)? };
        Ok(gathered)
    }
}

/// Queues the experts of the first `rows` rows.
///
/// # Safety
///
/// The weights, the panels and the routing are valid.
pub(crate) unsafe fn run(
    place: Place<'_>,
    input: &Panels,
    rows: usize,
    routing: DeviceRouting,
    experts: &DeviceExperts,
) -> Result<Rows, DeviceError> {
    let Place {
        device,
        stream,
        arena,
    } = place;
    let DeviceExperts {
        num_experts,
        gate_up,
        down,
    } = *experts;
    let element = down.matrix.element;
    let (hidden, width) = (down.matrix.rows, gate_up.matrix.width());
    // SAFETY: the caller's promise.
    let (pairs, gathered) = unsafe {
        let pairs = Pairs::sort(place, rows, num_experts, routing)?;
        let gathered = pairs.gather(place, input, element)?;
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

/// Experts as the grouped products take them: all matrices of a kind, one after the other.
fn upload(bench: &mut Bench, experts: &CpuExperts) -> Result<DeviceExperts, DeviceError> {
    let (hidden, width) = (experts.hidden, experts.width);
    let mut weights = |layout: TiledMatrix, data: &[u8], scales: &[f32]| {
        let matrices = data.chunks_exact(layout.source_bytes());
        let packed: Vec<Vec<u8>> = matrices.map(|matrix| layout.pack(matrix)).collect();
        let scales = scales.chunks_exact(layout.rows);
        let scales: Vec<f32> = scales
            .flat_map(|scales| layout.pack_scales(scales))
            .collect();
        Ok(ProductWeights {
            data: bench.upload(&packed.concat())?,
            scales: bench.upload(&scales)?,
            bias: DevicePointer::NULL,
            matrix: layout,
        })
    };
    let (gate_up, down) = (&experts.gate_up, &experts.down);
    let gate_up_layout = TiledMatrix::gate_up(width, hidden, gate_up.element());
    let down_layout = TiledMatrix::new(hidden, width, down.element());
    Ok(DeviceExperts {
        num_experts: experts.num_experts,
        gate_up: weights(gate_up_layout, gate_up.data.as_slice(), &gate_up.scales)?,
        down: weights(down_layout, down.data.as_slice(), &down.scales)?,
    })
}

/// Bytes for what a case takes of its bench's arena.
fn arena_bytes([num_experts, top_k, hidden, width, tokens]: [usize; 5]) -> usize {
    let pairs = tokens * top_k + 8 * num_experts + 256;
    pairs * (6 * hidden + 4 * width) + (4 << 20)
}

fn upload_routing(bench: &mut Bench, routing: &Routing) -> Result<DeviceRouting, DeviceError> {
    Ok(DeviceRouting {
        experts: bench.upload(&routing.experts)?,
        weights: bench.upload(&routing.weights)?,
        top_k: routing.top_k,
    })
}

/// Experts, experts per token, hidden size, width and number of tokens, with data that the device
/// makes.
pub(super) fn made_on_device(
    device: &Arc<dyn Device>,
    shape: [usize; 5],
    element: Element,
) -> DeviceResult<'static, DeviceWork<'static>> {
    let [num_experts, top_k, hidden, width, tokens] = shape;
    let mut bench = Bench::new(device, arena_bytes(shape))?;
    let gate_up = TiledMatrix::gate_up(width, hidden, element);
    let down = TiledMatrix::new(hidden, width, element);
    let experts = DeviceExperts {
        num_experts,
        gate_up: bench.make_weights(gate_up, num_experts)?,
        down: bench.make_weights(down, num_experts)?,
    };
    let input = bench.make_panels([tokens, hidden], &[element])?;
    let on_host = random_routing(tokens, top_k, num_experts);
    let routing = upload_routing(&mut bench, &on_host)?;
    let launch = move |bench: &Bench| {
        let place = Place {
            device: &*bench.device,
            stream: Stream::Main,
            arena: &bench.arena,
        };
        // SAFETY: everything was set up above.
        unsafe { run(place, &input, tokens, routing, &experts) }
    };
    let cost = cases::cost(3 * width * hidden, &on_host, element.into());
    Ok(check::work(bench, (tokens, cost), launch))
}

pub(super) fn device<'a>(
    case: &'a ExpertsCase,
    device: &'a Arc<dyn Device>,
) -> Option<DeviceResult<'a>> {
    let experts = &case.experts;
    let (hidden, width) = (experts.hidden, experts.width);
    let WeightFormat::Numbers(element) = experts.gate_up.format else {
        return None;
    };
    let plain = case.activation == GatedActivation::Swiglu && experts.gate_up.biases.is_empty();
    let even = hidden.is_multiple_of(2) && width.is_multiple_of(2);
    let set_up = move || {
        let (rows, top_k) = (case.rows(), case.routing.top_k);
        let shape = [experts.num_experts, top_k, hidden, width, rows];
        let mut bench = Bench::new(device, arena_bytes(shape))?;
        let weights = upload(&mut bench, experts)?;
        let input = bench.panels(&case.input, hidden, &[element])?;
        let routing = upload_routing(&mut bench, &case.routing)?;
        let launch = move |bench: &Bench| {
            let place = Place {
                device: &*bench.device,
                stream: Stream::Main,
                arena: &bench.arena,
            };
            // SAFETY: everything was set up above.
            unsafe { run(place, &input, rows, routing, &weights) }
        };
        let expected = move || {
            // E4M3 panels are made of the f32 rows, as the reference's are.
            let rounded = match element {
                Element::BF16 => check::rounded_bf16(&case.input),
                _ => case.input.clone(),
            };
            let mut out = vec![0.0; rounded.len()];
            let args = ExpertsArgs {
                input: &rounded,
                routing: &case.routing,
                experts,
                activation: case.activation,
            };
            args.reference(&mut out);
            out
        };
        let Tolerance(rounding) = Tolerance::BF16;
        let Tolerance(quantising) = Tolerance::of(element);
        // The intermediate activation is rounded to BF16 before it is quantised, and so is what each
        // expert yields.
        let tolerance = Tolerance(2.0 * (rounding + quantising));
        Ok(check::rows_run(bench, rows, launch, expected, tolerance))
    };
    (element != Element::F32 && even && plain).then(set_up)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::cuda::host::HostDevice;
    use crate::ops::experts::cases::{TILE_SHAPES, cases};

    use super::*;

    #[test]
    fn there_is_a_small_case_for_every_token_tile() {
        let tile = |num_experts, top_k, tokens: usize| {
            product::grouped_token_tile(tokens * top_k, num_experts)
        };
        let mut tiles = BTreeSet::from([tile(9, 4, 3), tile(3, 2, 40)]);
        for (num_experts, top_k, hidden, width, tokens) in TILE_SHAPES {
            tiles.insert(tile(num_experts, top_k, tokens));
            let label = format!(
                "F8E4M3 {top_k} of {num_experts}, hidden {hidden}, width {width}, {tokens} tokens"
            );
            assert!(cases().iter().any(|case| case.label == label), "{label}");
        }
        assert_eq!(Vec::from_iter(tiles), [8, 16, 32, 64, 128]);
    }

    #[test]
    fn what_the_device_makes_of_experts_runs() {
        let device = HostDevice::for_tests().unwrap();
        for element in [Element::BF16, Element::F8E4M3] {
            let work = made_on_device(&device, [6, 2, 192, 80, 17], element).unwrap();
            assert_eq!(work.cost.multiply_adds, 3 * 192 * 80 * 17 * 2);
            (work.launch)().unwrap();
            (work.launch)().unwrap();
        }
    }
}
