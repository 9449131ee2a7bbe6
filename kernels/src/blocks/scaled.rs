//! Blocks of floating-point codes or signed integers behind a scale: what safetensors checkpoints
//! store as a tensor of codes and a tensor of scales, interleaved.

use super::widen_blocks;
use crate::element::widen_bf16;

/// What a block holds. The scale comes first, then the codes in order; of 4-bit codes, each 16
/// bytes hold 32, the first half in their low bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaledFormat {
    /// 128 E4M3 numbers and an f32 scale.
    F8x128,
    /// 32 E4M3 numbers and an f32 scale.
    F8x32,
    /// 128 signed bytes and an f32 scale.
    I8x128,
    /// 32 signed bytes and an f32 scale.
    I8x32,
    /// 128 4-bit integers, stored with 8 added, and an f32 scale.
    I4x128,
    /// 32 4-bit integers, stored with 8 added, and an f32 scale.
    I4x32,
    /// 32 4-bit integers, stored with 8 added, and a BF16 scale.
    I4x32Bf16,
    /// 64 E2M1 numbers, one E4M3 scale for each 16 of them, and an f32 by which these are divided
    /// (NVFP4; NVIDIA 2025, "Pretraining Large Language Models with NVFP4").
    Nvfp4,
}

impl ScaledFormat {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::F8x128,
        Self::F8x32,
        Self::I8x128,
        Self::I8x32,
        Self::I4x128,
        Self::I4x32,
        Self::I4x32Bf16,
        Self::Nvfp4,
    ];

    /// Numbers in a block.
    pub const fn numbers(self) -> usize {
        match self {
            Self::F8x128 | Self::I8x128 | Self::I4x128 => 128,
            Self::F8x32 | Self::I8x32 | Self::I4x32 | Self::I4x32Bf16 => 32,
            Self::Nvfp4 => 64,
        }
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F8x128 | Self::I8x128 => 132,
            Self::F8x32 | Self::I8x32 => 36,
            Self::I4x128 => 68,
            Self::I4x32 => 20,
            Self::I4x32Bf16 => 18,
            Self::Nvfp4 => 40,
        }
    }

    /// Bytes of the codes, which are the last of a block.
    pub const fn code_bytes(self) -> usize {
        match self {
            Self::F8x128 | Self::F8x32 | Self::I8x128 | Self::I8x32 => self.numbers(),
            Self::I4x128 | Self::I4x32 | Self::I4x32Bf16 | Self::Nvfp4 => self.numbers() / 2,
        }
    }

    /// Stores the scale of a block; for [`Nvfp4`](Self::Nvfp4) what its scales are divided by.
    /// Formats with a BF16 scale keep its upper half, so that it must be a BF16 number.
    pub fn write_scale(self, block: &mut [u8], scale: f32) {
        let bytes = scale.to_le_bytes();
        match self {
            Self::I4x32Bf16 => block[..2].copy_from_slice(&bytes[2..]),
            _ => block[..4].copy_from_slice(&bytes),
        }
    }

    #[inline(always)]
    pub(super) fn widen(self, blocks: &[u8], out: &mut [f32]) {
        match self {
            Self::F8x128 => widen_blocks::<132, 128>(blocks, out, f8),
            Self::F8x32 => widen_blocks::<36, 32>(blocks, out, f8),
            Self::I8x128 => widen_blocks::<132, 128>(blocks, out, i8),
            Self::I8x32 => widen_blocks::<36, 32>(blocks, out, i8),
            Self::I4x128 => widen_blocks::<68, 128>(blocks, out, |block: &[u8; 68], out| {
                i4(&block[4..], single_at(block, 0), out);
            }),
            Self::I4x32 => widen_blocks::<20, 32>(blocks, out, |block: &[u8; 20], out| {
                i4(&block[4..], single_at(block, 0), out);
            }),
            Self::I4x32Bf16 => widen_blocks::<18, 32>(blocks, out, |block: &[u8; 18], out| {
                let scale = widen_bf16(u16::from_le_bytes([block[0], block[1]]));
                i4(&block[2..], scale, out);
            }),
            Self::Nvfp4 => widen_blocks::<40, 64>(blocks, out, nvfp4),
        }
    }
}

/// Brings 32 4-bit codes, of which neighbours share a byte, the first in its low bits, into the
/// order of blocks.
pub fn split_nibbles(pairs: &[u8; 16], out: &mut [u8; 16]) {
    for (index, out) in out.iter_mut().enumerate() {
        let nibble = |number: usize| (pairs[number / 2] >> (number % 2 * 4)) & 15;
        *out = nibble(index) | (nibble(index + 16) << 4);
    }
}

