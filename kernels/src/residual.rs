//! What backends show of themselves, for comparisons with one another.

use crate::backend::VectorId;

/// The sum of the layers so far, as a norm finds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Residual {
    /// The norm's gain.
    pub before: VectorId,
    /// `[rows, hidden]`.
    pub values: Vec<f32>,
}
