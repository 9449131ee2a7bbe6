//! What formats have in common when blocks are unpacked into f32, number by number.

/// The f32 that has the value of these half-precision bits, which are not of NaN or infinity.
#[inline(always)]
pub(crate) fn widen_f16(bits: u16) -> f32 {
    // The exponent is 112 too small for an f32's bias, for subnormal numbers too.
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    f32::from_bits(magnitude.to_bits() | (u32::from(bits & 0x8000) << 16))
}

#[inline(always)]
pub(super) fn widen_blocks<const BYTES: usize, const NUMBERS: usize>(
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
pub(super) fn half_at(block: &[u8], at: usize) -> f32 {
    widen_f16(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// `scale * (code - ZERO) - minimum` of one group of numbers.
#[inline(always)]
pub(super) fn group<const ZERO: i32, const SIZE: usize>(
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
pub(super) fn codes<const SIZE: usize>(bytes: &[u8], code: impl Fn(usize, u8) -> u8) -> [u8; SIZE] {
    let mut codes = [0; SIZE];
    for (index, (out, &byte)) in codes.iter_mut().zip(&bytes[..SIZE]).enumerate() {
        *out = code(index, byte);
    }
    codes
}

/// Twice the number that an E2M1 code stands for, which is whole: 0, 1, 2, 3, 4, 6, 8 or 12, and the
/// same below zero. Computed such that the compiler makes vector code of it.
#[inline(always)]
pub(super) fn twice_e2m1(code: u8) -> i8 {
    let magnitude = code & 7;
    let size = (magnitude + magnitude.saturating_sub(4) + 2 * magnitude.saturating_sub(6)) as i8;
    if code & 8 == 0 { size } else { -size }
}

/// The 32 codes of 5 bits whose fifth bits are together in the first four bytes.
#[inline(always)]
pub(super) fn five_bits(bytes: &[u8]) -> [[u8; 16]; 2] {
    let fifth = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let bit = |index: usize| ((fifth >> index) as u8 & 1) << 4;
    [
        codes(&bytes[4..], |index, byte| (byte & 15) | bit(index)),
        codes(&bytes[4..], |index, byte| (byte >> 4) | bit(index + 16)),
    ]
}

/// Scale and minimum, six bits each, of one of eight groups.
#[inline(always)]
pub(super) fn six_bit_pair(packed: &[u8], index: usize) -> (f32, f32) {
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
pub(super) fn single_at(block: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// The value of an E4M3 byte that is not NaN, such that the compiler makes vector code of it.
#[inline(always)]
pub(super) fn e4m3(byte: u8) -> f32 {
    let magnitude = u32::from(byte & 0x7f);
    // The exponent is 120 too small for an f32's bias; subnormal numbers are multiples of 2^-9.
    let normal = f32::from_bits((magnitude << 20) + (120 << 23));
    let subnormal = f32::from_bits((magnitude << 20) + (121 << 23)) - 0.015_625;
    let value = if magnitude < 8 { subnormal } else { normal };
    f32::from_bits(value.to_bits() | (u32::from(byte & 0x80) << 24))
}
