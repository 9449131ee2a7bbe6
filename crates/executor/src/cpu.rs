//! The machine's processors as a device: what is asked of it is done when it returns.

mod drafter;

use std::sync::Arc;

use backstop_arch::Model;
use backstop_kernels::{Batch, CpuActivation, CpuBackend};
use backstop_types::{KvSpec, SamplingParams, StepPlan, TokenId};

use crate::device::{
    Continuation, DeviceLimits, KeptWeights, LogitRow, Observation, StepDevice, StepFault,
    StepResults,
};
use crate::executor::{DeviceExecutor, WorkerSettings};
use crate::host_sampling::{self, logit_rows};
use crate::tables::BlockTables;

pub use drafter::{Drafter, draft_kv_cache};

/// What an executor on the CPU is made of.
#[expect(
    missing_debug_implementations,
    reason = "models and weights have no useful text form"
)]
pub struct CpuExecutorConfig {
    /// The architecture.
    pub model: Box<dyn Model<CpuBackend>>,
    /// Weights and KV memory.
    pub backend: CpuBackend,
    /// Shape of the KV memory that `backend` holds.
    pub kv: KvSpec,
    /// Slots.
    pub max_num_seqs: u32,
    /// Threads that share the work of a step.
    pub num_threads: usize,
    /// What proposes tokens with those that are sampled, if anything.
    pub drafter: Option<Drafter>,
}

impl CpuExecutorConfig {
    /// Starts the executor's threads.
    pub fn start(self) -> std::io::Result<DeviceExecutor> {
        let (device, settings) = self.device();
        DeviceExecutor::start(device, settings)
    }

    pub(crate) fn device(self) -> (Box<dyn StepDevice>, WorkerSettings) {
        let device = CpuDevice {
            tables: BlockTables::new(self.kv.groups.len(), self.max_num_seqs),
            logit_rows: logit_rows(self.max_num_seqs),
            model: self.model,
            backend: self.backend,
            drafter: self.drafter,
            hidden: None,
        };
        let settings = WorkerSettings {
            kv: self.kv,
            max_num_seqs: self.max_num_seqs,
            num_threads: self.num_threads,
        };
        (Box::new(device), settings)
    }
}

struct CpuDevice {
    model: Box<dyn Model<CpuBackend>>,
    backend: CpuBackend,
    tables: BlockTables,
    logit_rows: u32,
    drafter: Option<Drafter>,
    /// The model's hidden states of the last step, if there is a drafter.
    hidden: Option<CpuActivation>,
}

impl StepDevice for CpuDevice {
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
        self.hidden = None;
        self.tables.update(plan);
        self.backend.begin(batch, self.tables.groups());
        let hidden = self.model.forward(&mut self.backend);
        self.hidden = self.drafter.is_some().then_some(hidden);
        Ok(())
    }

    fn sample(&mut self, rows: &[LogitRow<'_>]) -> Result<Arc<dyn StepResults>, StepFault> {
        let vocabulary = self.limits().vocabulary;
        let logits = self.backend.logits();
        Ok(host_sampling::sample_rows(logits, vocabulary, rows))
    }

    fn observe(&mut self, plan: &StepPlan, batch: &Batch) -> Result<Observation, StepFault> {
        self.backend.watch_residuals();
        self.compute(plan, batch)?;
        Ok(Observation {
            logits: self.backend.logits().to_vec(),
            residuals: self.backend.take_residuals(),
        })
    }

    /// They are there already.
    fn keep_weights(&self) -> Result<KeptWeights, StepFault> {
        Ok(KeptWeights::Cpu(Arc::clone(self.backend.weights())))
    }

    fn proposes(&self) -> bool {
        self.drafter.is_some()
    }

    fn propose(&mut self, sequences: &[Continuation<'_>]) -> Result<Vec<Vec<TokenId>>, StepFault> {
        let (Some(drafter), Some(hidden)) = (&mut self.drafter, &self.hidden) else {
            return Ok(Vec::new());
        };
        Ok(drafter.propose(sequences, self.tables.groups(), hidden))
    }
}
