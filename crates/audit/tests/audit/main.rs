//! Logs that are changed, cut off, torn and lost in part: what is found, and what is kept.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers as well"
)]

mod changes;
mod disk;
mod restarts;
mod rotation;
mod support;
