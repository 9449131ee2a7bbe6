//! Numbers of blocks, written out.

use super::*;
use crate::element::decode_f8;

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

/// A block of these codes, and its numbers.
fn widened(format: BlockFormat, scale: f32, codes: &[u8]) -> Vec<f32> {
    let mut block = vec![0; format.bytes()];
    let separate = format.facts().separate.expect("a scale of its own");
    separate.write_scale(&mut block, scale);
    let first = format.bytes() - separate.code_bytes;
    block[first..].copy_from_slice(codes);
    let mut numbers = vec![f32::NAN; format.numbers()];
    format.widen(&block, &mut numbers);
    numbers
}

#[test]
fn every_byte_stands_for_its_number_times_the_scale() {
    for first in (0..=255_u8).step_by(32) {
        let codes: Vec<u8> = (first..=first + 31).collect();
        let floats = widened(BlockFormat::F8x32, 0.3, &codes);
        let integers = widened(BlockFormat::I8x32, 0.3, &codes);
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
    for format in [BlockFormat::I4x32, BlockFormat::I4x32Bf16] {
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
    let separate = BlockFormat::Nvfp4
        .facts()
        .separate
        .expect("a scale of its own");
    separate.write_scale(&mut block, 3.0);
    // 1, 448, the smallest above 0, and -1.25.
    block[4..8].copy_from_slice(&[0x38, 0x7e, 0x01, 0xba]);
    for (index, byte) in (0..).zip(&mut block[8..]) {
        *byte = (index % 16) | ((15 - index % 16) << 4);
    }
    let mut numbers = [f32::NAN; 64];
    BlockFormat::Nvfp4.widen(&block, &mut numbers);
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

#[test]
fn names_and_numbers_of_gguf_are_told_apart() {
    for &format in BlockFormat::ALL {
        if let Some(number) = format.facts().gguf {
            assert_eq!(BlockFormat::of_gguf(number), Some(format));
        }
    }
}

#[test]
fn a_table_gives_the_numbers_of_iq4_nl() {
    let mut block = [0; 18];
    // 0.5 in half precision.
    block[1] = 0x38;
    for (index, byte) in (0..).zip(&mut block[2..]) {
        *byte = index | ((15 - index) << 4);
    }
    let mut numbers = [f32::NAN; 32];
    BlockFormat::Iq4Nl.widen(&block, &mut numbers);
    let table = [
        -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
    ];
    for (index, &number) in numbers.iter().enumerate() {
        let code = if index < 16 { index } else { 31 - index };
        assert_eq!(number, 0.5 * table[code] as f32);
    }
}
