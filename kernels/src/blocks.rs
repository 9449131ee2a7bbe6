//! Weights that are stored in blocks: small numbers that share scales and minima.
//!
//! Most layouts are those of ggml (`ggml-common.h` and `ggml-quants.c`). A block is unpacked into
//! unsigned codes, one for each number, and a scale and a minimum for each group of numbers; a
//! number is `scale * (code - zero) - minimum`. Products of scales and codes have at most 24
//! significant bits, so they are exact in f32, and a number is the nearest f32 to what the block
//! stores. `scaled` has those of our own.

mod scaled;

pub use scaled::{ScaledFormat, split_nibbles};

/// How blocks are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockFormat {
    /// IEEE half precision, which has no scales: a block is one number.
    F16,
    /// 32 8-bit numbers and a scale.
    Q8_0,
    /// 32 4-bit numbers and a scale.
    Q4_0,
    /// 32 4-bit numbers, a scale and a minimum.
    Q4_1,
    /// 32 4-bit floating-point numbers (E2M1) and a scale that is a power of two (E8M0): the
    /// microscaling format MXFP4 (Open Compute Project 2023).
    Mxfp4,
    /// 32 5-bit numbers and a scale.
    Q5_0,
    /// 32 5-bit numbers, a scale and a minimum.
    Q5_1,
    /// 256 2-bit numbers in groups of 16 with 4-bit scales and minima.
    Q2K,
    /// 256 3-bit numbers in groups of 16 with 6-bit scales.
    Q3K,
    /// 256 4-bit numbers in groups of 32 with 6-bit scales and minima.
    Q4K,
    /// 256 5-bit numbers in groups of 32 with 6-bit scales and minima.
    Q5K,
    /// 256 6-bit numbers in groups of 16 with 8-bit scales.
    Q6K,
    /// Codes behind a scale, as safetensors checkpoints have them in tensors of their own.
    Scaled(ScaledFormat),
}

impl BlockFormat {
    /// All but the scaled ones.
    pub const ALL: [Self; 12] = [
        Self::F16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Mxfp4,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Numbers in a block.
    pub const fn numbers(self) -> usize {
        match self {
            Self::F16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Mxfp4 | Self::Q5_0 | Self::Q5_1 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
            Self::Scaled(format) => format.numbers(),
        }
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Mxfp4 => 17,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
            Self::Scaled(format) => format.bytes(),
        }
    }

    /// Where in a block the half-precision scales are.
    pub const fn scale_offsets(self) -> &'static [usize] {
        match self {
            Self::Mxfp4 => &[],
            Self::F16 | Self::Q8_0 | Self::Q4_0 | Self::Q5_0 => &[0],
            Self::Q4_1 | Self::Q5_1 | Self::Q4K | Self::Q5K => &[0, 2],
            Self::Q2K => &[80, 82],
            Self::Q3K => &[108],
            Self::Q6K => &[208],
            Self::Scaled(_) => &[],
        }
    }

    /// Widens whole blocks. `out` has as many numbers as the blocks.
    #[inline(always)]
    pub fn widen(self, blocks: &[u8], out: &mut [f32]) {
        debug_assert_eq!(
            blocks.len() / self.bytes() * self.numbers(),
            out.len(),
            "numbers of blocks"
        );
        match self {
            Self::F16 => {
                for (out, bits) in out.iter_mut().zip(blocks.as_chunks::<2>().0) {
                    *out = widen_f16(u16::from_le_bytes(*bits));
                }
            }
            Self::Q8_0 => widen_blocks::<34, 32>(blocks, out, q8_0),
            Self::Q4_0 => widen_blocks::<18, 32>(blocks, out, q4_0),
            Self::Q4_1 => widen_blocks::<20, 32>(blocks, out, q4_1),
            Self::Mxfp4 => widen_blocks::<17, 32>(blocks, out, mxfp4),
            Self::Q5_0 => widen_blocks::<22, 32>(blocks, out, q5_0),
            Self::Q5_1 => widen_blocks::<24, 32>(blocks, out, q5_1),
            Self::Q2K => widen_blocks::<84, 256>(blocks, out, q2_k),
            Self::Q3K => widen_blocks::<110, 256>(blocks, out, q3_k),
            Self::Q4K => widen_blocks::<144, 256>(blocks, out, q4_k),
            Self::Q5K => widen_blocks::<176, 256>(blocks, out, q5_k),
            Self::Q6K => widen_blocks::<210, 256>(blocks, out, q6_k),
            Self::Scaled(format) => format.widen(blocks, out),
        }
    }
}

/// The f32 that has the value of these half-precision bits, which are not of NaN or infinity.
#[inline(always)]
pub(crate) fn widen_f16(bits: u16) -> f32 {
    // The exponent is 112 too small for an f32's bias, for subnormal numbers too.
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    f32::from_bits(magnitude.to_bits() | (u32::from(bits & 0x8000) << 16))
}

