//! Number formats in which weights and the KV cache are stored.

/// A storage format. Arithmetic is always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// IEEE single precision, little-endian.
    F32,
    /// The upper half of an f32, little-endian.
    BF16,
    /// 1 sign, 4 exponent and 3 mantissa bits, no infinities, largest finite value 448
    /// (Micikevicius et al. 2022).
    F8E4M3,
}

/// Largest finite E4M3 value.
pub const F8_MAX: f32 = 448.0;

impl Element {
    /// Bytes of one number.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::BF16 => 2,
            Self::F8E4M3 => 1,
        }
    }

    /// Reads number `index` of an array. For references and tests; the fast paths read vectors.
    pub fn read(self, bytes: &[u8], index: usize) -> f32 {
        match self {
            Self::F32 => {
                let [a, b, c, d] = [0, 1, 2, 3].map(|byte| bytes[index * 4 + byte]);
                f32::from_le_bytes([a, b, c, d])
            }
            Self::BF16 => widen_bf16(u16::from_le_bytes([bytes[index * 2], bytes[index * 2 + 1]])),
            Self::F8E4M3 => decode_f8(bytes[index]),
        }
    }

    /// Rounds `value` to this format (ties to even, E4M3 saturates) and stores it as number
    /// `index` of an array.
    #[inline]
    pub fn write(self, bytes: &mut [u8], index: usize, value: f32) {
        match self {
            Self::F32 => bytes[index * 4..][..4].copy_from_slice(&value.to_le_bytes()),
            Self::BF16 => {
                bytes[index * 2..][..2].copy_from_slice(&narrow_bf16(value).to_le_bytes())
            }
            Self::F8E4M3 => bytes[index] = encode_f8(value),
        }
    }

    /// `value` after a round trip through this format.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::BF16 => widen_bf16(narrow_bf16(value)),
            Self::F8E4M3 => decode_f8(encode_f8(value)),
        }
    }
}

/// The f32 that has the given BF16 bits.
#[inline(always)]
pub fn widen_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest BF16, ties to even; without branches, unlike that of [`half`].
#[inline(always)]
pub fn narrow_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let odd = (bits >> 16) & 1;
    let rounded = bits.wrapping_add(0x7fff + odd) >> 16;
    // What is not a number stays so, quietly.
    let quiet = (bits >> 16) | 0x40;
    (if value.is_nan() { quiet } else { rounded }) as u16
}

/// The value of an E4M3 byte.
pub fn decode_f8(byte: u8) -> f32 {
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from((byte >> 3) & 0xf);
    let mantissa = f32::from(byte & 7);
    match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => sign * mantissa * 2f32.powi(-9),
        _ => sign * (8.0 + mantissa) * 2f32.powi(exponent - 10),
    }
}

/// The nearest E4M3 byte, ties to even; magnitudes beyond 448 become 448, NaN stays NaN.
#[inline]
pub fn encode_f8(value: f32) -> u8 {
    let sign = ((value.to_bits() >> 24) & 0x80) as u8;
    if value.is_nan() {
        return sign | 0x7f;
    }
    let magnitude = round_f8(value).abs();
    if magnitude < 0.015_625 {
        // Subnormal: a multiple of 2^-9.
        return sign | (magnitude * 512.0) as u8;
    }
    let bits = magnitude.to_bits();
    let exponent = (bits >> 23) as u8 - (127 - 7);
    sign | (exponent << 3) | ((bits >> 20) & 7) as u8
}

/// `value` rounded to the nearest E4M3 value, ties to even, saturating at ±448; NaN stays NaN.
/// Without branches, so that loops over it vectorise.
#[inline(always)]
pub fn round_f8(value: f32) -> f32 {
    let magnitude = value.abs();
    // The f32 numbers of [2^14, 2^15) are 2^-9 apart, as E4M3's subnormals are.
    let subnormal = (magnitude + 16_384.0) - 16_384.0;
    let bits = magnitude.to_bits();
    let rounded = bits.wrapping_add(0x7_ffff + ((bits >> 20) & 1)) & !0xf_ffff;
    let normal = f32::from_bits(rounded);
    let finite = if magnitude < 0.015_625 {
        subnormal
    } else {
        normal
    };
    let clamped = if finite > F8_MAX { F8_MAX } else { finite };
    let kept = if value.is_nan() { value } else { clamped };
    kept.copysign(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f8_value_survives_a_round_trip() {
        for byte in 0..=255u8 {
            let value = decode_f8(byte);
            if value.is_nan() {
                assert_eq!(byte & 0x7f, 0x7f);
                assert!(decode_f8(encode_f8(value)).is_nan());
            } else {
                assert_eq!(encode_f8(value), byte, "{value}");
                assert_eq!(round_f8(value).to_bits(), value.to_bits());
            }
        }
    }

    #[test]
    fn f8_rounds_to_the_nearest_value_with_ties_to_even() {
        let finite: Vec<f32> = (0..0x7f).map(decode_f8).collect();
        for (index, pair) in finite.windows(2).enumerate() {
            let middle = (pair[0] + pair[1]) / 2.0;
            let even = if index % 2 == 0 { pair[0] } else { pair[1] };
            let below = f32::from_bits(middle.to_bits() - 1);
            let above = f32::from_bits(middle.to_bits() + 1);
            for sign in [1.0, -1.0] {
                assert_eq!(round_f8(sign * middle), sign * even);
                assert_eq!(round_f8(sign * below), sign * pair[0]);
                assert_eq!(round_f8(sign * above), sign * pair[1]);
                assert_eq!(decode_f8(encode_f8(sign * middle)), sign * even);
            }
        }
    }

    #[test]
    fn f8_saturates() {
        for value in [448.1, 464.0, 1e9, f32::MAX, f32::INFINITY] {
            assert_eq!(round_f8(value), F8_MAX);
            assert_eq!(encode_f8(-value), 0xfe);
        }
    }

    #[test]
    fn arrays_hold_what_was_written() {
        for element in [Element::F32, Element::BF16, Element::F8E4M3] {
            let mut bytes = vec![0; 3 * element.bytes()];
            element.write(&mut bytes, 1, -1.3);
            assert_eq!(element.read(&bytes, 1), element.round(-1.3));
            assert_eq!(element.read(&bytes, 0), 0.0);
            assert!((element.round(-1.3) + 1.3).abs() < 0.08);
        }
    }
}
