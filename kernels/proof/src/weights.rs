//! Random weights of a size that keeps outputs near 1; the same for the same seed.

use backstop_kernels::random::random_values;
use backstop_kernels::{
    AlignedBytes, BlockFormat, CpuExperts, CpuMatrix, Element, ExpertMatrices, WeightFormat,
};
use rayon::prelude::*;

/// A random matrix.
pub fn random_matrix(seed: u64, rows: usize, columns: usize, element: Element) -> CpuMatrix {
    let data = random_weights(seed, rows * columns, columns, element);
    CpuMatrix::new(rows, columns, element, data)
}

/// Random experts of the shape `[num_experts, hidden, width]`, in a number format or in MXFP4;
/// the same for the same seed.
pub fn random_experts(
    seed: u64,
    [num_experts, hidden, width]: [usize; 3],
    format: impl Into<WeightFormat>,
) -> CpuExperts {
    let format = format.into();
    let experts = CpuExperts {
        num_experts,
        hidden,
        width,
        gate_up: random_matrices(seed, [num_experts, 2 * width, hidden], format),
        down: random_matrices(seed + 1, [num_experts, hidden, width], format),
    };
    experts.check();
    experts
}

/// The same with biases.
pub fn with_random_biases(mut experts: CpuExperts, seed: u64) -> CpuExperts {
    let rows = experts.num_experts * 2 * experts.width;
    experts.gate_up.biases = random_values(seed, rows, 1.0);
    experts.down.biases = random_values(seed + 1, experts.num_experts * experts.hidden, 1.0);
    experts
}

fn random_matrices(
    seed: u64,
    [experts, rows, columns]: [usize; 3],
    format: WeightFormat,
) -> ExpertMatrices {
    let numbers = experts * rows * columns;
    let data = match format {
        WeightFormat::Numbers(element) => random_weights(seed, numbers, columns, element),
        WeightFormat::Blocks(_) => random_blocks(seed, numbers, columns, format),
    };
    let mut matrices = ExpertMatrices::new(format, data);
    if matrices.are_fp8() {
        let typical = 1.0 / 60.0 / (columns as f32).sqrt();
        let factors = random_values(seed + 2, experts * rows, 0.2).into_iter();
        matrices.scales = factors.map(|factor| typical * (1.0 + factor)).collect();
    }
    matrices
}

/// `len` random numbers in storage, such that a sum over `inputs` of them is near 1.
fn random_weights(seed: u64, len: usize, inputs: usize, element: Element) -> AlignedBytes {
    // FP8 has scales of its own.
    let scale = if element == Element::F8E4M3 {
        60.0
    } else {
        1.0 / (inputs as f32).sqrt()
    };
    const PIECE: usize = 1 << 16;
    let mut data = AlignedBytes::zeroed(len * element.bytes());
    let values = random_values(seed, len, scale);
    let pieces = data.as_mut_slice().par_chunks_mut(PIECE * element.bytes());
    let pieces = pieces.zip(values.par_chunks(PIECE));
    pieces.for_each(|(bytes, values)| {
        for (index, &value) in values.iter().enumerate() {
            element.write(bytes, index, value);
        }
    });
    data
}

/// As many MXFP4 numbers, such that a sum over `inputs` of them is near 1.
fn random_blocks(seed: u64, len: usize, inputs: usize, format: WeightFormat) -> AlignedBytes {
    assert_eq!(format, BlockFormat::Mxfp4.into(), "a format to make up");
    let bytes = format.bytes_of(len);
    let random = random_values(seed, bytes, 1.0);
    let mut data = AlignedBytes::zeroed(bytes);
    for (byte, value) in data.as_mut_slice().iter_mut().zip(random) {
        *byte = value.to_bits() as u8;
    }
    // Codes have a root of the mean square of nearly three.
    let exponent = 127.0 - (3.0 * (inputs as f32).sqrt()).log2().round();
    for block in data
        .as_mut_slice()
        .chunks_exact_mut(BlockFormat::Mxfp4.bytes())
    {
        block[0] = exponent as u8 + block[0] % 2;
    }
    data
}