#[inline(always)]
fn widen_blocks<const BYTES: usize, const NUMBERS: usize>(
    blocks: &[u8],
    out: &mut [f32],
    widen: impl Fn(&[u8; BYTES], &mut [f32; NUMBERS]),
) {
    let (blocks, _) = blocks.as_chunks::<BYTES>();
    let (out, _) = out.as_chunks_mut::<NUMBERS>();
    for (block, out) in blocks.iter().zip(out) {
        widen(block, out);
    }
}

#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    widen_f16(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// `scale * (code - ZERO) - minimum` of one group of numbers.
#[inline(always)]
fn group<const ZERO: i32, const SIZE: usize>(
    out: &mut [f32],
    codes: [u8; SIZE],
    scale: f32,
    minimum: f32,
) {
    for (out, code) in out[..SIZE].iter_mut().zip(codes) {
        *out = scale * (i32::from(code) - ZERO) as f32 - minimum;
    }
}

/// The codes of `SIZE` bytes.
#[inline(always)]
fn codes<const SIZE: usize>(bytes: &[u8], code: impl Fn(usize, u8) -> u8) -> [u8; SIZE] {
    let mut codes = [0; SIZE];
    for (index, (out, &byte)) in codes.iter_mut().zip(&bytes[..SIZE]).enumerate() {
        *out = code(index, byte);
    }
    codes
}

#[inline(always)]
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for (out, &byte) in out.iter_mut().zip(&block[2..]) {
        *out = scale * f32::from(byte as i8);
    }
}

#[inline(always)]
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    let (low, high) = out.split_at_mut(16);
    group::<8, 16>(low, codes(&block[2..], |_, byte| byte & 15), scale, 0.0);
    group::<8, 16>(high, codes(&block[2..], |_, byte| byte >> 4), scale, 0.0);
}

#[inline(always)]
fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, minimum) = (half_at(block, 0), -half_at(block, 2));
    let (low, high) = out.split_at_mut(16);
    group::<0, 16>(low, codes(&block[4..], |_, byte| byte & 15), scale, minimum);
    group::<0, 16>(
        high,
        codes(&block[4..], |_, byte| byte >> 4),
        scale,
        minimum,
    );
}

/// Largest E8M0 scale with which all numbers of an MXFP4 block are finite in f32: `6 * 2^125`.
pub const MXFP4_SCALE_MAX: u8 = 252;

/// Twice the numbers that 16 E2M1 codes stand for, which are whole: 0, 1, 2, 3, 4, 6, 8 and 12, and
/// the same below zero. Computed such that the compiler makes vector code of it.
#[inline(always)]
fn twice_e2m1(bytes: &[u8], code: impl Fn(u8) -> u8) -> [i8; 16] {
    let mut doubled = [0; 16];
    for (doubled, &byte) in doubled.iter_mut().zip(&bytes[..16]) {
        let code = code(byte);
        let magnitude = code & 7;
        let beyond_four = magnitude.saturating_sub(4);
        let largest = magnitude.saturating_sub(6);
        let size = (magnitude + beyond_four + 2 * largest) as i8;
        *doubled = if code & 8 == 0 { size } else { -size };
    }
    doubled
}

#[inline(always)]
fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    // Half the scale, `2^(exponent - 128)`, of which the two smallest are subnormal.
    let half_scale = f32::from_bits(match block[0] {
        exponent @ 0..2 => 0x0020_0000 << exponent,
        exponent => (u32::from(exponent) - 1) << 23,
    });
    let (low, high) = out.split_at_mut(16);
    for (out, numbers) in [
        (low, twice_e2m1(&block[1..], |byte| byte & 15)),
        (high, twice_e2m1(&block[1..], |byte| byte >> 4)),
    ] {
        for (out, number) in out.iter_mut().zip(numbers) {
            *out = half_scale * f32::from(number);
        }
    }
}

/// The 32 codes of 5 bits whose fifth bits are together in the first four bytes.
#[inline(always)]
fn five_bits(bytes: &[u8]) -> [[u8; 16]; 2] {
    let fifth = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let bit = |index: usize| ((fifth >> index) as u8 & 1) << 4;
    [
        codes(&bytes[4..], |index, byte| (byte & 15) | bit(index)),
        codes(&bytes[4..], |index, byte| (byte >> 4) | bit(index + 16)),
    ]
}

#[inline(always)]
fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    let [first, second] = five_bits(&block[2..]);
    let (low, high) = out.split_at_mut(16);
    group::<16, 16>(low, first, scale, 0.0);
    group::<16, 16>(high, second, scale, 0.0);
}

#[inline(always)]
fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (scale, minimum) = (half_at(block, 0), -half_at(block, 2));
    let [first, second] = five_bits(&block[4..]);
    let (low, high) = out.split_at_mut(16);
    group::<0, 16>(low, first, scale, minimum);
    group::<0, 16>(high, second, scale, minimum);
}

