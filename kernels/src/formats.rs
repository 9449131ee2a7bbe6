//! Formats in which weights are stored in blocks: small numbers that share scales and minima. One file each, with
//! everything that is peculiar to it, and one line in the list of [`BlockFormat`]: a name, and whether products with
//! panels take codes or floating-point numbers.
//!
//! Most layouts are those of ggml (`ggml-common.h` and `ggml-quants.c`). A block is unpacked into
//! unsigned codes, one for each number, and a scale and a minimum for each group of numbers; a
//! number is `scale * (code - zero) - minimum`. Products of scales and codes have at most 24
//! significant bits, so they are exact in f32, and a number is the nearest f32 to what the block
//! stores. Some are our own: what safetensors checkpoints store as a tensor of codes and a tensor of scales, interleaved.
#![expect(unsafe_code, reason = "panels are read through raw pointers")]

mod panel;
mod unpack;

mod f16;
mod f8;
mod i4;
mod i8;
mod iq4_nl;
mod iq4_xs;
mod mxfp4;
mod nvfp4;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;

pub use mxfp4::SCALE_MAX as MXFP4_SCALE_MAX;
pub(crate) use panel::{Codes, Group, Numbers, PanelPlace};
pub(crate) use unpack::widen_f16;

use crate::gemm::{FloatBlock, IntegerBlock};
use crate::panels::{Arithmetic, Layout};
use crate::simd::Simd;

/// What is peculiar to a format.
pub(crate) trait Format {
    /// What GGUF files, or messages about quantised checkpoints, call it.
    const NAME: &str;
    /// Its number in `enum ggml_type`.
    const GGUF: Option<u32> = None;
    /// Numbers in a block.
    const NUMBERS: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// Where in a block the half-precision scales are.
    const HALF_SCALES: &[usize] = &[];
    /// The pieces of a block that a panel keeps together.
    const PIECES: Layout;
    /// For formats whose codes and scales are tensors of their own in a checkpoint.
    const SEPARATE: Option<Separate> = None;

    /// Widens whole blocks. `out` has as many numbers as the blocks.
    fn widen(blocks: &[u8], out: &mut [f32]);

    /// Whether all numbers of a block are finite.
    #[inline(always)]
    fn is_finite(block: &[u8]) -> bool {
        let finite = |&at: &usize| u16::from_le_bytes([block[at], block[at + 1]]) & 0x7fff < 0x7c00;
        Self::HALF_SCALES.iter().all(finite)
    }
}

/// How codes and scales that are tensors of their own lie in a block: the scale first, the codes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Separate {
    /// Bytes of the codes.
    pub code_bytes: usize,
    /// How the scale is stored.
    pub scale: ScaleFormat,
}

/// How the scale of a block is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleFormat {
    /// An f32.
    F32,
    /// The upper half of an f32, for scales that are BF16 numbers.
    BF16,
    /// The exponent of an f32, for powers of two.
    E8M0,
}

impl Separate {
    /// Stores the scale of a block; for NVFP4 what its scales are divided by.
    pub fn write_scale(self, block: &mut [u8], scale: f32) {
        let bytes = scale.to_le_bytes();
        match self.scale {
            ScaleFormat::F32 => block[..4].copy_from_slice(&bytes),
            ScaleFormat::BF16 => block[..2].copy_from_slice(&bytes[2..]),
            ScaleFormat::E8M0 => block[0] = (scale.to_bits() >> 23) as u8,
        }
    }
}

/// A format as data.
#[derive(Clone, Copy, Debug)]
pub struct FormatFacts {
    /// What GGUF files, or messages about quantised checkpoints, call it.
    pub name: &'static str,
    /// Its number in `enum ggml_type`.
    pub gguf: Option<u32>,
    /// Numbers in a block.
    pub numbers: usize,
    /// Bytes of a block.
    pub bytes: usize,
    /// Where in a block the half-precision scales are.
    pub half_scales: &'static [usize],
    /// For formats whose codes and scales are tensors of their own in a checkpoint.
    pub separate: Option<Separate>,
    /// The pieces of a block that a panel keeps together.
    pub(crate) pieces: Layout,
    /// How products with panels are computed.
    pub(crate) arithmetic: Arithmetic,
}

const fn facts_of<F: Format>(arithmetic: Arithmetic) -> FormatFacts {
    FormatFacts {
        name: F::NAME,
        gguf: F::GGUF,
        numbers: F::NUMBERS,
        bytes: F::BYTES,
        half_scales: F::HALF_SCALES,
        separate: F::SEPARATE,
        pieces: F::PIECES,
        arithmetic,
    }
}

