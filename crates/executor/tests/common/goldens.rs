//! Logits of an independent implementation, and how near others come to them.

use std::path::Path;

/// Root of the mean squared difference of the logits, and the largest difference, both relative
/// to the standard deviation of the expected logits.
#[derive(Clone, Copy)]
pub struct Tolerance {
    pub root_mean_square: f64,
    pub largest: f64,
}

/// Weights are computed in f32 on both sides, so that only the order of additions differs, and with
/// AMX the last of 18 bits of the activations.
pub const FLOAT: Tolerance = Tolerance {
    root_mean_square: 5e-5,
    largest: 5e-4,
};
/// Both sides round activations to 3 bits of mantissa, and a last-bit difference before the
/// rounding can become one step of it.
pub const FP8: Tolerance = Tolerance {
    root_mean_square: 2e-2,
    largest: 2e-1,
};
/// Activations have 8 bits here, and all on the other side; in a small random model they may lead a
/// router to another expert.
pub const CODES: Tolerance = Tolerance {
    root_mean_square: 6e-2,
    largest: 1.5,
};

pub struct Expected {
    pub tokens: Vec<u32>,
    /// Position of each row of logits.
    pub positions: Vec<u32>,
    pub logits: Vec<f32>,
}

pub fn expected(directory: &Path) -> Expected {
    let bytes = std::fs::read(directory.join("expected.safetensors")).expect("a golden");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let integers = |name: &str| -> Option<Vec<u32>> {
        let tensor = tensors.tensor(name).ok()?;
        let words = tensor.data().chunks_exact(8);
        Some(
            words
                .map(|word| i64::from_le_bytes(word.try_into().expect("8 bytes")) as u32)
                .collect(),
        )
    };
    let tokens = integers("tokens").expect("tokens");
    let positions = integers("positions").unwrap_or_else(|| (0..tokens.len() as u32).collect());
    let logits = tensors.tensor("logits").expect("logits");
    let logits = logits.data().chunks_exact(4);
    let logits = logits.map(|word| f32::from_le_bytes(word.try_into().expect("4 bytes")));
    Expected {
        tokens,
        positions,
        logits: logits.collect(),
    }
}

pub fn compare(name: &str, found: &[f32], expected: &[f32], tolerance: &Tolerance) {
    let count = expected.len() as f64;
    let mean = expected.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
    let variance = expected
        .iter()
        .map(|x| (f64::from(*x) - mean).powi(2))
        .sum::<f64>()
        / count;
    let differences = found
        .iter()
        .zip(expected)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)) / variance.sqrt());
    let (mut squares, mut largest) = (0.0_f64, 0.0_f64);
    for difference in differences {
        assert!(difference.is_finite(), "{name}: a logit is not a number");
        squares += difference * difference;
        largest = largest.max(difference.abs());
    }
    let root_mean_square = (squares / count).sqrt();
    assert!(
        root_mean_square <= tolerance.root_mean_square && largest <= tolerance.largest,
        "{name}: root mean square difference {root_mean_square:e} (allowed {:e}), largest \
         {largest:e} (allowed {:e})",
        tolerance.root_mean_square,
        tolerance.largest,
    );
}
