//! Whether the same rows have the same bits whatever the number of tokens beside them: products and
//! experts in batches for every width of the tensor cores' instruction. Nobody documents that the
//! width does not change a sum; all batch invariance rests on it.
#![expect(unsafe_code, reason = "launches are outside the compiler's view")]

use std::sync::Arc;

use backstop_card::activation::Rows;
use backstop_card::device::{Device, DeviceError, Stream};
use backstop_card::layout::TiledMatrix;
use backstop_card::ops::experts::{self as of_experts, DeviceExperts, DeviceRouting, Queue};
use backstop_card::ops::linear;
use backstop_kernels::Element;
use backstop_kernels::random::random_values;

use crate::bench::{self, Bench};
use crate::catalog::Tolerance;

/// Rows of the batches: one for every token tile, and a single row.
const BATCHES: [usize; 6] = [1, 8, 16, 32, 64, 128];
const ROWS: usize = 128;
/// Outputs and inputs: some tiles of rows, several runs of panels.
const SHAPE: [usize; 2] = [192, 1152];
/// Experts, of which each token has [`TOP_K`]: so many that batches of experts have the same token
/// tiles as those of products, or smaller ones.
const EXPERTS: usize = 4;
const TOP_K: usize = 2;
/// Hidden size and width.
const EXPERT_SHAPE: [usize; 2] = [320, 208];

/// Computes the first rows and hands back their bits.
type Compute = fn(&Arc<dyn Device>, Element, usize) -> Result<Vec<u32>, DeviceError>;

/// Compares all batches with the largest; returns what was wrong.
pub fn failures(device: &Arc<dyn Device>) -> Result<Vec<String>, DeviceError> {
    let [outputs, _] = SHAPE;
    let [hidden, _] = EXPERT_SHAPE;
    let operations: [(&str, usize, Compute); 2] = [
        ("products", outputs, products),
        ("experts", hidden, experts),
    ];
    let mut wrong = Vec::new();
    for (name, columns, compute) in operations {
        for element in [Element::BF16, Element::F8E4M3] {
            let all = compute(device, element, ROWS)?;
            for rows in BATCHES {
                let some = compute(device, element, rows)?;
                if let Some(place) = (0..some.len()).find(|&place| some[place] != all[place]) {
                    let (row, column) = (place / columns, place % columns);
                    wrong.push(format!(
                        "{name}, {element:?}, {rows} rows: [{row}, {column}] has the bits {:08x}, \
                         not {:08x} as among {ROWS} rows",
                        some[place], all[place]
                    ));
                }
            }
        }
    }
    Ok(wrong)
}

fn products(
    device: &Arc<dyn Device>,
    element: Element,
    rows: usize,
) -> Result<Vec<u32>, DeviceError> {
    let [outputs, inputs] = SHAPE;
    let input = random_values(1, ROWS * inputs, 1.0);
    let mut bench = Bench::new(device, 8 << 20)?;
    let weights = bench.make_weights(TiledMatrix::new(outputs, inputs, element), 1)?;
    let panels = bench.panels(&input[..rows * inputs], inputs, &[element])?;
    let launch = move |bench: &Bench| {
        let (device, arena) = (&*bench.device, &bench.arena);
        // SAFETY: everything was set up above.
        unsafe { linear::run(device, Stream::Main, arena, &panels, rows, weights) }
    };
    bits(bench, rows, launch)
}

fn experts(
    device: &Arc<dyn Device>,
    element: Element,
    rows: usize,
) -> Result<Vec<u32>, DeviceError> {
    let [hidden, width] = EXPERT_SHAPE;
    let input = random_values(1, ROWS * hidden, 1.0);
    let chosen: Vec<u32> = (0..rows * TOP_K)
        .map(|slot| ((slot / TOP_K * 3 + slot % TOP_K) % EXPERTS) as u32)
        .collect();
    let factors = random_values(2, ROWS * TOP_K, 0.3);
    let mut bench = Bench::new(device, 16 << 20)?;
    let experts = DeviceExperts {
        num_experts: EXPERTS,
        gate_up: bench.make_weights(TiledMatrix::gate_up(width, hidden, element), EXPERTS)?,
        down: bench.make_weights(TiledMatrix::new(hidden, width, element), EXPERTS)?,
    };
    let panels = bench.panels(&input[..rows * hidden], hidden, &[element])?;
    let routing = DeviceRouting {
        experts: bench.upload(&chosen)?,
        weights: bench.upload(&factors[..rows * TOP_K])?,
        top_k: TOP_K,
    };
    let launch = move |bench: &Bench| {
        let queue = Queue {
            device: &*bench.device,
            stream: Stream::Main,
            arena: &bench.arena,
        };
        // SAFETY: everything was set up above.
        unsafe { of_experts::run(queue, &panels, rows, routing, &experts) }
    };
    bits(bench, rows, launch)
}

fn bits(
    bench: Bench,
    rows: usize,
    launch: impl Fn(&Bench) -> Result<Rows, DeviceError>,
) -> Result<Vec<u32>, DeviceError> {
    let run = bench::rows_run(bench, rows, launch, Vec::new, Tolerance::EXACT);
    (run.launch)()?;
    Ok((run.read)()?.into_iter().map(f32::to_bits).collect())
}
