//! Runs steps on a device: uploads what varies, queues or replays the operations, queues the
//! sampling, and brings the sampled tokens back. The host never waits for the device here.
//!
//! Sampling is queued apart from the operations, so that the host can make its parameters while the
//! device computes the logits.

mod outputs;
mod rehearsal;
mod uploads;

pub use rehearsal::{Rehearsal, RehearsalSizes, rehearse};

use std::sync::Arc;

use backstop_kernels::Batch;

use super::arena::Arena;
use super::backend::{AttentionMemory, AttentionNeeds, CudaBackend, StepLimits};
use super::batch::TableUpdate;
use super::buffer::DeviceBuffer;
use super::device::{Device, DeviceError, DevicePointer, Graph, Stream};
use super::kv_cache::CudaKvCache;
use super::pinned::Pinned;
use super::step::{StepMemory, StepShape};
use super::weights::CudaWeights;
use crate::ops::sample::{SampleLimits, SampleStep, SampleWorkspace};

pub use outputs::Outputs;

/// Steps that may be on their way at once.
pub const STEPS_IN_FLIGHT: usize = 2;
/// Table updates, and blocks in them, that are uploaded together.
const UPDATES_MAX: usize = 4096;
const UPDATE_BLOCKS_MAX: usize = 65_536;
/// Words of masked tokens and biases of a row: requests name at most 1024 stop tokens, which the
/// model's own add to, and 1024 biases of two words each.
const LIST_WORDS_PER_ROW: usize = 3200;
/// Rows that graphs are captured for, see [`graph_rows`].
const GRAPH_ROWS: [usize; 15] = [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256];

/// Rows of the graphs of decode steps of at most `rows` sequences.
pub fn graph_rows(rows: usize) -> Vec<usize> {
    let mut sizes: Vec<usize> = GRAPH_ROWS.into_iter().filter(|&size| size < rows).collect();
    sizes.push(rows.min(GRAPH_ROWS[GRAPH_ROWS.len() - 1]));
    sizes
}

/// What a runner is made of.
pub struct RunnerConfig {
    /// Where it runs.
    pub device: Arc<dyn Device>,
    /// The model's weights.
    pub weights: Arc<CudaWeights>,
    /// Memory for keys and values.
    pub kv: CudaKvCache,
    /// What the model asks of attention.
    pub needs: AttentionNeeds,
    /// The largest steps.
    pub limits: StepLimits,
    /// Tokens.
    pub vocabulary: usize,
    /// Memory for activations.
    pub arena_bytes: usize,
}

/// A sequence with penalties that enters its slot.
#[derive(Clone, Copy, Debug)]
pub struct HistoryStart<'a> {
    /// The slot.
    pub slot: u32,
    /// Prompt and what was generated so far.
    pub tokens: &'a [u32],
    /// How many of them are the prompt.
    pub prompt_len: usize,
}

/// The work of a step.
#[derive(Clone, Copy, Debug)]
pub struct StepWork<'a> {
    /// Rows. A token may be a slot with `FEEDBACK`.
    pub batch: &'a Batch,
    /// Changes of block tables, before anything else.
    pub updates: &'a [TableUpdate],
    /// The blocks that the updates speak of.
    pub blocks: &'a [u32],
    /// Histories that begin.
    pub histories: &'a [HistoryStart<'a>],
}

/// Names a step that was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    index: usize,
    rows: usize,
    logprobs: bool,
}

/// Queues steps.
pub struct Runner {
    device: Arc<dyn Device>,
    backend: CudaBackend,
    sampler: SampleWorkspace,
    /// For steps that graphs serve, and for all others.
    decode_memory: StepMemory,
    mixed_memory: StepMemory,
    graphs: Vec<RecordedStep>,
    limits: StepLimits,
    tables: Vec<(DevicePointer, u32)>,
    update_memory: DeviceBuffer,
    history_memory: DeviceBuffer,
    _arena: DeviceBuffer,
    staging: Vec<Staging>,
    /// For rare uploads, waited for at once.
    rare: Pinned,
    outputs: Arc<Outputs>,
    steps: usize,
    /// A step's operations are queued, and its sampling is not.
    unsampled: bool,
}

/// The operations of a decode step of so many rows.
#[derive(Clone, Copy)]
struct RecordedStep {
    rows: usize,
    graph: Graph,
    /// Where it leaves its logits.
    logits: DevicePointer,
}

/// A step whose operations are queued and which has not been sampled.
#[derive(Clone, Copy, Debug)]
#[must_use = "what a step computed is sampled"]
pub struct Computed {
    logits: DevicePointer,
    rows: usize,
}

