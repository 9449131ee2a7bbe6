//! One of candle's devices: what is asked of it is done when it returns.

use std::sync::Arc;

use backstop_arch::Model;
use backstop_candle::{CandleBackend, CandleError};
use backstop_kernels::Batch;
use backstop_types::{KvSpec, SamplingParams, StepPlan};

use crate::device::{DeviceLimits, LogitRow, Observation, StepDevice, StepFault, StepResults};
use crate::executor::{DeviceExecutor, WorkerSettings};
use crate::host_sampling::{self, logit_rows};
use crate::tables::BlockTables;

/// What an executor on one of candle's devices is made of.
#[expect(
    missing_debug_implementations,
    reason = "models have no useful text form"
)]
pub struct CandleExecutorConfig {
    /// The architecture.
    pub model: Box<dyn Model<CandleBackend>>,
    /// Weights and KV memory.
    pub backend: CandleBackend,
    /// Shape of the KV memory that `backend` holds.
    pub kv: KvSpec,
    /// Slots.
    pub max_num_seqs: u32,
    /// Threads that sample.
    pub num_threads: usize,
}

impl CandleExecutorConfig {
    /// Starts the executor's threads.
    pub fn start(self) -> std::io::Result<DeviceExecutor> {
        let (device, settings) = self.device();
        DeviceExecutor::start(device, settings)
    }

    pub(crate) fn device(self) -> (Box<dyn StepDevice>, WorkerSettings) {
        let device = CandleStepDevice {
            tables: BlockTables::new(self.kv.groups.len(), self.max_num_seqs),
            logit_rows: logit_rows(self.max_num_seqs),
            model: self.model,
            backend: self.backend,
            logits: Vec::new(),
        };
        let settings = WorkerSettings {
            kv: self.kv,
            max_num_seqs: self.max_num_seqs,
            num_threads: self.num_threads,
        };
        (Box::new(device), settings)
    }
}

struct CandleStepDevice {
    model: Box<dyn Model<CandleBackend>>,
    backend: CandleBackend,
    tables: BlockTables,
    logit_rows: u32,
    /// Of the step that was computed.
    logits: Vec<f32>,
}

impl StepDevice for CandleStepDevice {
    fn limits(&self) -> DeviceLimits {
        DeviceLimits {
            logit_rows: self.logit_rows,
            vocabulary: self.model.spec().vocabulary_size as usize,
            steps_ahead: 0,
        }
    }

    fn checks_guesses(&self, _sampling: &SamplingParams) -> bool {
        true
    }

    fn compute(&mut self, plan: &StepPlan, batch: &Batch) -> Result<(), StepFault> {
        self.tables.update(plan);
        self.logits.clear();
        let begun = self.backend.begin(batch, self.tables.groups());
        begun.map_err(fault)?;
        self.model.forward(&mut self.backend);
        self.logits = self.backend.take_logits().map_err(fault)?;
        Ok(())
    }

    fn observe(&mut self, plan: &StepPlan, batch: &Batch) -> Result<Observation, StepFault> {
        self.backend.watch_residuals();
        self.compute(plan, batch)?;
        Ok(Observation {
            logits: std::mem::take(&mut self.logits),
            residuals: self.backend.take_residuals(),
        })
    }

    fn sample(&mut self, rows: &[LogitRow<'_>]) -> Result<Arc<dyn StepResults>, StepFault> {
        let vocabulary = self.limits().vocabulary;
        Ok(host_sampling::sample_rows(&self.logits, vocabulary, rows))
    }
}

/// Most failures are of memory, which the next step may have: the engine counts those of a sequence.
fn fault(error: CandleError) -> StepFault {
    StepFault::passing(error.to_string())
}
