//! Tests of the crate, over checkpoints that they write.

mod support;

mod census;
mod checkpoint;
mod copy;
mod finite;
mod gguf;
mod header;
mod identity;
mod manifest;
mod quantization;
mod strict_fields;