/// Host memory that a step's uploads come from.
struct Staging {
    inputs: Pinned,
    plans: Pinned,
    samples: Pinned,
    updates: Pinned,
}

impl Runner {
    /// Takes all memory that steps within the limits need.
    pub fn new(config: RunnerConfig) -> Result<Self, DeviceError> {
        let RunnerConfig {
            device,
            weights,
            kv,
            needs,
            limits,
            vocabulary,
            arena_bytes,
        } = config;
        let samples = sample_limits(limits, vocabulary);
        let sampler = SampleWorkspace::new(&device, samples)?;
        let memory = |rows| {
            let counts = [rows, limits.logit_rows(), limits.sequences];
            StepMemory::new(&device, counts, sampler.last_tokens().pointer())
        };
        let (decode_memory, mixed_memory) = (memory(largest_graph(limits))?, memory(limits.rows)?);
        let attention = AttentionMemory::new(&device, &needs, limits, kv.block_size())?;
        let tables = attention.tables();
        let plan_bytes = attention.plan_bytes();
        let staging = (0..STEPS_IN_FLIGHT).map(|_| {
            Ok(Staging {
                inputs: Pinned::new(&device, StepMemory::bytes(limits.rows, limits.logit_rows()))?,
                plans: Pinned::new(&device, plan_bytes)?,
                samples: Pinned::new(&device, samples.step_bytes())?,
                updates: Pinned::new(&device, uploads::UPDATE_BYTES)?,
            })
        });
        let staging = staging.collect::<Result<_, DeviceError>>()?;
        let memory = DeviceBuffer::new(&device, arena_bytes)?;
        let arena = Arena::new(memory.pointer(), arena_bytes);
        let shape = decode_memory.shape(1, 1);
        let outputs = Outputs::new(&device, limits.logit_rows())?;
        Ok(Self {
            backend: CudaBackend::new(&device, weights, kv, arena, attention, shape)?,
            update_memory: DeviceBuffer::new(&device, uploads::UPDATE_BYTES)?,
            history_memory: DeviceBuffer::new(&device, limits.positions * 4)?,
            rare: Pinned::new(&device, uploads::UPDATE_BYTES.max(limits.positions * 4))?,
            outputs: Arc::new(outputs),
            sampler,
            decode_memory,
            mixed_memory,
            graphs: Vec::new(),
            limits,
            tables,
            _arena: memory,
            staging,
            steps: 0,
            unsampled: false,
            device,
        })
    }

    /// What steps bring back.
    pub fn outputs(&self) -> Arc<Outputs> {
        Arc::clone(&self.outputs)
    }

    /// The slot of rows that rate a token: no sequence has it.
    pub fn rating_slot(&self) -> u32 {
        self.limits.sequences as u32
    }

    /// Limits of the steps' sampling.
    pub fn sample_limits(&self) -> &SampleLimits {
        self.sampler.limits()
    }

    /// Records the decode steps, after one of each has run, so that everything that happens only
    /// once has happened. `forward` queues a model's operations.
    pub fn capture(
        &mut self,
        forward: &mut dyn FnMut(&mut CudaBackend),
    ) -> Result<(), DeviceError> {
        let batch = Batch::new();
        let empty = StepWork {
            batch: &batch,
            updates: &[],
            blocks: &[],
            histories: &[],
        };
        // Sampling runs once too, for the same reason.
        let samples = SampleStep::new(*self.sampler.limits());
        for rows in graph_rows(self.limits.sequences.min(self.limits.rows)) {
            let shape = self.decode_memory.shape(rows, rows);
            self.upload(&empty, &shape)?;
            self.backend.expect_decode();
            let logits = self.queue(shape, forward)?;
            self.upload_samples(&samples)?;
            // SAFETY: the logits have this many rows, and a step without samples was uploaded.
            unsafe { self.sampler.launch(Stream::Main, logits, rows)? };
            self.device.synchronize(Stream::Main)?;
            self.device.begin_capture()?;
            let queued = self.queue(shape, forward);
            let graph = self.device.end_capture();
            self.graphs.push(RecordedStep {
                rows,
                logits: queued?,
                graph: graph?,
            });
        }
        Ok(())
    }

