//! What the benchmarks share. `benches/README.md` says how to run them.

pub mod http;
pub mod load;
pub mod machine;
pub mod process;
pub mod report;
pub mod schedule;
pub mod statistics;
