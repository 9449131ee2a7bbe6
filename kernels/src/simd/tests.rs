//! Every instruction set against scalar arithmetic.

use super::*;
use crate::element::{decode_f8, widen_bf16};

/// Applies one operation of a vector type to all values.
struct Apply<'a> {
    values: &'a [f32],
    operation: Operation,
}

#[derive(Clone, Copy)]
enum Operation {
    Exp,
    Maximum(f32),
    SumOfFirst(usize),
}

impl Program for Apply<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<f32> {
        let mut out = vec![0.0; self.values.len()];
        for (value, out) in self.values.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
            let value = load_slice(simd, value);
            match self.operation {
                Operation::Exp => store_slice(simd, out, simd.exp(value)),
                Operation::Maximum(other) => {
                    store_slice(simd, out, simd.maximum(value, simd.splat(other)));
                }
                Operation::SumOfFirst(count) => {
                    let first = load_slice(simd, &self.values[..count.min(S::LANES)]);
                    out.fill(simd.sum(first));
                }
            }
        }
        out
    }
}

fn apply(values: &[f32], operation: Operation, check: impl Fn(f32, f32)) {
    for instructions in InstructionSet::available() {
        let results = dispatch(instructions, Apply { values, operation });
        for (&value, result) in values.iter().zip(results) {
            check(value, result);
        }
    }
}

#[test]
fn exp_is_within_two_units_in_the_last_place() {
    let values: Vec<f32> = (-8700..8800).map(|step| step as f32 * 0.010_013).collect();
    apply(&values, Operation::Exp, |value, result| {
        let exact = f64::from(value).exp();
        let error = (f64::from(result) - exact).abs() / exact;
        assert!(
            error < 2.0 * f64::from(f32::EPSILON),
            "exp({value}) = {result}, not {exact}"
        );
    });
}

#[test]
fn exp_of_extreme_values() {
    let values = [f32::NEG_INFINITY, -1e30, -104.0, 0.0, 100.0, f32::INFINITY];
    apply(&values, Operation::Exp, |value, result| match value {
        0.0 => assert_eq!(result, 1.0),
        value if value < 0.0 => assert_eq!(result, 0.0),
        _ => assert!(result > 3e38),
    });
    apply(&[f32::NAN; 20], Operation::Exp, |_, result| {
        assert!(result.is_nan())
    });
}

#[test]
fn maximum_and_sums() {
    let values: Vec<f32> = (0..37).map(|value| value as f32 - 17.0).collect();
    apply(&values, Operation::Maximum(3.0), |value, result| {
        assert_eq!(result, value.max(3.0))
    });
    for count in 1..=8 {
        let expected: f32 = values[..count].iter().sum();
        apply(&values, Operation::SumOfFirst(count), |_, result| {
            assert_eq!(result, expected)
        });
    }
}

/// Widens stored numbers with whole and partial vectors.
struct Widen<'a, F: Format> {
    raw: &'a [F::Raw],
}

impl<F: Format> Program for Widen<'_, F> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<f32> {
        let mut out = vec![0.0; self.raw.len()];
        for (raw, out) in self.raw.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
            // SAFETY: as many numbers are readable as are loaded.
            let vector = unsafe {
                if raw.len() == S::LANES {
                    F::load(simd, raw.as_ptr())
                } else {
                    F::load_first(simd, raw.as_ptr(), raw.len())
                }
            };
            store_slice(simd, out, simd.multiply(vector, simd.splat(F::FOLD)));
        }
        out
    }
}

#[test]
fn every_f8_and_bf16_is_widened_exactly() {
    let bytes: Vec<u8> = (0..=255u8).filter(|byte| byte & 0x7f != 0x7f).collect();
    let words: Vec<u16> = (0..=u16::MAX)
        .filter(|&word| !widen_bf16(word).is_nan())
        .collect();
    for instructions in InstructionSet::available() {
        let wide = dispatch(instructions, Widen::<AsF8> { raw: &bytes });
        for (&byte, wide) in bytes.iter().zip(wide) {
            assert_eq!(wide.to_bits(), decode_f8(byte).to_bits(), "{byte:#x}");
        }
        let all: Vec<u8> = (0..=255).collect();
        let wide = dispatch(instructions, Widen::<AsF8OrNan> { raw: &all });
        for (&byte, wide) in all.iter().zip(wide) {
            let expected = decode_f8(byte);
            assert!(
                wide == expected || wide.is_nan() && expected.is_nan(),
                "{byte:#x}"
            );
        }
        let wide = dispatch(instructions, Widen::<AsBf16> { raw: &words });
        for (&word, wide) in words.iter().zip(wide) {
            assert_eq!(wide.to_bits(), widen_bf16(word).to_bits(), "{word:#x}");
        }
    }
}

/// The sums of four products in each lane, of a code and a value that are all the same.
struct DotFour {
    code: u8,
    value: i8,
}

impl Program for DotFour {
    type Output = (Vec<f32>, Vec<f32>);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let codes = simd.splat_integer(i32::from_le_bytes([self.code; 4]));
        let values = simd.splat_integer(i32::from_le_bytes([self.value as u8; 4]));
        let sum = simd.splat_integer(7);
        let (mut any, mut small) = (vec![0.0; S::LANES], vec![0.0; S::LANES]);
        let dot = simd.dot_four(sum, codes, values);
        store_slice(simd, &mut any, simd.numbers(dot));
        let dot = simd.dot_four_small(sum, codes, values);
        store_slice(simd, &mut small, simd.numbers(dot));
        (any, small)
    }
}

#[test]
fn products_of_the_largest_codes_and_values_are_exact() {
    for instructions in InstructionSet::available() {
        for code in [0, 1, 15, 63, 127, 128, 255] {
            for value in [-127, -1, 0, 1, 127] {
                let expected = (7 + 4 * i32::from(code) * i32::from(value)) as f32;
                let (any, small) = dispatch(instructions, DotFour { code, value });
                assert!(any.iter().all(|&sum| sum == expected), "{code} * {value}");
                if code < 128 {
                    assert!(small.iter().all(|&sum| sum == expected), "{code} * {value}");
                }
            }
        }
    }
}