#[inline(always)]
fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scale, minimum) = (half_at(block, 80), half_at(block, 82));
    for (index, out) in out.chunks_exact_mut(16).enumerate() {
        // Four groups of 32 share 32 bytes, two bits each.
        let bytes = &block[16 + index / 8 * 32 + index % 2 * 16..];
        let shift = index % 8 / 2 * 2;
        let packed = block[index];
        let group_scale = scale * f32::from(packed & 15);
        let group_minimum = minimum * f32::from(packed >> 4);
        let codes = codes(bytes, |_, byte| (byte >> shift) & 3);
        group::<0, 16>(out, codes, group_scale, group_minimum);
    }
}

#[inline(always)]
fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let (high_bits, rest) = block.split_at(32);
    let (low_bits, scales) = rest.split_at(64);
    let scale = half_at(block, 108);
    for (index, out) in out.chunks_exact_mut(16).enumerate() {
        let low = &low_bits[index / 8 * 32 + index % 2 * 16..][..16];
        let high = &high_bits[index % 2 * 16..][..16];
        let shift = index % 8 / 2 * 2;
        let high_shift = index / 2;
        // Six bits of scale: four in the first eight bytes, two in the last four.
        let four = (scales[index % 8] >> (index / 8 * 4)) & 15;
        let two = (scales[8 + index % 4] >> (index / 4 * 2)) & 3;
        let group_scale = scale * f32::from((four | (two << 4)) as i8 - 32);
        let codes = codes(low, |at, byte| {
            ((byte >> shift) & 3) | (((high[at] >> high_shift) & 1) << 2)
        });
        group::<4, 16>(out, codes, group_scale, 0.0);
    }
}

/// Scale and minimum, six bits each, of one of eight groups.
#[inline(always)]
fn six_bit_pair(packed: &[u8], index: usize) -> (f32, f32) {
    let (scale, minimum) = if index < 4 {
        (packed[index] & 63, packed[index + 4] & 63)
    } else {
        let low = packed[index + 4];
        (
            (low & 15) | (packed[index - 4] >> 6 << 4),
            (low >> 4) | (packed[index] >> 6 << 4),
        )
    };
    (f32::from(scale), f32::from(minimum))
}

#[inline(always)]
fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    for (index, out) in out.chunks_exact_mut(32).enumerate() {
        let (group_scale, group_minimum) = six_bit_pair(&block[4..16], index);
        let shift = index % 2 * 4;
        let codes = codes(&block[16 + index / 2 * 32..], |_, byte| {
            (byte >> shift) & 15
        });
        group::<0, 32>(out, codes, scale * group_scale, minimum * group_minimum);
    }
}

#[inline(always)]
fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let fifth = &block[16..48];
    for (index, out) in out.chunks_exact_mut(32).enumerate() {
        let (group_scale, group_minimum) = six_bit_pair(&block[4..16], index);
        let shift = index % 2 * 4;
        let codes = codes(&block[48 + index / 2 * 32..], |at, byte| {
            ((byte >> shift) & 15) | (((fifth[at] >> index) & 1) << 4)
        });
        group::<0, 32>(out, codes, scale * group_scale, minimum * group_minimum);
    }
}

#[inline(always)]
fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let (low_bits, rest) = block.split_at(128);
    let (high_bits, scales) = rest.split_at(64);
    let scale = half_at(block, 208);
    for (index, out) in out.chunks_exact_mut(16).enumerate() {
        // Half a block is four groups of 32: low nibbles of two times 32 bytes, then the high ones.
        let (half, quarter, side) = (index / 8, index % 8 / 2, index % 2);
        let low = &low_bits[half * 64 + quarter % 2 * 32 + side * 16..][..16];
        let high = &high_bits[half * 32 + side * 16..][..16];
        let (shift, high_shift) = (quarter / 2 * 4, quarter * 2);
        let group_scale = scale * f32::from(scales[index] as i8);
        let codes = codes(low, |at, byte| {
            ((byte >> shift) & 15) | (((high[at] >> high_shift) & 3) << 4)
        });
        group::<32, 16>(out, codes, group_scale, 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microscaled_numbers_are_e2m1_times_a_power_of_two() {
        const MAGNITUDES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        for exponent in 0..=MXFP4_SCALE_MAX {
            let mut block = [exponent; 17];
            for (index, byte) in (0..).zip(&mut block[1..]) {
                // Every code in the low half, and in the high one from the other end.
                *byte = index | (15 - index) << 4;
            }
            let mut numbers = [f32::NAN; 32];
            BlockFormat::Mxfp4.widen(&block, &mut numbers);
            let scale = 2_f64.powi(i32::from(exponent) - 127);
            for (index, &number) in numbers.iter().enumerate() {
                let code = if index < 16 { index } else { 31 - index };
                let sign = if code < 8 { 1.0 } else { -1.0 };
                let expected = sign * f64::from(MAGNITUDES[code % 8]) * scale;
                assert_eq!(f64::from(number), expected, "code {code}, scale {exponent}");
            }
        }
    }
}
