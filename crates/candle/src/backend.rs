//! The operations, each in a few of candle's.

mod operations;

use std::sync::Arc;

use backstop_kernels::{Batch, Residual};
use candle_core::{DType, Error, Result, Tensor};

use crate::kv_cache::CandleKvCache;
use crate::step::Step;
use crate::weights::CandleWeights;

pub use crate::router::CandleRouting;

/// Runs a model's operations on one of candle's devices.
///
/// The first operation that fails ends the step: those behind it do nothing, and
/// [`take_logits`](Self::take_logits) tells.
#[derive(Debug)]
pub struct CandleBackend {
    weights: Arc<CandleWeights>,
    cache: CandleKvCache,
    step: Option<Step>,
    logits: Option<Tensor>,
    failure: Option<Error>,
    /// Those of the step, if they are wanted.
    residuals: Option<Vec<Residual>>,
}

/// A `[rows, columns]` matrix of F32; there is none behind an operation that failed.
#[derive(Clone, Debug, Default)]
pub struct CandleActivation(Option<Tensor>);

impl CandleActivation {
    /// Behind a failure nobody comes here.
    fn tensor(&self) -> &Tensor {
        self.0
            .as_ref()
            .expect("an activation of a step without failure")
    }
}

impl From<Tensor> for CandleActivation {
    fn from(tensor: Tensor) -> Self {
        Self(Some(tensor))
    }
}

impl CandleBackend {
    /// A backend over weights and a cache on the same device.
    pub fn new(weights: Arc<CandleWeights>, cache: CandleKvCache) -> Self {
        Self {
            weights,
            cache,
            step: None,
            logits: None,
            failure: None,
            residuals: None,
        }
    }

    /// From here on, keeps what every norm behind a layer's parts finds; waits for each.
    pub fn watch_residuals(&mut self) {
        self.residuals = Some(Vec::new());
    }

    /// What was kept since the last call.
    pub fn take_residuals(&mut self) -> Vec<Residual> {
        self.residuals
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Sets the batch of the next step. `tables[group][slot]` is the block table of a slot: entry `i` maps positions
    /// `i * block_size ..`.
    pub fn begin(&mut self, batch: &Batch, tables: &[impl AsRef<[Vec<u32>]>]) -> Result<()> {
        self.logits = None;
        self.failure = None;
        // What the last step had gives its memory back first.
        self.step = None;
        let step = Step::new(batch, tables, &self.cache, self.weights.device())?;
        self.step = Some(step);
        Ok(())
    }

    /// Waits for the step, and takes the logits of the batch's `logit_rows`, one row behind the other; or says why
    /// there are none.
    pub fn take_logits(&mut self) -> Result<Vec<f32>> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        match self.logits.take() {
            Some(logits) => logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1(),
            None => Ok(Vec::new()),
        }
    }

    /// Does an operation, unless one has failed.
    fn run<T>(&mut self, operation: impl FnOnce(&mut Self) -> Result<T>) -> Option<T> {
        if self.failure.is_some() {
            return None;
        }
        let result = operation(self);
        result.map_err(|error| self.failure = Some(error)).ok()
    }

    /// The same for those that give an activation.
    fn activation(
        &mut self,
        operation: impl FnOnce(&mut Self) -> Result<Tensor>,
    ) -> CandleActivation {
        CandleActivation(self.run(operation))
    }

    fn step(&self) -> &Step {
        self.step.as_ref().expect("a step has begun")
    }
}
