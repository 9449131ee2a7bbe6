//! The element types a checkpoint may hold.

use std::fmt;

use backstop_kernels::BlockFormat;
use safetensors::Dtype;

/// The type of a tensor's elements.
///
/// Many are recognised only so that a message can name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ElementType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an IEEE single.
    BF16,
    /// Eight bits, four of exponent, no infinities.
    F8E4M3,
    /// Eight bits, five of exponent.
    F8E5M2,
    /// Eight bits of exponent alone: the scale of a microscaling block.
    F8E8M0,
    /// Eight bits, E4M3 with AMD's bias and no negative zero.
    F8E4M3Fnuz,
    /// Eight bits, E5M2 with AMD's bias and no negative zero.
    F8E5M2Fnuz,
    /// Six bits, two of exponent.
    F6E2M3,
    /// Six bits, three of exponent.
    F6E3M2,
    /// Four bits, two of exponent.
    F4,
    /// IEEE double precision.
    F64,
    /// A complex number of two singles.
    C64,
    /// One byte that is zero or one.
    Bool,
    /// Signed byte.
    I8,
    /// Signed 16-bit integer.
    I16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned byte, often two packed 4-bit weights.
    U8,
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 64-bit integer.
    U64,
    /// Blocks of small numbers that share scales.
    Block(BlockFormat),
    /// A type that the file format knows and this crate does not.
    Other,
}

impl ElementType {
    /// The name that safetensors or GGUF files use.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::F8E8M0 => "F8_E8M0",
            Self::F8E4M3Fnuz => "F8_E4M3FNUZ",
            Self::F8E5M2Fnuz => "F8_E5M2FNUZ",
            Self::F6E2M3 => "F6_E2M3",
            Self::F6E3M2 => "F6_E3M2",
            Self::F4 => "F4",
            Self::F64 => "F64",
            Self::C64 => "C64",
            Self::Bool => "BOOL",
            Self::I8 => "I8",
            Self::I16 => "I16",
            Self::I32 => "I32",
            Self::I64 => "I64",
            Self::U8 => "U8",
            Self::U16 => "U16",
            Self::U32 => "U32",
            Self::U64 => "U64",
            Self::Block(format) => format.facts().name,
            Self::Other => "unknown",
        }
    }

    /// Bytes of one element, or `None` if it is not a whole number of them.
    pub fn bytes(self) -> Option<usize> {
        match self {
            Self::F64 | Self::C64 | Self::I64 | Self::U64 => Some(8),
            Self::F32 | Self::I32 | Self::U32 => Some(4),
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => Some(2),
            Self::F8E4M3
            | Self::F8E5M2
            | Self::F8E8M0
            | Self::F8E4M3Fnuz
            | Self::F8E5M2Fnuz
            | Self::Bool
            | Self::I8
            | Self::U8 => Some(1),
            _ => None,
        }
    }

    /// Numbers and bytes of the smallest piece that is stored by itself: a number, or a block of
    /// them with its scales. `None` if that is not a whole number of bytes.
    pub fn unit(self) -> Option<(usize, usize)> {
        match self {
            Self::Block(format) => Some((format.numbers(), format.bytes())),
            _ => self.bytes().map(|bytes| (1, bytes)),
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl From<Dtype> for ElementType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::BF16,
            Dtype::F8_E4M3 => Self::F8E4M3,
            Dtype::F8_E5M2 => Self::F8E5M2,
            Dtype::F8_E8M0 => Self::F8E8M0,
            Dtype::F8_E4M3FNUZ => Self::F8E4M3Fnuz,
            Dtype::F8_E5M2FNUZ => Self::F8E5M2Fnuz,
            Dtype::F6_E2M3 => Self::F6E2M3,
            Dtype::F6_E3M2 => Self::F6E3M2,
            Dtype::F4 => Self::F4,
            Dtype::F64 => Self::F64,
            Dtype::C64 => Self::C64,
            Dtype::BOOL => Self::Bool,
            Dtype::I8 => Self::I8,
            Dtype::I16 => Self::I16,
            Dtype::I32 => Self::I32,
            Dtype::I64 => Self::I64,
            Dtype::U8 => Self::U8,
            Dtype::U16 => Self::U16,
            Dtype::U32 => Self::U32,
            Dtype::U64 => Self::U64,
            _ => Self::Other,
        }
    }
}
