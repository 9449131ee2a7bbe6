//! AVX2 and AVX-512.
#![allow(
    clippy::wildcard_imports,
    reason = "intrinsics, whose names are their own prefix"
)]

use std::arch::x86_64::*;

use super::{Program, Simd};

/// # Safety
/// The processor has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run_avx2<P: Program>(program: P) -> P::Output {
    program.run(Avx2(()))
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and VNNI besides AVX2, FMA and F16C.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn run_avx512<P: Program>(program: P) -> P::Output {
    program.run(Avx512(()))
}

/// Proof of AVX2, FMA and F16C; made only by `run_avx2`.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// Proof of AVX-512 and VNNI; made only by `run_avx512`.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

// Cephes' expf: e^x = 2^n * e^r with |r| <= ln(2) / 2, and a polynomial for e^r.
const LOG2_E: f32 = std::f32::consts::LOG2_E;
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
const POLYNOMIAL: [f32; 6] = [
    1.987_569_2e-4,
    1.398_2e-3,
    8.333_452e-3,
    4.166_579_6e-2,
    1.666_666_5e-1,
    5e-1,
];
/// Results of smaller arguments would not be normal numbers.
const EXP_MIN: f32 = -87.336_54;
const EXP_MAX: f32 = 88.722_83;

/// `e^x` split in the exponent `n` and `e^r`.
#[inline(always)]
fn exp_parts<S: Simd>(simd: S, x: S::Vector, n: S::Vector) -> S::Vector {
    let r = simd.multiply_add(n, simd.splat(-LN_2_HIGH), x);
    let r = simd.multiply_add(n, simd.splat(-LN_2_LOW), r);
    let mut p = simd.splat(POLYNOMIAL[0]);
    for coefficient in &POLYNOMIAL[1..] {
        p = simd.multiply_add(p, r, simd.splat(*coefficient));
    }
    let square = simd.multiply(r, r);
    simd.add(simd.multiply_add(p, square, r), simd.splat(1.0))
}