    /// Queues a step's operations; [`sample`](Self::sample) follows. At most [`STEPS_IN_FLIGHT`]
    /// steps are on their way: whoever begins one has read what came of those before.
    pub fn compute(
        &mut self,
        work: &StepWork<'_>,
        forward: &mut dyn FnMut(&mut CudaBackend),
    ) -> Result<Computed, DeviceError> {
        let rows = work.batch.logit_rows.len();
        work.batch.check();
        if std::mem::replace(&mut self.unsampled, true) {
            // The step before was given up half-way. It has not counted, so that its staging memory
            // is used again now, and the device may still read it.
            self.device.synchronize(Stream::Main)?;
        }
        let logits = match self.graph_for(work.batch) {
            Some(recorded) => {
                let shape = self.decode_memory.shape(recorded.rows, recorded.rows);
                self.upload(work, &shape)?;
                self.device.replay(recorded.graph)?;
                recorded.logits
            }
            None => {
                let shape = self.mixed_memory.shape(work.batch.tokens.len(), rows);
                self.upload(work, &shape)?;
                self.queue(shape, forward)?
            }
        };
        Ok(Computed { logits, rows })
    }

    /// Queues the sampling of a step, for each of its batch's logit rows, and the way back of its
    /// samples; `logprobs` says whether a row wants log-probabilities.
    pub fn sample(
        &mut self,
        computed: Computed,
        samples: &SampleStep,
        logprobs: bool,
    ) -> Result<Ticket, DeviceError> {
        let Computed { logits, rows } = computed;
        assert_eq!(samples.len(), rows, "samples of a step");
        self.upload_samples(samples)?;
        // SAFETY: the logits have this many rows, and the step's samples were uploaded.
        unsafe { self.sampler.launch(Stream::Main, logits, rows)? };
        let index = self.steps % STEPS_IN_FLIGHT;
        let ticket = self.outputs.fetch(index, rows, logprobs, &self.sampler)?;
        self.steps += 1;
        self.unsampled = false;
        Ok(ticket)
    }

    /// Logits of the last step that was not a replay, f32 `[rows, vocabulary]`; waits for it. For
    /// comparisons with other implementations.
    pub fn read_logits(&self, rows: usize) -> Result<Vec<f32>, DeviceError> {
        let mut logits = vec![0f32; rows * self.sampler.limits().vocabulary];
        let from = self.backend.logits().expect("a step has been queued");
        // SAFETY: the step left this many logits, and they are read after the wait.
        unsafe {
            let to = logits.as_mut_ptr().cast();
            let bytes = size_of_val(logits.as_slice());
            self.device.download(Stream::Main, to, from, bytes)?;
        }
        self.device.synchronize(Stream::Main)?;
        Ok(logits)
    }

    /// The weights.
    pub fn weights(&self) -> &Arc<CudaWeights> {
        self.backend.weights()
    }

    /// The backend, to watch it.
    pub fn backend(&mut self) -> &mut CudaBackend {
        &mut self.backend
    }

    /// The smallest recorded decode step that the batch fits, if it is one.
    fn graph_for(&self, batch: &Batch) -> Option<RecordedStep> {
        let rows = batch.tokens.len();
        if rows != batch.sequences.len() {
            return None;
        }
        let fits = |recorded: &&RecordedStep| recorded.rows >= rows;
        self.graphs.iter().find(fits).copied()
    }

    /// Queues the operations of a step whose inputs have been uploaded; returns where they leave
    /// its logits.
    fn queue(
        &mut self,
        shape: StepShape,
        forward: &mut dyn FnMut(&mut CudaBackend),
    ) -> Result<DevicePointer, DeviceError> {
        self.backend.begin(shape);
        forward(&mut self.backend);
        match self.backend.take_error() {
            Some(error) => Err(error),
            None => Ok(self.backend.logits().expect("a model ends with its head")),
        }
    }
}

/// They refer to memory that goes with the runner. A device has one at a time.
impl Drop for Runner {
    fn drop(&mut self) {
        if !self.graphs.is_empty() {
            // An error means that the device is beyond use, and says so when it is used next.
            let _ignored = self.device.release_graphs();
        }
    }
}

/// Rows of the largest graph.
fn largest_graph(limits: StepLimits) -> usize {
    let sizes = graph_rows(limits.sequences.min(limits.rows));
    sizes.last().copied().unwrap_or(1)
}

fn sample_limits(limits: StepLimits, vocabulary: usize) -> SampleLimits {
    SampleLimits {
        rows: limits.logit_rows(),
        vocabulary,
        // And that of rows which rate a token.
        slots: limits.sequences + 1,
        histories: limits.sequences,
        list_words: limits.logit_rows() * LIST_WORDS_PER_ROW,
        masks: limits.sequences,
    }
}
