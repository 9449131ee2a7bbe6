//! A model of any architecture: built once, it computes on whichever backend is chosen for it.

use std::sync::Arc;

use backstop_kernels::backend::Backend;
use backstop_kernels::{CpuBackend, Needs};

use crate::decoder::Decoder;
use crate::parallel_decoder::ParallelDecoder;
use crate::{Model, ModelSpec, needs};

/// A model of any architecture, for any backend; cheap to clone.
#[derive(Clone, Debug)]
pub struct AnyModel(Arc<Blocks>);

/// The orders in which models compute their blocks.
#[derive(Debug)]
enum Blocks {
    Sequential(Decoder),
    Parallel(ParallelDecoder),
}

impl AnyModel {
    /// Its description.
    pub fn spec(&self) -> &ModelSpec {
        match &*self.0 {
            // It is the same for every backend.
            Blocks::Sequential(model) => Model::<CpuBackend>::spec(model),
            Blocks::Parallel(model) => Model::<CpuBackend>::spec(model),
        }
    }

    /// What it needs of a backend, for its `Abilities`.
    pub fn needs(&self) -> Needs {
        needs::of(self)
    }
}

impl<B: Backend> Model<B> for AnyModel {
    fn spec(&self) -> &ModelSpec {
        self.spec()
    }

    fn forward(&self, backend: &mut B) -> B::Activation {
        match &*self.0 {
            Blocks::Sequential(model) => model.forward(backend),
            Blocks::Parallel(model) => model.forward(backend),
        }
    }
}

impl From<Decoder> for AnyModel {
    fn from(model: Decoder) -> Self {
        Self(Arc::new(Blocks::Sequential(model)))
    }
}

impl From<ParallelDecoder> for AnyModel {
    fn from(model: ParallelDecoder) -> Self {
        Self(Arc::new(Blocks::Parallel(model)))
    }
}