// SAFETY (of every block below): `self` proves that the processor has the instructions; pointers
// are valid by the contract of the trait's unsafe methods.
macro_rules! proven {
    ($expression:expr) => {
        // SAFETY: see the comment above this macro.
        unsafe { $expression }
    };
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const MANY_REGISTERS: bool = false;
    type Vector = __m256;
    type Integers = __m256i;

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        proven!(_mm256_set1_ps(value))
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn subtract(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn multiply(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn divide(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn maximum(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn multiply_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        proven!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn exp(self, value: __m256) -> __m256 {
        proven!({
            // Constants come first: max and min yield their second operand if one is NaN.
            let above = _mm256_max_ps(_mm256_set1_ps(EXP_MIN), value);
            let x = _mm256_min_ps(_mm256_set1_ps(EXP_MAX), above);
            let scaled = _mm256_mul_ps(x, _mm256_set1_ps(LOG2_E));
            let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(scaled);
            let fraction = exp_parts(self, x, n);
            // 2^128 is no f32, hence two factors.
            let integer = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(integer);
            let rest = _mm256_sub_epi32(integer, half);
            let bias = _mm256_set1_epi32(127);
            let first = _mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias));
            let second = _mm256_slli_epi32::<23>(_mm256_add_epi32(rest, bias));
            let grown = _mm256_mul_ps(fraction, _mm256_castsi256_ps(first));
            let result = _mm256_mul_ps(grown, _mm256_castsi256_ps(second));
            let tiny = _mm256_cmp_ps::<_CMP_LT_OQ>(value, _mm256_set1_ps(EXP_MIN));
            _mm256_andnot_ps(tiny, result)
        })
    }

    #[inline(always)]
    fn sum(self, value: __m256) -> f32 {
        proven!({
            let low = _mm256_castps256_ps128(value);
            let high = _mm256_extractf128_ps::<1>(value);
            let four = _mm_add_ps(low, high);
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn largest(self, value: __m256) -> f32 {
        proven!({
            let low = _mm256_castps256_ps128(value);
            let four = _mm_max_ps(low, _mm256_extractf128_ps::<1>(value));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn invalidate_beyond(self, value: __m256, limit: f32) -> __m256 {
        proven!({
            let magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0), value);
            // All ones are a NaN.
            let beyond = _mm256_cmp_ps::<_CMP_GT_OQ>(magnitude, _mm256_set1_ps(limit));
            _mm256_or_ps(value, beyond)
        })
    }

    #[inline(always)]
    fn prefetch(self, line: *const u8) {
        proven!(_mm_prefetch::<_MM_HINT_T0>(line.cast()))
    }

    #[inline(always)]
    unsafe fn load(self, pointer: *const f32) -> __m256 {
        proven!(_mm256_loadu_ps(pointer))
    }

    #[inline(always)]
    unsafe fn load_bf16(self, pointer: *const u16) -> __m256 {
        proven!({
            let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(pointer.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words))
        })
    }

    #[inline(always)]
    unsafe fn load_f8(self, pointer: *const u8) -> __m256 {
        proven!({
            // Sign extension doubles the sign bit; shifted by 7, the mask drops the second one.
            let words = _mm_cvtepi8_epi16(_mm_loadl_epi64(pointer.cast()));
            let mask = _mm_set1_epi16(0xbf80_u16 as i16);
            _mm256_cvtph_ps(_mm_and_si128(_mm_slli_epi16::<7>(words), mask))
        })
    }

    #[inline(always)]
    unsafe fn store(self, pointer: *mut f32, value: __m256) {
        proven!(_mm256_storeu_ps(pointer, value))
    }

    #[inline(always)]
    unsafe fn load_f16(self, pointer: *const u8) -> __m256 {
        proven!(_mm256_cvtph_ps(_mm_loadu_si128(pointer.cast())))
    }

    #[inline(always)]
    fn splat_integer(self, value: i32) -> __m256i {
        proven!(_mm256_set1_epi32(value))
    }

    #[inline(always)]
    fn and(self, a: __m256i, b: __m256i) -> __m256i {
        proven!(_mm256_and_si256(a, b))
    }

    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        proven!(_mm256_or_si256(a, b))
    }

    #[inline(always)]
    fn exclusive_or(self, a: __m256i, b: __m256i) -> __m256i {
        proven!(_mm256_xor_si256(a, b))
    }

    #[inline(always)]
    fn shift_right(self, value: __m256i, bits: u32) -> __m256i {
        proven!(_mm256_srl_epi32(value, _mm_cvtsi32_si128(bits as i32)))
    }

    #[inline(always)]
    fn shift_left(self, value: __m256i, bits: u32) -> __m256i {
        proven!(_mm256_sll_epi32(value, _mm_cvtsi32_si128(bits as i32)))
    }

    #[inline(always)]
    fn dot_four(self, sum: __m256i, codes: __m256i, values: __m256i) -> __m256i {
        proven!({
            // Sixteen bits hold any product of two bytes' halves: even bytes, then odd ones.
            let even = _mm256_madd_epi16(
                _mm256_and_si256(codes, _mm256_set1_epi16(0xff)),
                _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(values)),
            );
            let odd = _mm256_madd_epi16(
                _mm256_srli_epi16::<8>(codes),
                _mm256_srai_epi16::<8>(values),
            );
            _mm256_add_epi32(sum, _mm256_add_epi32(even, odd))
        })
    }

    #[inline(always)]
    fn dot_four_small(self, sum: __m256i, codes: __m256i, values: __m256i) -> __m256i {
        proven!({
            // Sixteen bits hold the sum of two products.
            let pairs = _mm256_maddubs_epi16(codes, values);
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        })
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16], codes: __m256i) -> __m256i {
        proven!({
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_shuffle_epi8(table, codes)
        })
    }

    #[inline(always)]
    fn numbers_of_bits(self, bits: __m256i) -> __m256 {
        proven!(_mm256_castsi256_ps(bits))
    }

    #[inline(always)]
    fn numbers(self, value: __m256i) -> __m256 {
        proven!(_mm256_cvtepi32_ps(value))
    }

    #[inline(always)]
    unsafe fn load_integers(self, pointer: *const u8) -> __m256i {
        proven!(_mm256_loadu_si256(pointer.cast()))
    }

    #[inline(always)]
    unsafe fn load_bytes(self, pointer: *const u8) -> __m256i {
        proven!(_mm256_cvtepu8_epi32(_mm_loadl_epi64(pointer.cast())))
    }
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    const MANY_REGISTERS: bool = true;
    type Vector = __m512;
    type Integers = __m512i;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        proven!(_mm512_set1_ps(value))
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn subtract(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn multiply(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn divide(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn maximum(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn multiply_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        proven!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn exp(self, value: __m512) -> __m512 {
        proven!({
            // Constants come first: max and min yield their second operand if one is NaN.
            let above = _mm512_max_ps(_mm512_set1_ps(EXP_MIN), value);
            let x = _mm512_min_ps(_mm512_set1_ps(EXP_MAX), above);
            let scaled = _mm512_mul_ps(x, _mm512_set1_ps(LOG2_E));
            let n =
                _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(scaled);
            let result = _mm512_scalef_ps(exp_parts(self, x, n), n);
            let tiny = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(value, _mm512_set1_ps(EXP_MIN));
            _mm512_mask_mov_ps(result, tiny, _mm512_setzero_ps())
        })
    }

    #[inline(always)]
    fn sum(self, value: __m512) -> f32 {
        proven!({
            let low = _mm512_castps512_ps256(value);
            let high = _mm512_extractf32x8_ps::<1>(value);
            let eight = _mm256_add_ps(low, high);
            let four = _mm_add_ps(
                _mm256_castps256_ps128(eight),
                _mm256_extractf128_ps::<1>(eight),
            );
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn largest(self, value: __m512) -> f32 {
        proven!(_mm512_reduce_max_ps(value))
    }

    #[inline(always)]
    fn invalidate_beyond(self, value: __m512, limit: f32) -> __m512 {
        proven!({
            let limit = _mm512_set1_ps(limit);
            let beyond = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(_mm512_abs_ps(value), limit);
            _mm512_mask_mov_ps(value, beyond, _mm512_set1_ps(f32::NAN))
        })
    }

    #[inline(always)]
    fn prefetch(self, line: *const u8) {
        proven!(_mm_prefetch::<_MM_HINT_T0>(line.cast()))
    }

    #[inline(always)]
    unsafe fn load(self, pointer: *const f32) -> __m512 {
        proven!(_mm512_loadu_ps(pointer))
    }

    #[inline(always)]
    unsafe fn load_bf16(self, pointer: *const u16) -> __m512 {
        proven!({
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(pointer.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
        })
    }

    #[inline(always)]
    unsafe fn load_f8(self, pointer: *const u8) -> __m512 {
        proven!({
            // Sign extension doubles the sign bit; shifted by 7, the mask drops the second one.
            let words = _mm256_cvtepi8_epi16(_mm_loadu_si128(pointer.cast()));
            let mask = _mm256_set1_epi16(0xbf80_u16 as i16);
            _mm512_cvtph_ps(_mm256_and_si256(_mm256_slli_epi16::<7>(words), mask))
        })
    }

    #[inline(always)]
    unsafe fn store(self, pointer: *mut f32, value: __m512) {
        proven!(_mm512_storeu_ps(pointer, value))
    }

    #[inline(always)]
    unsafe fn load_f16(self, pointer: *const u8) -> __m512 {
        proven!(_mm512_cvtph_ps(_mm256_loadu_si256(pointer.cast())))
    }

    #[inline(always)]
    fn splat_integer(self, value: i32) -> __m512i {
        proven!(_mm512_set1_epi32(value))
    }

    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        proven!(_mm512_and_si512(a, b))
    }

    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        proven!(_mm512_or_si512(a, b))
    }

    #[inline(always)]
    fn exclusive_or(self, a: __m512i, b: __m512i) -> __m512i {
        proven!(_mm512_xor_si512(a, b))
    }

    #[inline(always)]
    fn shift_right(self, value: __m512i, bits: u32) -> __m512i {
        proven!(_mm512_srl_epi32(value, _mm_cvtsi32_si128(bits as i32)))
    }

    #[inline(always)]
    fn shift_left(self, value: __m512i, bits: u32) -> __m512i {
        proven!(_mm512_sll_epi32(value, _mm_cvtsi32_si128(bits as i32)))
    }

    #[inline(always)]
    fn dot_four(self, sum: __m512i, codes: __m512i, values: __m512i) -> __m512i {
        proven!(_mm512_dpbusd_epi32(sum, codes, values))
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16], codes: __m512i) -> __m512i {
        proven!({
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_shuffle_epi8(table, codes)
        })
    }

    #[inline(always)]
    fn numbers_of_bits(self, bits: __m512i) -> __m512 {
        proven!(_mm512_castsi512_ps(bits))
    }

    #[inline(always)]
    fn numbers(self, value: __m512i) -> __m512 {
        proven!(_mm512_cvtepi32_ps(value))
    }

    #[inline(always)]
    unsafe fn load_integers(self, pointer: *const u8) -> __m512i {
        proven!(_mm512_loadu_si512(pointer.cast()))
    }

    #[inline(always)]
    unsafe fn load_bytes(self, pointer: *const u8) -> __m512i {
        proven!(_mm512_cvtepu8_epi32(_mm_loadu_si128(pointer.cast())))
    }
}
