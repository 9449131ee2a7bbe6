//! Tensors that are made from a seed whenever they are read, for measurements without a checkpoint: in any format, each byte the
//! same however much is read at once.

use std::f32::consts::SQRT_2;

use backstop_kernels::{BlockFormat, ScaleFormat};

use crate::checkpoint::{Checkpoint, RowOrder};
use crate::shard::Shard;
use crate::shards::Shards;
use crate::{ElementType, TensorInfo};

/// Half of what gains and biases differ by from the number that they lie around.
const SPREAD: f32 = 0.1;
/// Blocks of which the deviation of a format's codes is taken.
const SAMPLE_BLOCKS: usize = 64;

/// A tensor to be made, and what its numbers are like.
#[derive(Clone, Debug)]
pub struct MadeTensor {
    /// Its name.
    pub name: String,
    /// F32, BF16 or a format of GGUF files.
    pub element_type: ElementType,
    /// Its extents, slowest first; numbers of a row are last.
    pub shape: Vec<usize>,
    /// What its numbers are like.
    pub numbers: MadeNumbers,
}

/// What numbers are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MadeNumbers {
    /// They lie around this one: gains and biases, in F32 or BF16.
    Around(f32),
    /// Products with them keep the deviation of what is multiplied.
    Weights,
    /// The same, in F32; rows have factors, such that some experts are more popular than others.
    Router,
}

impl Checkpoint {
    /// Gives a checkpoint that was opened without weights these.
    ///
    /// # Panics
    ///
    /// If a tensor is to be made of something else than [`MadeTensor`] says.
    pub fn make_weights(&mut self, tensors: Vec<MadeTensor>, seed: u64) {
        let mut shards = Shards::default();
        let (mut made, mut end) = (Vec::with_capacity(tensors.len()), 0);
        for (index, tensor) in (0_u64..).zip(tensors) {
            let tensor_seed = word(seed, index);
            let filled = Filled::new(&tensor, end, tensor_seed);
            let info = TensorInfo {
                element_type: tensor.element_type,
                shape: tensor.shape,
                bytes: filled.bytes,
                shard_index: 0,
                offset_bytes: end,
                row_order: RowOrder::AsStored,
                name: tensor.name.clone(),
            };
            end += filled.bytes;
            made.push(filled);
            shards.tensors.insert(tensor.name, info);
        }
        shards.files.push(Shard::made(Made { tensors: made }));
        self.shards = shards;
    }
}

/// The bytes of all tensors, one behind the other.
#[derive(Debug)]
pub(crate) struct Made {
    /// By their place.
    tensors: Vec<Filled>,
}

impl Made {
    /// Bytes of all of them.
    pub(crate) fn bytes(&self) -> u64 {
        self.tensors
            .last()
            .map_or(0, |last| last.start + last.bytes)
    }

    /// Fills `out` from this place; false if that goes beyond the end.
    pub(crate) fn read_at(&self, mut out: &mut [u8], mut offset: u64) -> bool {
        let first = self
            .tensors
            .partition_point(|tensor| tensor.start + tensor.bytes <= offset);
        for tensor in &self.tensors[first..] {
            let within = offset - tensor.start;
            let count = (tensor.bytes - within).min(out.len() as u64);
            let (now, later) = out.split_at_mut(count as usize);
            tensor.read(within, now);
            (out, offset) = (later, offset + count);
            if out.is_empty() {
                break;
            }
        }
        out.is_empty()
    }
}

/// A tensor's bytes.
#[derive(Debug)]
struct Filled {
    start: u64,
    bytes: u64,
    seed: u64,
    content: Content,
}

/// What units a tensor has, and how they are made.
#[derive(Debug)]
enum Content {
    F32(Uniform),
    BF16(Uniform),
    Blocks {
        format: BlockFormat,
        scales: BlockScales,
    },
}

/// Numbers between `mean - half_width` and `mean + half_width`.
#[derive(Clone, Copy, Debug)]
struct Uniform {
    mean: f32,
    half_width: f32,
    /// Numbers of a row, if rows have factors.
    row: Option<u64>,
}

