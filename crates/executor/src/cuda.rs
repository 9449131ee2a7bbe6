//! A card as a device: steps are queued, and sampled tokens stay there, where the next step's
//! embedding reads them. The host gets copies, which it waits for only when it must know them.

mod results;

use std::sync::Arc;

use backstop_arch::Model;
use backstop_card::DeviceError;
use backstop_card::backend::CudaBackend;
use backstop_card::batch::TableUpdate;
use backstop_card::ops::embed::FEEDBACK;
use backstop_card::ops::sample::{SampleStep, SampleStepFull, StepRow, needs_history};
use backstop_card::runner::{Computed, HistoryStart, Runner, STEPS_IN_FLIGHT, StepWork};
use backstop_kernels::Batch;
use backstop_types::{KvSpec, SamplingParams, StepPlan};

use crate::device::{
    DeviceLimits, IN_FLIGHT, KeptWeights, LogitRow, Observation, SampleRow, StepDevice, StepFault,
    StepResults,
};
use crate::executor::{DeviceExecutor, WorkerSettings};
use results::{CudaResults, RowReading};

/// Most threads that make masks.
const MAX_MASK_THREADS: usize = 16;

const _: () = assert!(IN_FLIGHT == FEEDBACK, "batches are uploaded as they are");

/// What an executor on a card is made of.
#[expect(
    missing_debug_implementations,
    reason = "models and device memory have no useful text form"
)]
pub struct CudaExecutorConfig {
    /// The architecture.
    pub model: Box<dyn Model<CudaBackend>>,
    /// Weights, KV memory and everything else on the device.
    pub runner: Runner,
    /// Shape of the KV memory.
    pub kv: KvSpec,
    /// Slots.
    pub max_num_seqs: u32,
    /// Record the decode steps and replay them.
    pub graphs: bool,
}

impl CudaExecutorConfig {
    /// Records the decode steps and starts the executor's threads.
    pub fn start(self) -> Result<DeviceExecutor, DeviceError> {
        let (device, settings) = self.device()?;
        DeviceExecutor::start(device, settings).map_err(|error| DeviceError {
            attempt: "starting the executor's threads".into(),
            reason: error.to_string(),
            fatal: true,
        })
    }

    pub(crate) fn device(self) -> Result<(Box<dyn StepDevice>, WorkerSettings), DeviceError> {
        let Self {
            model,
            mut runner,
            kv,
            max_num_seqs,
            graphs,
        } = self;
        if graphs {
            runner.capture(&mut |backend| {
                model.forward(backend);
            })?;
        }
        let device = CudaDevice {
            samples: SampleStep::new(*runner.sample_limits()),
            model,
            runner,
            updates: Vec::new(),
            blocks: Vec::new(),
            computed: None,
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let settings = WorkerSettings {
            kv,
            max_num_seqs,
            num_threads: threads.min(MAX_MASK_THREADS),
        };
        Ok((Box::new(device), settings))
    }
}

struct CudaDevice {
    model: Box<dyn Model<CudaBackend>>,
    runner: Runner,
    samples: SampleStep,
    updates: Vec<TableUpdate>,
    blocks: Vec<u32>,
    /// The step that is to be sampled.
    computed: Option<Computed>,
}

impl StepDevice for CudaDevice {
    fn limits(&self) -> DeviceLimits {
        let limits = self.runner.sample_limits();
        DeviceLimits {
            logit_rows: limits.rows as u32,
            vocabulary: limits.vocabulary,
            steps_ahead: STEPS_IN_FLIGHT - 1,
        }
    }

    /// The device counts what it samples for sequences with penalties, and cannot take back what
    /// followed a wrong guess.
    fn checks_guesses(&self, sampling: &SamplingParams) -> bool {
        !needs_history(sampling)
    }

    fn compute(&mut self, plan: &StepPlan, batch: &Batch) -> Result<(), StepFault> {
        self.list_new_blocks(plan);
        let histories: Vec<HistoryStart<'_>> = starting_histories(plan).collect();
        let work = StepWork {
            batch,
            updates: &self.updates,
            blocks: &self.blocks,
            histories: &histories,
        };
        let model = &self.model;
        let computed = self.runner.compute(&work, &mut |backend| {
            model.forward(backend);
        })?;
        self.computed = Some(computed);
        Ok(())
    }

    fn observe(&mut self, plan: &StepPlan, batch: &Batch) -> Result<Observation, StepFault> {
        self.runner.backend().watch_residuals();
        self.compute(plan, batch)?;
        self.computed = None;
        Ok(Observation {
            logits: self.runner.read_logits(batch.logit_rows.len())?,
            residuals: self.runner.backend().take_residuals(),
        })
    }

    fn keep_weights(&self) -> Result<KeptWeights, StepFault> {
        Ok(KeptWeights::Cuda(self.runner.weights().to_host()?))
    }

    fn sample(&mut self, rows: &[LogitRow<'_>]) -> Result<Arc<dyn StepResults>, StepFault> {
        self.samples.clear();
        for row in rows {
            self.add(row)
                .map_err(|full| StepFault::passing(full.to_string()))?;
        }
        let rows: Vec<RowReading> = rows.iter().map(RowReading::of).collect();
        let logprobs = rows.iter().any(RowReading::wants_logprobs);
        let computed = self.computed.take().expect("a step has been computed");
        let ticket = self.runner.sample(computed, &self.samples, logprobs)?;
        Ok(Arc::new(CudaResults {
            outputs: self.runner.outputs(),
            ticket,
            rows,
        }))
    }
}

impl CudaDevice {
    fn list_new_blocks(&mut self, plan: &StepPlan) {
        self.updates.clear();
        self.blocks.clear();
        for scheduled in &plan.sequences {
            for append in &scheduled.new_blocks {
                self.updates.push(TableUpdate {
                    table: append.group as u32,
                    slot: scheduled.slot.0,
                    first: append.first_index,
                    count: append.blocks.len() as u32,
                    offset: self.blocks.len() as u32,
                });
                let blocks = append.blocks.iter().map(|block| block.0);
                self.blocks.extend(blocks);
            }
        }
    }

    fn add(&mut self, row: &LogitRow<'_>) -> Result<(), SampleStepFull> {
        let nobody = self.runner.rating_slot();
        match row {
            LogitRow::Rating {
                token,
                alternatives,
            } => self.samples.push_rating(*token, *alternatives, nobody),
            LogitRow::Sample(row) => self.samples.push(step_row(row, nobody)),
        }
    }
}

/// What follows a guess is the last token of nobody: the host uploads it when it knows that it is
/// one.
fn step_row<'a>(row: &SampleRow<'a>, nobody: u32) -> StepRow<'a> {
    StepRow {
        params: row.params,
        slot: if row.behind_guess { nobody } else { row.slot },
        position: row.tokens.len() as u32,
        history: needs_history(row.params).then_some(row.slot),
        masked: row.masked,
        allowed: row.allowed,
    }
}

/// Sequences with penalties that enter their slots.
fn starting_histories(plan: &StepPlan) -> impl Iterator<Item = HistoryStart<'_>> {
    plan.sequences.iter().filter_map(|scheduled| {
        let start = scheduled.start.as_ref()?;
        needs_history(&start.sampling).then(|| HistoryStart {
            slot: scheduled.slot.0,
            tokens: &start.tokens,
            prompt_len: start.prompt_len as usize,
        })
    })
}

/// A device that failed once is not trusted again unless it says so.
impl From<DeviceError> for StepFault {
    fn from(error: DeviceError) -> Self {
        Self {
            message: error.to_string(),
            fatal: error.fatal,
        }
    }
}
