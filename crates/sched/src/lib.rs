//! Continuous batching as a pure, deterministic state machine.
