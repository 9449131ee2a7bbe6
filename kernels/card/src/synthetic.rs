//! Random weights for measurements without a checkpoint, made on the device or, bit for bit the
//! same, on the host. Launches of `kernels/cuda/synthetic.cu`.
//!
//! Each number is a function of the seed, the tensor and its place alone, and roughly normal: the
//! sum of four uniform numbers. With a deviation of one over the square root of the inputs, a
//! product's outputs are about as large as its inputs.

use backstop_kernels::Element;
use backstop_kernels::ops::sample::mix;
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

use super::device::{Device, DeviceError, DevicePointer, Grid, KernelArgs, Stream};
use super::layout::TiledMatrix;
use super::pack::int;
use super::repack::TiledShapeArgs;

/// Deviation of synthetic E4M3 numbers before scaling: the largest, 3.47 deviations, come near
/// the format's largest, as they do in checkpoints.
pub const E4M3_DEVIATION: f32 = 128.0;
/// Relative deviation of the scales of E4M3 rows.
pub const SCALE_DEVIATION: f32 = 0.15;
/// Deviation of the logarithm of gate rows' norms, see [`gate_factors`].
pub const POPULARITY_DEVIATION: f32 = 0.25;

/// One over the deviation of the sum of four numbers from 0 to 65535.
const UNIT: f32 = 1.0 / 37_837.227;
const THREADS: usize = 256;

/// One tensor of a model that a seed stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyntheticTensor {
    key: u64,
}

impl SyntheticTensor {
    /// Tensors of one seed with different numbers have nothing in common.
    pub fn new(seed: u64, tensor: u32) -> Self {
        let key = mix(mix(seed).wrapping_add(u64::from(tensor) + 1));
        Self { key }
    }

    /// A number of mean 0 and deviation 1.
    pub fn value(self, row: u32, column: u32) -> f32 {
        normal(self.row_key(row), column)
    }

    fn row_key(self, row: u32) -> u64 {
        mix(self.key.wrapping_add(u64::from(row)))
    }
}

fn normal(row_key: u64, column: u32) -> f32 {
    let bits = mix(row_key.wrapping_add(u64::from(column)));
    let sum: u64 = (0..4).map(|part| bits >> (16 * part) & 0xffff).sum();
    (sum as i32 - 2 * 0xffff) as f32 * UNIT
}

/// The number of mean 0 and deviation 1 in a place of a tensor.
pub fn synthetic_value(seed: u64, tensor: u32, row: u32, column: u32) -> f32 {
    SyntheticTensor::new(seed, tensor).value(row, column)
}

/// Deviation of weights of a product of so many inputs.
pub fn weight_deviation(inputs: usize) -> f32 {
    1.0 / (inputs as f32).sqrt()
}

/// Factors on the rows of a router's gate that give experts different popularity.
///
/// If the normed activations of a token are independent and of one size, the logit of an expert is
/// normal, with the norm of its gate row as deviation. Norms whose logarithms are normal make some
/// experts' logits reach the top far more often than others', in both cases by chance of the
/// token: a load that falls off roughly like a power law, without dead experts.
pub fn gate_factors(tensor: SyntheticTensor, experts: usize) -> Vec<f32> {
    (0..experts as u32)
        .map(|expert| (tensor.value(expert, u32::MAX) * POPULARITY_DEVIATION).exp())
        .collect()
}

/// Synthetic matrices, one after the other; their rows are numbered through.
#[derive(Clone, Copy, Debug)]
pub struct SyntheticMatrix {
    /// Which tensor.
    pub tensor: SyntheticTensor,
    /// Shape and format of each matrix.
    pub matrix: TiledMatrix,
    /// How many.
    pub matrices: usize,
    /// Standard deviation of what is stored.
    pub deviation: f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct SyntheticMatrixArgs {
    out: DevicePointer,
    row_factors: DevicePointer,
    tensor_key: u64,
    shape: TiledShapeArgs,
    deviation: f32,
    unused: i32,
}

const _: () = assert!(size_of::<SyntheticMatrixArgs>() == 48);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for SyntheticMatrixArgs {}

impl SyntheticMatrix {
    /// Weights of the deviation that suits their inputs: the numbers themselves, or E4M3 numbers
    /// that want [`scales`](Self::scales).
    pub fn weights(tensor: SyntheticTensor, matrix: TiledMatrix, matrices: usize) -> Self {
        let deviation = match matrix.element {
            Element::F8E4M3 => E4M3_DEVIATION,
            _ => weight_deviation(matrix.columns),
        };
        Self {
            tensor,
            matrix,
            matrices,
            deviation,
        }
    }

