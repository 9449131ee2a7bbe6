//! Tests of the crate, over checkpoints that they write.

mod support;

mod finite;
mod census;
mod checkpoint;
mod copy;
mod header;
mod manifest;
mod quantization;
mod strict_fields;
