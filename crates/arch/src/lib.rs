//! Model architectures: one file each and one line in [`registry`].
//!
//! An architecture file reads its `config.json`, describes the model ([`ModelSpec`]), names its
//! weights as data ([`WeightMap`]) and computes with them over the operations of
//! [`backstop_kernels::backend::Backend`].
//!
//! Invariant: no other crate matches on an architecture's name.

mod cohere2_moe;
mod registry;
mod spec;
mod weight_map;

pub use registry::{ArchError, Model, build, names};
pub use spec::{KvGroup, ModelSpec};
pub use weight_map::{
    ExpertsRequest, MatrixPart, MatrixRequest, MatrixRole, VectorRequest, WeightMap,
};
