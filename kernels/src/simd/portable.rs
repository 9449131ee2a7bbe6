//! Vectors as arrays, which the compiler turns into the baseline's instructions.

use super::{F8_TABLE, Simd};
use crate::element::widen_bf16;
use crate::formats::widen_f16;

const LANES: usize = 8;

/// Works on every processor.
#[derive(Clone, Copy)]
pub(super) struct Portable;

macro_rules! lanewise {
    ($a:ident, $b:ident, $operation:expr) => {{
        let mut result = [0.0; LANES];
        for lane in 0..LANES {
            let ($a, $b) = ($a[lane], $b[lane]);
            result[lane] = $operation;
        }
        result
    }};
}

impl Simd for Portable {
    const LANES: usize = LANES;
    const MANY_REGISTERS: bool = false;
    type Vector = [f32; LANES];
    type Integers = [u32; LANES];

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Vector {
        [value; LANES]
    }

    #[inline(always)]
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        lanewise!(a, b, a + b)
    }

    #[inline(always)]
    fn subtract(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        lanewise!(a, b, a - b)
    }

    #[inline(always)]
    fn multiply(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        lanewise!(a, b, a * b)
    }

    #[inline(always)]
    fn divide(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        lanewise!(a, b, a / b)
    }

    #[inline(always)]
    fn maximum(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        lanewise!(a, b, if a > b { a } else { b })
    }

    #[inline(always)]
    fn multiply_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        // Not f32::mul_add, which is a library call where the baseline has no such instruction.
        self.add(self.multiply(a, b), c)
    }

    #[inline(always)]
    fn exp(self, value: Self::Vector) -> Self::Vector {
        value.map(f32::exp)
    }

    #[inline(always)]
    fn sum(self, value: Self::Vector) -> f32 {
        let [a, b, c, d, e, f, g, h] = value;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }

    #[inline(always)]
    fn largest(self, value: Self::Vector) -> f32 {
        value.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    fn invalidate_beyond(self, value: Self::Vector, limit: f32) -> Self::Vector {
        value.map(|value| if value.abs() > limit { f32::NAN } else { value })
    }

    #[inline(always)]
    unsafe fn load(self, pointer: *const f32) -> Self::Vector {
        // SAFETY: LANES numbers are readable by contract.
        unsafe { pointer.cast::<[f32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, pointer: *const u16) -> Self::Vector {
        // SAFETY: LANES numbers are readable by contract.
        let bits = unsafe { pointer.cast::<[u16; LANES]>().read_unaligned() };
        let mut result = [0.0; LANES];
        for lane in 0..LANES {
            result[lane] = widen_bf16(bits[lane]);
        }
        result
    }

    #[inline(always)]
    unsafe fn load_f8(self, pointer: *const u8) -> Self::Vector {
        // SAFETY: LANES numbers are readable by contract.
        let bytes = unsafe { pointer.cast::<[u8; LANES]>().read_unaligned() };
        let mut result = [0.0; LANES];
        for lane in 0..LANES {
            result[lane] = F8_TABLE[usize::from(bytes[lane])];
        }
        result
    }

    #[inline(always)]
    unsafe fn store(self, pointer: *mut f32, value: Self::Vector) {
        // SAFETY: LANES numbers are writable by contract.
        unsafe { pointer.cast::<[f32; LANES]>().write_unaligned(value) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, pointer: *const u8) -> Self::Vector {
        // SAFETY: LANES numbers are readable by contract.
        let bits = unsafe { pointer.cast::<[u16; LANES]>().read_unaligned() };
        bits.map(widen_f16)
    }

    #[inline(always)]
    fn splat_integer(self, value: i32) -> Self::Integers {
        [value as u32; LANES]
    }

    #[inline(always)]
    fn and(self, a: Self::Integers, b: Self::Integers) -> Self::Integers {
        std::array::from_fn(|lane| a[lane] & b[lane])
    }

    #[inline(always)]
    fn or(self, a: Self::Integers, b: Self::Integers) -> Self::Integers {
        std::array::from_fn(|lane| a[lane] | b[lane])
    }

    #[inline(always)]
    fn exclusive_or(self, a: Self::Integers, b: Self::Integers) -> Self::Integers {
        std::array::from_fn(|lane| a[lane] ^ b[lane])
    }

    #[inline(always)]
    fn shift_right(self, value: Self::Integers, bits: u32) -> Self::Integers {
        value.map(|value| value >> bits)
    }

    #[inline(always)]
    fn shift_left(self, value: Self::Integers, bits: u32) -> Self::Integers {
        value.map(|value| value << bits)
    }

    #[inline(always)]
    fn dot_four(
        self,
        sum: Self::Integers,
        codes: Self::Integers,
        values: Self::Integers,
    ) -> Self::Integers {
        std::array::from_fn(|lane| {
            let values = values[lane].to_le_bytes();
            let codes = codes[lane].to_le_bytes();
            let product = |at: usize| i32::from(codes[at]) * i32::from(values[at] as i8);
            let products = product(0) + product(1) + product(2) + product(3);
            sum[lane].wrapping_add(products as u32)
        })
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16], codes: Self::Integers) -> Self::Integers {
        codes.map(|codes| {
            let bytes = codes.to_le_bytes();
            u32::from_le_bytes(bytes.map(|code| table[usize::from(code & 15)]))
        })
    }

    #[inline(always)]
    fn numbers_of_bits(self, bits: Self::Integers) -> Self::Vector {
        bits.map(f32::from_bits)
    }

    #[inline(always)]
    fn numbers(self, value: Self::Integers) -> Self::Vector {
        value.map(|value| value as i32 as f32)
    }

    #[inline(always)]
    unsafe fn load_integers(self, pointer: *const u8) -> Self::Integers {
        // SAFETY: four bytes for each lane are readable by contract.
        let words = unsafe { pointer.cast::<[u32; LANES]>().read_unaligned() };
        words.map(u32::from_le)
    }

    #[inline(always)]
    unsafe fn load_bytes(self, pointer: *const u8) -> Self::Integers {
        // SAFETY: LANES bytes are readable by contract.
        let bytes = unsafe { pointer.cast::<[u8; LANES]>().read_unaligned() };
        bytes.map(u32::from)
    }
}