impl Filled {
    fn new(tensor: &MadeTensor, start: u64, seed: u64) -> Self {
        let columns = tensor.shape.last().copied().unwrap_or(1).max(1);
        let deviation = (columns as f32).sqrt().recip();
        // The deviation of uniform numbers is their half width over the root of three.
        let half_width = deviation * 3_f32.sqrt();
        let uniform = match tensor.numbers {
            MadeNumbers::Around(mean) => Uniform {
                mean,
                half_width: SPREAD,
                row: None,
            },
            MadeNumbers::Weights => Uniform {
                mean: 0.0,
                half_width,
                row: None,
            },
            MadeNumbers::Router => Uniform {
                mean: 0.0,
                half_width,
                row: Some(columns as u64),
            },
        };
        let content = match (tensor.element_type, tensor.numbers) {
            (ElementType::F32, _) => Content::F32(uniform),
            (ElementType::BF16, MadeNumbers::Around(_) | MadeNumbers::Weights) => {
                Content::BF16(uniform)
            }
            (ElementType::Block(format), MadeNumbers::Weights) => Content::Blocks {
                format,
                scales: BlockScales::of(format, deviation),
            },
            (element, numbers) => panic!("{element} tensors are not made of {numbers:?}"),
        };
        let (numbers, unit_bytes) = tensor.element_type.unit().expect("whole bytes");
        let elements: usize = tensor.shape.iter().product();
        Self {
            start,
            bytes: (elements / numbers * unit_bytes) as u64,
            seed,
            content,
        }
    }

    fn unit_bytes(&self) -> usize {
        match &self.content {
            Content::F32(_) => 4,
            Content::BF16(_) => 2,
            Content::Blocks { format, .. } => format.bytes(),
        }
    }

    /// Fills `out` from the byte `from`, which need not begin a unit.
    fn read(&self, from: u64, out: &mut [u8]) {
        let unit = self.unit_bytes();
        let begun = (from % unit as u64) as usize;
        if begun == 0 && out.len().is_multiple_of(unit) {
            return self.fill(from / unit as u64, out);
        }
        let mut whole = vec![0; (begun + out.len()).next_multiple_of(unit)];
        self.fill(from / unit as u64, &mut whole);
        out.copy_from_slice(&whole[begun..][..out.len()]);
    }

    /// Makes whole units.
    fn fill(&self, first: u64, out: &mut [u8]) {
        match &self.content {
            Content::F32(uniform) => {
                let (numbers, _) = out.as_chunks_mut::<4>();
                for (index, number) in (first..).zip(numbers) {
                    *number = uniform.number(self.seed, index).to_le_bytes();
                }
            }
            Content::BF16(uniform) => {
                let (numbers, _) = out.as_chunks_mut::<2>();
                for (index, number) in (first..).zip(numbers) {
                    let bits = uniform.number(self.seed, index).to_bits();
                    *number = ((bits >> 16) as u16).to_le_bytes();
                }
            }
            Content::Blocks { format, scales } => {
                noise(self.seed, first * format.bytes() as u64, out);
                for block in out.chunks_exact_mut(format.bytes()) {
                    scales.write(*format, block);
                }
            }
        }
    }
}

impl Uniform {
    fn number(self, seed: u64, index: u64) -> f32 {
        let number = self.mean + self.half_width * unit_number(seed, index);
        match self.row {
            // A seed of its own, such that factors do not follow numbers.
            Some(columns) => number * (1.0 + unit_number(!seed, index / columns) / 2.0),
            None => number,
        }
    }
}

/// What blocks of random codes have for scales.
#[derive(Clone, Copy, Debug)]
struct BlockScales {
    scale: f32,
    /// For formats with minima.
    minimum: f32,
}

impl BlockScales {
    /// Those with which random codes have no mean and this deviation.
    fn of(format: BlockFormat, deviation: f32) -> Self {
        let one = Self {
            scale: 1.0,
            minimum: 0.0,
        };
        let mean = one.mean_and_deviation(format).0;
        let minimum = match format.facts().half_scales.len() {
            2 => {
                let of_minimum = Self {
                    scale: 0.0,
                    minimum: 1.0,
                };
                -mean / of_minimum.mean_and_deviation(format).0
            }
            _ => 0.0,
        };
        let centred = Self { minimum, ..one };
        let scale = deviation / centred.mean_and_deviation(format).1;
        Self {
            scale,
            minimum: minimum * scale,
        }
    }

    fn mean_and_deviation(self, format: BlockFormat) -> (f32, f32) {
        let mut blocks = vec![0; SAMPLE_BLOCKS * format.bytes()];
        noise(0, 0, &mut blocks);
        for block in blocks.chunks_exact_mut(format.bytes()) {
            self.write(format, block);
        }
        let mut numbers = vec![0.0; SAMPLE_BLOCKS * format.numbers()];
        format.widen(&blocks, &mut numbers);
        let count = numbers.len() as f32;
        let mean = numbers.iter().sum::<f32>() / count;
        let squares: f32 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
        (mean, (squares / count).sqrt())
    }

