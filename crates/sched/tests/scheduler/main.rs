//! The scheduler's promises, one test each.

mod batching;
mod common;
mod memory;
mod pipeline;
mod proposals;
mod ratings;
mod tenants;
