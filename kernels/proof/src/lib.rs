//! What proves the kernels: for each operation a readable reference and its cases, compared with what the CPU and the card
//! compute; and the host executor, which runs the card's kernels on a processor. Nothing of it is shipped.
#![expect(unsafe_code, reason = "launches are outside the compiler's view")]

pub mod bandwidth;
mod bench;
pub mod catalog;
pub mod host;
pub mod invariance;
pub mod ops;
mod poisoned;
pub mod product;
pub mod weights;

pub use poisoned::PoisonedBuffer;
