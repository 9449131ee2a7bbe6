//! Model architectures: one file each and one line in [`families`].
//!
//! What several of them share: reading configurations ([`config`], [`rope`]), the parts of layers
//! ([`attention`], [`latent`], [`mlp`]), the usual orders of these ([`decoder`],
//! [`parallel_block`]), and what Llama's many kin are but for a few things ([`family`]). Draft heads, which guess for a model, are files as well ([`draft_head`]).
//!
//! An architecture file reads its `config.json`, describes the model ([`ModelSpec`]), names its
//! weights as data ([`WeightMap`]) and computes with them over the operations of
//! [`backstop_kernels::backend::Backend`].
//!
//! Invariant: no other crate matches on an architecture's name.

mod any_model;
mod attention;
mod cohere_eagle;
mod config;
mod decoder;
mod draft_head;
mod families;
mod family;
mod kv_groups;
mod latent;
mod mlp;
mod needs;
mod parallel_block;
mod parallel_decoder;
mod registry;
mod rope;
mod spec;
mod weight_map;

pub use any_model::AnyModel;
pub use draft_head::{DraftHead, DraftHeadSpec, build_draft_head};
pub use registry::{ArchError, Model, build, gguf_families, names, unread_fields};
pub use spec::{KvGroup, ModelSpec};
pub use weight_map::{
    ExpertsPart, ExpertsRequest, ExpertsTensor, MatrixPart, MatrixRequest, MatrixRole, TiedHead,
    VectorPart, VectorRequest, VectorRole, WeightMap,
};