macro_rules! registry {
    (@arithmetic codes) => {
        Arithmetic::Integers
    };
    (@arithmetic numbers) => {
        Arithmetic::Floats
    };
    (@codes codes $format:path, $simd:ident, $block:ident) => {
        $block.multiply::<S, $format>($simd)
    };
    (@numbers numbers $format:path, $simd:ident, $block:ident) => {
        $block.multiply::<S, $format>($simd)
    };
    (@$wanted:ident $kind:ident $format:path, $simd:ident, $block:ident) => {
        unreachable!(concat!(stringify!($format), " has ", stringify!($kind)))
    };
    ($($name:ident: $kind:ident $format:path;)*) => {
        /// A format; see its file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum BlockFormat {
            $(#[doc = concat!("`", stringify!($format), "`")] $name,)*
        }

        impl BlockFormat {
            /// All of them. Of those for the same codes the one to prefer is first: that with longer blocks, or shorter scales.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What is known of it.
            #[inline(always)]
            pub const fn facts(self) -> &'static FormatFacts {
                match self {
                    $(Self::$name => const { &facts_of::<$format>(registry!(@arithmetic $kind)) },)*
                }
            }

            /// Widens whole blocks. `out` has as many numbers as the blocks.
            #[inline(always)]
            pub fn widen(self, blocks: &[u8], out: &mut [f32]) {
                debug_assert_eq!(blocks.len() / self.bytes() * self.numbers(), out.len(), "numbers of blocks");
                match self {
                    $(Self::$name => <$format as Format>::widen(blocks, out),)*
                }
            }

            /// The first of these blocks with a number that is not finite.
            pub fn first_not_finite(self, blocks: &[u8]) -> Option<usize> {
                match self {
                    $(Self::$name => first_not_finite::<$format>(blocks),)*
                }
            }

            /// Multiplies panels of codes.
            #[inline(always)]
            pub(crate) fn multiply_codes<S: Simd>(self, simd: S, block: &IntegerBlock<'_>) {
                match self {
                    $(Self::$name => registry!(@codes $kind $format, simd, block),)*
                }
            }

            /// Multiplies panels of floating-point numbers.
            #[inline(always)]
            pub(crate) fn multiply_numbers<S: Simd>(self, simd: S, block: &FloatBlock<'_>) {
                match self {
                    $(Self::$name => registry!(@numbers $kind $format, simd, block),)*
                }
            }
        }
    };
}

registry! {
    F16: numbers f16::F16;
    Q8_0: codes q8_0::Q8_0;
    Q4_0: codes q4_0::Q4_0;
    Q4_1: codes q4_1::Q4_1;
    Q5_0: codes q5_0::Q5_0;
    Q5_1: codes q5_1::Q5_1;
    Q2K: codes q2_k::Q2K;
    Q3K: codes q3_k::Q3K;
    Q4K: codes q4_k::Q4K;
    Q5K: codes q5_k::Q5K;
    Q6K: codes q6_k::Q6K;
    Iq4Nl: codes iq4_nl::Iq4Nl;
    Iq4Xs: codes iq4_xs::Iq4Xs;
    Mxfp4: codes mxfp4::Mxfp4;
    F8x128: numbers f8::F8<128>;
    F8x32: numbers f8::F8<32>;
    I8x128: codes i8::I8<128>;
    I8x32: codes i8::I8<32>;
    I4x128: codes i4::I4<128>;
    I4x32Bf16: codes i4::I4x32Bf16;
    I4x32: codes i4::I4<32>;
    Nvfp4: codes nvfp4::Nvfp4;
}

/// Blocks that are looked at before it is asked whether any was bad: few enough to be looked at twice in the first-level
/// cache, and without a branch for each.
const LOOKED_AT: usize = 64;

fn first_not_finite<F: Format>(blocks: &[u8]) -> Option<usize> {
    for (index, some) in blocks.chunks(LOOKED_AT * F::BYTES).enumerate() {
        let mut blocks = some.chunks_exact(F::BYTES);
        let all = blocks
            .clone()
            .fold(true, |all, block| all & F::is_finite(block));
        if !all {
            let within = blocks.position(|block| !F::is_finite(block))?;
            return Some(index * LOOKED_AT + within);
        }
    }
    None
}

impl BlockFormat {
    /// Numbers in a block.
    #[inline(always)]
    pub const fn numbers(self) -> usize {
        self.facts().numbers
    }

    /// Bytes of a block.
    #[inline(always)]
    pub const fn bytes(self) -> usize {
        self.facts().bytes
    }

    /// Those that GGUF files have.
    pub const IN_GGUF: &[Self] = &in_gguf::<{ count_in_gguf() }>();

    /// The format with this number in `enum ggml_type`.
    pub fn of_gguf(number: u32) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|format| format.facts().gguf == Some(number))
    }
}

const fn count_in_gguf() -> usize {
    let (mut count, mut index) = (0, 0);
    while index < BlockFormat::ALL.len() {
        count += BlockFormat::ALL[index].facts().gguf.is_some() as usize;
        index += 1;
    }
    count
}

const fn in_gguf<const COUNT: usize>() -> [BlockFormat; COUNT] {
    let mut found = [BlockFormat::F16; COUNT];
    let (mut count, mut index) = (0, 0);
    while index < BlockFormat::ALL.len() {
        if BlockFormat::ALL[index].facts().gguf.is_some() {
            found[count] = BlockFormat::ALL[index];
            count += 1;
        }
        index += 1;
    }
    found
}

/// Brings 32 4-bit codes, of which neighbours share a byte, the first in its low bits, into the
/// order of blocks.
pub fn split_nibbles(pairs: &[u8; 16], out: &mut [u8; 16]) {
    for (index, out) in out.iter_mut().enumerate() {
        let nibble = |number: usize| (pairs[number / 2] >> (number % 2 * 4)) & 15;
        *out = nibble(index) | (nibble(index + 16) << 4);
    }
}

#[cfg(test)]
mod tests;
