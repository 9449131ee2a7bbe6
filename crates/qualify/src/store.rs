//! The directory of results: written so that a kill at any moment costs at most the answers under way, and read again.

mod answers;
mod comparison;
mod directory;
mod files;

pub use answers::{Answers, Damage, read_attempts};
pub(crate) use directory::refuse_foreign;
pub use directory::{Directory, Results};