    /// Scales for the rows of E4M3 weights, as the tensor `tensor`.
    pub fn scales(&self, tensor: SyntheticTensor) -> SyntheticVector {
        let mean = weight_deviation(self.matrix.columns) / E4M3_DEVIATION;
        SyntheticVector {
            tensor,
            mean,
            deviation: mean * SCALE_DEVIATION,
        }
    }

    /// The bytes in the order of checkpoints.
    pub fn host(&self, row_factors: Option<&[f32]>) -> Vec<u8> {
        let TiledMatrix {
            rows,
            columns,
            element,
            ..
        } = self.matrix;
        let row_bytes = columns * element.bytes();
        let mut out = vec![0; self.matrices * rows * row_bytes];
        let chunks = out.par_chunks_exact_mut(row_bytes).enumerate();
        chunks.for_each(|(row, out)| {
            let key = self.tensor.row_key(row as u32);
            let factor = row_factors.map_or(1.0, |factors| factors[row]);
            for column in 0..columns {
                let value = normal(key, column as u32) * self.deviation * factor;
                element.write(out, column, value);
            }
        });
        out
    }

    /// Queues the making of all matrices, in tiles.
    ///
    /// # Safety
    ///
    /// `out` has the bytes of all matrices, and `row_factors` is null or one f32 for each of their
    /// rows.
    pub unsafe fn launch(
        &self,
        device: &dyn Device,
        stream: Stream,
        out: DevicePointer,
        row_factors: DevicePointer,
    ) -> Result<(), DeviceError> {
        let kernel = match self.matrix.element {
            Element::BF16 => "synthetic_bf16",
            Element::F8E4M3 => "synthetic_e4m3",
            Element::F32 => panic!("weights of 8 or 16 bits"),
        };
        let args = SyntheticMatrixArgs {
            out,
            row_factors,
            tensor_key: self.tensor.key,
            shape: self.matrix.into(),
            deviation: self.deviation,
            unused: 0,
        };
        let grid = Grid::line(self.matrices * self.matrix.padded_rows(), THREADS as u32);
        // SAFETY: the caller's promise; the struct is the kernel's.
        unsafe { device.launch(stream, kernel, grid, &args) }
    }
}

/// Synthetic f32 vectors.
#[derive(Clone, Copy, Debug)]
pub struct SyntheticVector {
    /// Which tensor.
    pub tensor: SyntheticTensor,
    /// Mean.
    pub mean: f32,
    /// Standard deviation.
    pub deviation: f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct SyntheticVectorArgs {
    out: DevicePointer,
    tensor_key: u64,
    shape: TiledShapeArgs,
    mean: f32,
    deviation: f32,
    places: i32,
    unused: i32,
}

const _: () = assert!(size_of::<SyntheticVectorArgs>() == 48);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for SyntheticVectorArgs {}

/// Where numbers are made: for each matrix, as many as it has places.
#[derive(Clone, Copy)]
struct Places {
    matrix: TiledMatrix,
    matrices: usize,
    of_each: usize,
}

impl SyntheticVector {
    /// Number `index`.
    pub fn value(&self, index: usize) -> f32 {
        let normal = self.tensor.value(index as u32, 0);
        normal.mul_add(self.deviation, self.mean)
    }

    /// The first `len` numbers.
    pub fn host(&self, len: usize) -> Vec<f32> {
        (0..len).map(|index| self.value(index)).collect()
    }

    /// Queues the making of the first `len` numbers.
    ///
    /// # Safety
    ///
    /// `out` has room for them.
    pub unsafe fn launch(
        &self,
        device: &dyn Device,
        stream: Stream,
        out: DevicePointer,
        len: usize,
    ) -> Result<(), DeviceError> {
        let places = Places {
            matrix: TiledMatrix::new(len, 1, Element::BF16),
            matrices: 1,
            of_each: len,
        };
        // SAFETY: the caller's promise.
        unsafe { self.launch_places(device, stream, out, places) }
    }