#[inline(always)]
fn single_at(block: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// The value of an E4M3 byte that is not NaN, such that the compiler makes vector code of it.
#[inline(always)]
fn e4m3(byte: u8) -> f32 {
    let magnitude = u32::from(byte & 0x7f);
    // The exponent is 120 too small for an f32's bias; subnormal numbers are multiples of 2^-9.
    let normal = f32::from_bits((magnitude << 20) + (120 << 23));
    let subnormal = f32::from_bits((magnitude << 20) + (121 << 23)) - 0.015_625;
    let value = if magnitude < 8 { subnormal } else { normal };
    f32::from_bits(value.to_bits() | (u32::from(byte & 0x80) << 24))
}

#[inline(always)]
fn f8<const BYTES: usize, const NUMBERS: usize>(block: &[u8; BYTES], out: &mut [f32; NUMBERS]) {
    let scale = single_at(block, 0);
    for (out, &byte) in out.iter_mut().zip(&block[4..]) {
        *out = scale * e4m3(byte);
    }
}

#[inline(always)]
fn i8<const BYTES: usize, const NUMBERS: usize>(block: &[u8; BYTES], out: &mut [f32; NUMBERS]) {
    let scale = single_at(block, 0);
    for (out, &byte) in out.iter_mut().zip(&block[4..]) {
        *out = scale * f32::from(byte as i8);
    }
}

#[inline(always)]
fn i4(codes: &[u8], scale: f32, out: &mut [f32]) {
    let (codes, _) = codes.as_chunks::<16>();
    for (codes, out) in codes.iter().zip(out.as_chunks_mut::<32>().0) {
        let (low, high) = out.split_at_mut(16);
        for ((low, high), &byte) in low.iter_mut().zip(high).zip(codes) {
            *low = scale * f32::from((byte & 15) as i8 - 8);
            *high = scale * f32::from((byte >> 4) as i8 - 8);
        }
    }
}

/// Twice the number that an E2M1 code stands for, which is whole: 0, 1, 2, 3, 4, 6, 8 or 12, and the
/// same below zero.
#[inline(always)]
fn twice_e2m1(code: u8) -> i8 {
    let magnitude = code & 7;
    let size = magnitude + magnitude.saturating_sub(4) + 2 * magnitude.saturating_sub(6);
    if code & 8 == 0 {
        size as i8
    } else {
        -(size as i8)
    }
}

#[inline(always)]
fn nvfp4(block: &[u8; 40], out: &mut [f32; 64]) {
    let divisor = single_at(block, 0);
    let (codes, _) = block[8..].as_chunks::<16>();
    let (groups, _) = out.as_chunks_mut::<16>();
    for (index, out) in groups.iter_mut().enumerate() {
        // Numbers are stored doubled: then they are whole.
        let half_scale = e4m3(block[4 + index]) / divisor * 0.5;
        let shift = index % 2 * 4;
        for (out, &byte) in out.iter_mut().zip(&codes[index / 2]) {
            *out = half_scale * f32::from(twice_e2m1((byte >> shift) & 15));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::decode_f8;

    /// A block of these codes, and its numbers.
    fn widened(format: ScaledFormat, scale: f32, codes: &[u8]) -> Vec<f32> {
        let mut block = vec![0; format.bytes()];
        format.write_scale(&mut block, scale);
        let first = format.bytes() - format.code_bytes();
        block[first..].copy_from_slice(codes);
        let mut numbers = vec![f32::NAN; format.numbers()];
        format.widen(&block, &mut numbers);
        numbers
    }

    #[test]
    fn every_byte_stands_for_its_number_times_the_scale() {
        for first in (0..=255_u8).step_by(32) {
            let codes: Vec<u8> = (first..=first + 31).collect();
            let floats = widened(ScaledFormat::F8x32, 0.3, &codes);
            let integers = widened(ScaledFormat::I8x32, 0.3, &codes);
            for (index, &code) in codes.iter().enumerate() {
                let number = decode_f8(code);
                if !number.is_nan() {
                    assert_eq!(floats[index].to_bits(), (0.3 * number).to_bits());
                }
                assert_eq!(integers[index], 0.3 * f32::from(code as i8));
            }
        }
    }

    #[test]
    fn four_bit_codes_in_pairs_come_out_in_their_order() {
        let numbers: Vec<u8> = (0..32).map(|index| (index * 7 + index / 16) % 16).collect();
        let mut pairs = [0; 16];
        for (pair, numbers) in pairs.iter_mut().zip(numbers.as_chunks::<2>().0) {
            *pair = numbers[0] | (numbers[1] << 4);
        }
        let mut codes = [0; 16];
        split_nibbles(&pairs, &mut codes);
        for format in [ScaledFormat::I4x32, ScaledFormat::I4x32Bf16] {
            let widened = widened(format, -0.5, &codes);
            for (&number, widened) in numbers.iter().zip(widened) {
                assert_eq!(widened, -0.5 * (f32::from(number) - 8.0));
            }
        }
    }

    #[test]
    fn groups_of_sixteen_have_a_scale_of_their_own() {
        const MAGNITUDES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        let mut block = [0; 40];
        ScaledFormat::Nvfp4.write_scale(&mut block, 3.0);
        // 1, 448, the smallest above 0, and -1.25.
        block[4..8].copy_from_slice(&[0x38, 0x7e, 0x01, 0xba]);
        for (index, byte) in (0..).zip(&mut block[8..]) {
            *byte = (index % 16) | ((15 - index % 16) << 4);
        }
        let mut numbers = [f32::NAN; 64];
        ScaledFormat::Nvfp4.widen(&block, &mut numbers);
        for (index, &number) in numbers.iter().enumerate() {
            let code = match index / 16 % 2 {
                0 => index % 16,
                _ => 15 - index % 16,
            };
            let sign = if code < 8 { 1.0 } else { -1.0 };
            let scale = [1.0, 448.0, 0.001_953_125, -1.25][index / 16] / 3.0_f32;
            assert_eq!(
                number,
                sign * MAGNITUDES[code % 8] * scale,
                "number {index}"
            );
        }
    }
}
