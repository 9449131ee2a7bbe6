//! The same on a device.

use std::sync::Arc;

use backstop_card::layout::TiledMatrix;
use backstop_card::ops::experts::{DeviceExperts, DeviceRouting, Queue, run};
use backstop_card::product::ProductWeights;
use backstop_card::{Device, DeviceError, DevicePointer, Stream};
use backstop_kernels::backend::GatedActivation;
use backstop_kernels::ops::router::Routing;
use backstop_kernels::{CpuExperts, Element, WeightFormat};

use super::{ExpertsArgs, ExpertsCase, random_routing};
use crate::bench::{self, Bench};
use crate::catalog::{Case, DeviceResult, DeviceWork, Tolerance};

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
        let queue = Queue {
            device: &*bench.device,
            stream: Stream::Main,
            arena: &bench.arena,
        };
        // SAFETY: everything was set up above.
        unsafe { run(queue, &input, tokens, routing, &experts) }
    };
    let cost = super::cost(3 * width * hidden, &on_host, element.into());
    Ok(bench::work(bench, tokens, cost, launch))
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
            let queue = Queue {
                device: &*bench.device,
                stream: Stream::Main,
                arena: &bench.arena,
            };
            // SAFETY: everything was set up above.
            unsafe { run(queue, &input, rows, routing, &weights) }
        };
        let expected = move || {
            // E4M3 panels are made of the f32 rows, as the reference's are.
            let rounded = match element {
                Element::BF16 => bench::rounded_bf16(&case.input),
                _ => case.input.clone(),
            };
            let mut out = vec![0.0; rounded.len()];
            let args = ExpertsArgs {
                input: &rounded,
                routing: &case.routing,
                experts,
                activation: case.activation,
            };
            super::reference(&args, &mut out);
            out
        };
        let Tolerance(rounding) = Tolerance::BF16;
        let Tolerance(quantising) = Tolerance::of(element);
        // The intermediate activation is rounded to BF16 before it is quantised, and so is what each
        // expert yields.
        let tolerance = Tolerance(2.0 * (rounding + quantising));
        Ok(bench::rows_run(bench, rows, launch, expected, tolerance))
    };
    (element != Element::F32 && even && plain).then(set_up)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::host::HostDevice;
    use crate::ops::experts::{TILE_SHAPES, cases};

    use super::*;
    use backstop_card::product;

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