    /// Queues the making of a number for each row of each matrix, in their places; padding rows
    /// have zeroes.
    ///
    /// # Safety
    ///
    /// `out` has room for a number for each padded row of each matrix.
    pub unsafe fn launch_for_rows(
        &self,
        device: &dyn Device,
        stream: Stream,
        out: DevicePointer,
        matrix: TiledMatrix,
        matrices: usize,
    ) -> Result<(), DeviceError> {
        let places = Places {
            matrix,
            matrices,
            of_each: matrix.padded_rows(),
        };
        // SAFETY: the caller's promise.
        unsafe { self.launch_places(device, stream, out, places) }
    }

    /// # Safety
    ///
    /// As above.
    unsafe fn launch_places(
        &self,
        device: &dyn Device,
        stream: Stream,
        out: DevicePointer,
        places: Places,
    ) -> Result<(), DeviceError> {
        let Places {
            matrix,
            matrices,
            of_each: places,
        } = places;
        if matrices * places == 0 {
            return Ok(());
        }
        let args = SyntheticVectorArgs {
            out,
            tensor_key: self.tensor.key,
            shape: matrix.into(),
            mean: self.mean,
            deviation: self.deviation,
            places: int(places),
            unused: 0,
        };
        let grid = Grid::new([matrices, places.div_ceil(THREADS), 1], THREADS as u32);
        // SAFETY: the caller's promise; the struct is the kernel's.
        unsafe { device.launch(stream, "synthetic_vector", grid, &args) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstop_kernels::InstructionSet;
    use backstop_kernels::random::random_values;
    use backstop_kernels::{InputRows, Product, WeightView};

    #[test]
    fn values_are_roughly_normal_and_rows_are_unrelated() {
        let tensor = SyntheticTensor::new(7, 3);
        let row = |row| (0..10_000).map(move |column| tensor.value(row, column));
        let mean = row(0).sum::<f32>() / 1e4;
        let variance = row(0).map(|value| value * value).sum::<f32>() / 1e4;
        let covariance = row(0).zip(row(1)).map(|(a, b)| a * b).sum::<f32>() / 1e4;
        assert!(mean.abs() < 0.04, "{mean}");
        assert!((variance - 1.0).abs() < 0.04, "{variance}");
        assert!(covariance.abs() < 0.04, "{covariance}");
        assert_ne!(synthetic_value(7, 3, 0, 0), synthetic_value(7, 4, 0, 0));
        assert_ne!(synthetic_value(7, 3, 0, 0), synthetic_value(8, 3, 0, 0));
    }

    /// Tokens that each expert gets, with random normal inputs.
    fn loads(seed: u64) -> Vec<usize> {
        let (experts, top_k, hidden, tokens) = (128, 8, 256, 4096);
        let tensor = SyntheticTensor::new(seed, 0);
        let matrix = TiledMatrix::new(experts, hidden, Element::BF16);
        let gate = SyntheticMatrix::weights(tensor, matrix, 1);
        let gate = gate.host(Some(&gate_factors(tensor, experts)));
        let input = random_values(seed, tokens * hidden, 1.0);
        let view = WeightView::new(Element::BF16, &gate, experts, hidden);
        let mut logits = vec![0.0; tokens * experts];
        let product = Product::new(view, InputRows::all(&input, hidden));
        product.run(InstructionSet::detect(), &mut logits);
        let mut loads = vec![0; experts];
        for logits in logits.chunks_exact(experts) {
            let mut order: Vec<usize> = (0..experts).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            order[..top_k].iter().for_each(|&expert| loads[expert] += 1);
        }
        loads.sort_unstable();
        loads
    }

    #[test]
    fn popular_experts_get_more_than_their_share_and_none_is_dead() {
        for seed in 0..4 {
            let loads = loads(seed);
            let all: usize = loads.iter().sum();
            let popular: usize = loads[loads.len() * 9 / 10..].iter().sum();
            let share = popular as f32 / all as f32;
            assert!((0.2..0.35).contains(&share), "{share}");
            assert!(loads[0] > 0, "{loads:?}");
        }
    }
}
