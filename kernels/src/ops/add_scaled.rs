//! `(a + b) * scale`.

use crate::features::InstructionSet;
use crate::parallel;
use crate::simd::{self, Program, Simd};

/// Elements of one piece of work; any number does, since elements are independent.
const CHUNK: usize = 1024;

/// Arguments; both inputs and the output have the same shape.
#[derive(Clone, Copy, Debug)]
pub struct AddScaledArgs<'a> {
    /// First addend.
    pub a: &'a [f32],
    /// Second addend.
    pub b: &'a [f32],
    /// Factor on the sum.
    pub scale: f32,
}

impl AddScaledArgs<'_> {
    /// Panics unless the parts agree.
    pub fn check(&self, out: &[f32]) {
        assert_eq!(self.a.len(), self.b.len(), "inputs of add_scaled");
        assert_eq!(self.a.len(), out.len(), "outputs of add_scaled");
    }

    /// The scaled sum.
    pub fn run(&self, instructions: InstructionSet, out: &mut [f32]) {
        self.check(out);
        parallel::for_each_chunk(out, CHUNK, |start, out| {
            let (a, b) = (&self.a[start..][..out.len()], &self.b[start..][..out.len()]);
            simd::dispatch(
                instructions,
                Chunk {
                    a,
                    b,
                    scale: self.scale,
                    out,
                },
            );
        });
    }
}

/// `a += b`.
pub fn add_assign(instructions: InstructionSet, a: &mut [f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "inputs of an addition");
    parallel::for_each_chunk(a, CHUNK, |start, a| {
        let b = &b[start..][..a.len()];
        simd::dispatch(instructions, AddAssign { a, b });
    });
}

struct Chunk<'a> {
    a: &'a [f32],
    b: &'a [f32],
    scale: f32,
    out: &'a mut [f32],
}

impl Program for Chunk<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for ((out, &a), &b) in self.out.iter_mut().zip(self.a).zip(self.b) {
            *out = (a + b) * self.scale;
        }
    }
}

struct AddAssign<'a> {
    a: &'a mut [f32],
    b: &'a [f32],
}

impl Program for AddAssign<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (a, &b) in self.a.iter_mut().zip(self.b) {
            *a += b;
        }
    }
}
