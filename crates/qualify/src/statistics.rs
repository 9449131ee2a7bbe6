//! Estimates from few answers, and how sure they are.

pub mod paired;

mod bootstrap;
mod normal;
mod pass_at_k;
mod proportions;
mod wilson;

pub use bootstrap::{bootstrap_mean, percentiles};
pub use pass_at_k::{TaskCount, counts_by_task, pass_at_k};
pub use proportions::two_proportions;
pub use wilson::wilson;

/// Of all intervals here.
pub const CONFIDENCE: f64 = 0.95;