    fn write(self, format: BlockFormat, block: &mut [u8]) {
        let facts = format.facts();
        if let Some(separate) = facts.separate {
            // A power of two is what it is cut down to, and this makes it the nearest.
            let nearest = match separate.scale {
                ScaleFormat::E8M0 => self.scale * SQRT_2,
                _ => self.scale,
            };
            return separate.write_scale(block, nearest);
        }
        for (&at, scale) in facts.half_scales.iter().zip([self.scale, self.minimum]) {
            let half = half::f16::from_f32(scale);
            block[at..at + 2].copy_from_slice(&half.to_le_bytes());
        }
    }
}

/// The bytes of random words from the byte `offset` of them all.
fn noise(seed: u64, offset: u64, out: &mut [u8]) {
    let mut index = offset / 8;
    let begun = (offset % 8) as usize;
    let (head, rest) = out.split_at_mut(((8 - begun) % 8).min(out.len()));
    if !head.is_empty() {
        head.copy_from_slice(&word(seed, index).to_le_bytes()[begun..][..head.len()]);
        index += 1;
    }
    let (words, tail) = rest.as_chunks_mut::<8>();
    for (index, bytes) in (index..).zip(&mut *words) {
        *bytes = word(seed, index).to_le_bytes();
    }
    let last = word(seed, index + words.len() as u64).to_le_bytes();
    tail.copy_from_slice(&last[..tail.len()]);
}

/// A number from -1 to 1.
fn unit_number(seed: u64, index: u64) -> f32 {
    // The upper 24 bits, all of which an f32 holds.
    (word(seed, index) >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// A random word: the output function of SplitMix64 (Steele, Lea and Flood 2014) for a counter.
fn word(seed: u64, index: u64) -> u64 {
    let mut word = seed.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(element_type: ElementType, numbers: MadeNumbers) -> MadeTensor {
        MadeTensor {
            name: element_type.name().to_owned(),
            element_type,
            shape: vec![16, 512],
            numbers,
        }
    }

    #[test]
    fn every_format_keeps_the_deviation_of_what_is_multiplied() {
        for &format in BlockFormat::IN_GGUF
            .iter()
            .filter(|&&format| format != BlockFormat::F16)
        {
            let made = Filled::new(
                &tensor(ElementType::Block(format), MadeNumbers::Weights),
                0,
                7,
            );
            let mut blocks = vec![0; made.bytes as usize];
            made.read(0, &mut blocks);
            assert_eq!(format.first_not_finite(&blocks), None, "{format:?}");
            let mut numbers = vec![0.0; 16 * 512];
            format.widen(&blocks, &mut numbers);
            let mean = numbers.iter().sum::<f32>() / numbers.len() as f32;
            let squares = numbers.iter().map(|number| number * number).sum::<f32>();
            let deviation = (squares / numbers.len() as f32).sqrt() * 512_f32.sqrt();
            // Powers of two for scales are up to the root of two away.
            assert!((0.7..1.45).contains(&deviation), "{format:?}: {deviation}");
            assert!(mean.abs() * 512_f32.sqrt() < 0.2, "{format:?}: {mean}");
        }
    }

    #[test]
    fn bytes_are_the_same_however_many_are_read_at_once() {
        let tensors = [
            tensor(ElementType::F32, MadeNumbers::Router),
            tensor(ElementType::BF16, MadeNumbers::Weights),
            tensor(ElementType::Block(BlockFormat::Q6K), MadeNumbers::Weights),
        ];
        let mut start = 0;
        let filled = tensors.iter().map(|tensor| {
            let filled = Filled::new(tensor, start, 3);
            start += filled.bytes;
            filled
        });
        let made = Made {
            tensors: filled.collect(),
        };
        let mut all = vec![0; made.bytes() as usize];
        assert!(made.read_at(&mut all, 0));
        for (offset, count) in [(1, 5), (32_767, 3), (40_000, 15_001), (all.len() - 7, 7)] {
            let mut some = vec![0; count];
            assert!(made.read_at(&mut some, offset as u64));
            assert_eq!(some, all[offset..][..count], "{count} at {offset}");
        }
        assert!(!made.read_at(&mut [0; 8], all.len() as u64 - 7));
    }
}
