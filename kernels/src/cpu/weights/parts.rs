//! All weights as bytes in a fixed order, for whoever keeps them elsewhere.
#![expect(unsafe_code, reason = "views numbers as bytes")]

use std::fmt::Write;
use std::sync::Arc;

use super::{CpuWeights, ExpertMatrices};

impl CpuWeights {
    /// The bytes of every vector, matrix and layer of experts, by id; some have none.
    pub fn parts(&self) -> Vec<&[u8]> {
        let mut parts: Vec<&[u8]> = self.vectors.iter().map(|vector| bytes_of(vector)).collect();
        parts.extend(self.matrices.iter().map(|matrix| matrix.data.as_slice()));
        for experts in &self.experts {
            for of_all in [&experts.gate_up, &experts.down] {
                parts.push(of_all.data.as_slice());
                parts.push(bytes_of(&of_all.scales));
                parts.push(bytes_of(&of_all.biases));
            }
        }
        parts
    }

    /// The same to be written. `None` if others have a matrix as well.
    pub fn parts_mut(&mut self) -> Option<Vec<&mut [u8]>> {
        let vectors = self.vectors.iter_mut();
        let mut parts: Vec<&mut [u8]> = vectors.map(|vector| bytes_of_mut(vector)).collect();
        for matrix in &mut self.matrices {
            parts.push(Arc::get_mut(matrix)?.data.as_mut_slice());
        }
        for experts in &mut self.experts {
            for of_all in [&mut experts.gate_up, &mut experts.down] {
                parts.push(of_all.data.as_mut_slice());
                parts.push(bytes_of_mut(&mut of_all.scales));
                parts.push(bytes_of_mut(&mut of_all.biases));
            }
        }
        Some(parts)
    }

    /// In words, where each number is within the parts: of weights with the same words, the same bytes are the same
    /// weights.
    pub fn layout(&self) -> String {
        let mut words = String::new();
        for vector in &self.vectors {
            // Writing into memory does not fail.
            let _written = writeln!(words, "{}", vector.len());
        }
        for matrix in &self.matrices {
            let _written = writeln!(words, "{} {}", matrix.columns, matrix.bands.layout());
        }
        for experts in &self.experts {
            let shape = [experts.num_experts, experts.hidden, experts.width];
            let parts = [&experts.gate_up, &experts.down].map(ExpertMatrices::layout);
            let _written = writeln!(words, "{shape:?} {parts:?}");
        }
        words
    }
}

fn bytes_of(numbers: &[f32]) -> &[u8] {
    // SAFETY: the same memory, every byte of which is initialised; bytes need no alignment.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}

fn bytes_of_mut(numbers: &mut [f32]) -> &mut [u8] {
    let len = size_of_val(numbers);
    // SAFETY: as above, borrowed exclusively, and any bytes are numbers.
    unsafe { std::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), len) }
}
