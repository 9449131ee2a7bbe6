//! Vector arithmetic, written once for every instruction set.
//!
//! A kernel implements [`Program`] with code generic over [`Simd`]; [`dispatch`] compiles it for
//! each instruction set and runs the one asked for. Everything on the way must be
//! `#[inline(always)]`, since a vector instruction is only inlined into a function that was
//! compiled for its instruction set. Closures are avoided in hot loops for the same reason.
#![expect(unsafe_code, reason = "vector loads and stores take raw pointers")]

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::element::F8_MAX;
use crate::features::InstructionSet;

/// `load_f8` yields the value divided by this, which saves a multiplication for each vector.
pub(crate) const F8_FOLD: f32 = 256.0;

/// Most lanes of any instruction set.
pub(crate) const LANES_MAX: usize = 16;

/// A vector of f32 and what can be done with it. A value of an implementing type is proof that
/// the processor has the instructions.
pub(crate) trait Simd: Copy {
    /// f32 numbers in one vector.
    const LANES: usize;
    /// Whether there are 32 vector registers rather than 16.
    const MANY_REGISTERS: bool;
    /// The vector.
    type Vector: Copy;
    /// As many 32-bit integers, or four times as many bytes.
    type Integers: Copy;

    fn splat(self, value: f32) -> Self::Vector;
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn subtract(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn multiply(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn divide(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The larger of both in each lane; `b` where either is NaN.
    fn maximum(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b + c`, rounded once where the hardware can.
    fn multiply_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `exp` in each lane, within 2 units in the last place; 0 for very negative arguments.
    fn exp(self, value: Self::Vector) -> Self::Vector;
    /// The sum of all lanes, in a fixed order.
    fn sum(self, value: Self::Vector) -> f32;
    /// The largest lane; unspecified if one is NaN.
    fn largest(self, value: Self::Vector) -> f32;

    /// NaN in the lanes whose magnitude exceeds `limit`.
    fn invalidate_beyond(self, value: Self::Vector, limit: f32) -> Self::Vector;
    /// Asks for a cache line, which need not exist.
    #[inline(always)]
    fn prefetch(self, _line: *const u8) {}

    /// # Safety
    /// `pointer` addresses `LANES` readable numbers. The same goes for the other loads.
    unsafe fn load(self, pointer: *const f32) -> Self::Vector;
    /// BF16 numbers.
    ///
    /// # Safety
    /// As `load`.
    unsafe fn load_bf16(self, pointer: *const u16) -> Self::Vector;
    /// E4M3 numbers divided by `F8_FOLD`; NaN is loaded as 480 would be.
    ///
    /// # Safety
    /// As `load`.
    unsafe fn load_f8(self, pointer: *const u8) -> Self::Vector;
    /// Half-precision numbers, which are not NaN or infinite.
    ///
    /// # Safety
    /// As `load`; no alignment is needed.
    unsafe fn load_f16(self, pointer: *const u8) -> Self::Vector;
    /// # Safety
    /// `pointer` addresses `LANES` writable numbers.
    unsafe fn store(self, pointer: *mut f32, value: Self::Vector);

    fn splat_integer(self, value: i32) -> Self::Integers;
    fn and(self, a: Self::Integers, b: Self::Integers) -> Self::Integers;
    fn or(self, a: Self::Integers, b: Self::Integers) -> Self::Integers;
    fn exclusive_or(self, a: Self::Integers, b: Self::Integers) -> Self::Integers;
    /// The integers shifted to the right by less than 32 bits; zeros come in.
    fn shift_right(self, value: Self::Integers, bits: u32) -> Self::Integers;
    /// The integers shifted to the left by less than 32 bits.
    fn shift_left(self, value: Self::Integers, bits: u32) -> Self::Integers;
    /// `sum` and, in each lane, the products of four unsigned bytes of `codes` and four signed
    /// bytes of `values`.
    fn dot_four(
        self,
        sum: Self::Integers,
        codes: Self::Integers,
        values: Self::Integers,
    ) -> Self::Integers;
    /// The same for codes below 128 and values above -128.
    #[inline(always)]
    fn dot_four_small(
        self,
        sum: Self::Integers,
        codes: Self::Integers,
        values: Self::Integers,
    ) -> Self::Integers {
        self.dot_four(sum, codes, values)
    }
    /// The byte of `table` that each byte of `codes`, all below 16, stands for.
    fn look_up(self, table: &[u8; 16], codes: Self::Integers) -> Self::Integers;
    /// Signed integers as numbers.
    fn numbers(self, value: Self::Integers) -> Self::Vector;
    /// The numbers that have these bits.
    fn numbers_of_bits(self, bits: Self::Integers) -> Self::Vector;
    /// # Safety
    /// `pointer` addresses `LANES` times four readable bytes.
    unsafe fn load_integers(self, pointer: *const u8) -> Self::Integers;
    /// An unsigned byte for each lane.
    ///
    /// # Safety
    /// `pointer` addresses `LANES` readable bytes.
    unsafe fn load_bytes(self, pointer: *const u8) -> Self::Integers;
}

/// One storage format, for code generic over it.
pub(crate) trait Format {
    type Raw: Copy + Default;
    /// What loaded values must be multiplied with.
    const FOLD: f32;

    /// # Safety
    /// `pointer` addresses `S::LANES` readable numbers.
    unsafe fn load<S: Simd>(simd: S, pointer: *const Self::Raw) -> S::Vector;

    /// The first `count` numbers, zeros in the other lanes.
    ///
    /// # Safety
    /// `pointer` addresses `count` readable numbers.
    #[inline(always)]
    unsafe fn load_first<S: Simd>(simd: S, pointer: *const Self::Raw, count: usize) -> S::Vector {
        debug_assert!(count <= S::LANES);
        // SAFETY: `count` numbers are readable by contract, and the array has all lanes.
        unsafe {
            let padded = padded(std::slice::from_raw_parts(pointer, count));
            Self::load(simd, padded.as_ptr())
        }
    }
}

/// The numbers, then zeros. Not inlined, so that the rare ragged end does not bloat kernels.
#[inline(never)]
fn padded<T: Copy + Default>(numbers: &[T]) -> [T; LANES_MAX] {
    let mut padded = [T::default(); LANES_MAX];
    padded[..numbers.len()].copy_from_slice(numbers);
    padded
}

/// [`Element::F32`](crate::Element::F32).
pub(crate) struct AsF32;
/// [`Element::BF16`](crate::Element::BF16).
pub(crate) struct AsBf16;
/// [`Element::F8E4M3`](crate::Element::F8E4M3), for weights, which hold no NaN.
pub(crate) struct AsF8;
/// [`Element::F8E4M3`](crate::Element::F8E4M3), for computed numbers, among which NaN stays NaN.
pub(crate) struct AsF8OrNan;

impl Format for AsF32 {
    type Raw = f32;
    const FOLD: f32 = 1.0;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, pointer: *const f32) -> S::Vector {
        // SAFETY: the caller's promise.
        unsafe { simd.load(pointer) }
    }
}

impl Format for AsBf16 {
    type Raw = u16;
    const FOLD: f32 = 1.0;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, pointer: *const u16) -> S::Vector {
        // SAFETY: the caller's promise.
        unsafe { simd.load_bf16(pointer) }
    }
}

impl Format for AsF8 {
    type Raw = u8;
    const FOLD: f32 = F8_FOLD;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, pointer: *const u8) -> S::Vector {
        // SAFETY: the caller's promise.
        unsafe { simd.load_f8(pointer) }
    }
}

impl Format for AsF8OrNan {
    type Raw = u8;
    const FOLD: f32 = F8_FOLD;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, pointer: *const u8) -> S::Vector {
        // SAFETY: the caller's promise.
        let value = unsafe { simd.load_f8(pointer) };
        // NaN is loaded as if it were the number after the largest.
        simd.invalidate_beyond(value, F8_MAX / F8_FOLD)
    }
}

/// The first `values.len()` lanes of a vector, which must be at most `S::LANES`; others are 0.
#[inline(always)]
pub(crate) fn load_slice<S: Simd>(simd: S, values: &[f32]) -> S::Vector {
    if values.len() >= S::LANES {
        // SAFETY: the slice has all lanes.
        unsafe { simd.load(values.as_ptr()) }
    } else {
        // SAFETY: the slice has as many numbers as are loaded.
        unsafe { AsF32::load_first(simd, values.as_ptr(), values.len()) }
    }
}

/// Stores the first `out.len()` lanes, at most `S::LANES`.
#[inline(always)]
pub(crate) fn store_slice<S: Simd>(simd: S, out: &mut [f32], value: S::Vector) {
    if out.len() >= S::LANES {
        // SAFETY: the slice has room for all lanes.
        unsafe { simd.store(out.as_mut_ptr(), value) }
    } else {
        let mut all = [0.0; LANES_MAX];
        // SAFETY: the array has room for all lanes.
        unsafe { simd.store(all.as_mut_ptr(), value) }
        store_first(out, &all);
    }
}

#[inline(never)]
fn store_first(out: &mut [f32], all: &[f32; LANES_MAX]) {
    out.copy_from_slice(&all[..out.len()]);
}

/// Rows in memory, `stride` numbers from one to the next.
#[derive(Clone, Copy)]
pub(crate) struct Strided<P> {
    row: P,
    stride: usize,
}

impl<P> Strided<P> {
    /// From the row that begins at `row` on.
    #[inline(always)]
    pub(crate) fn new(row: P, stride: usize) -> Self {
        Self { row, stride }
    }
}

/// Widens `rows` rows of `len` stored numbers, without the fold.
///
/// # Safety
/// All rows are readable at `source` and writable at `target`.
#[inline(always)]
pub(crate) unsafe fn widen_rows<S: Simd, F: Format>(
    simd: S,
    mut source: Strided<*const F::Raw>,
    mut target: Strided<*mut f32>,
    rows: usize,
    len: usize,
) {
    let whole = len - len % S::LANES;
    for _ in 0..rows {
        let mut at = 0;
        while at < whole {
            // SAFETY: a whole vector lies before the end of the row.
            unsafe { simd.store(target.row.add(at), F::load(simd, source.row.add(at))) };
            at += S::LANES;
        }
        if at < len {
            // SAFETY: the rest of the row lies before its end.
            unsafe {
                let vector = F::load_first(simd, source.row.add(at), len - at);
                let rest = std::slice::from_raw_parts_mut(target.row.add(at), len - at);
                store_slice(simd, rest, vector);
            }
        }
        source.row = source.row.wrapping_add(source.stride);
        target.row = target.row.wrapping_add(target.stride);
    }
}

/// Code that can be compiled for every instruction set.
pub(crate) trait Program {
    type Output;

    /// Implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs `program` with `instructions`, which the processor must have.
pub(crate) fn dispatch<P: Program>(instructions: InstructionSet, program: P) -> P::Output {
    assert!(
        instructions <= InstructionSet::detect(),
        "the processor lacks {}",
        instructions.name()
    );
    match instructions {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has the instructions.
        InstructionSet::Avx512 | InstructionSet::Amx => unsafe { x86::run_avx512(program) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has the instructions.
        InstructionSet::Avx2 => unsafe { x86::run_avx2(program) },
        _ => program.run(portable::Portable),
    }
}

/// All E4M3 values divided by `F8_FOLD`, for instruction sets without a conversion.
static F8_TABLE: [f32; 256] = {
    let mut table = [0.0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = fold_f8(byte as u8);
        byte += 1;
    }
    table
};

/// As the vector code does it: a half-precision number with the same bits, 2^8 times smaller.
const fn fold_f8(byte: u8) -> f32 {
    let exponent = ((byte >> 3) & 0xf) as u32;
    let mantissa = (byte & 7) as u32;
    let sign = ((byte & 0x80) as u32) << 24;
    if exponent == 0 {
        // mantissa * 2^-17
        let magnitude = mantissa as f32 / 131_072.0;
        return f32::from_bits(sign | magnitude.to_bits());
    }
    f32::from_bits(sign | ((exponent + 127 - 15) << 23) | (mantissa << 20))
}

#[cfg(test)]
mod tests;
