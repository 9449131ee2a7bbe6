//! Sampling on the device. Launches of `kernels/cuda/sample.cu`.
//!
//! 1. [`SampleWorkspace::new`], once.
//! 2. When a sequence with penalties ([`needs_history`]) starts: [`SampleWorkspace::start_history`]
//!    with its tokens. From then on the device adds what it samples.
//! 3. For each step: fill a [`SampleStep`], [`SampleStep::write`] it into pinned memory, upload
//!    the pieces that it names to [`SampleWorkspace::step`], and queue [`SampleWorkspace::launch`].
//! 4. The tokens are in [`SampleWorkspace::last_tokens`] for the next step's embedding, and with
//!    [`SampleWorkspace::sampled`] and [`SampleWorkspace::logprobs`] for the host, which
//!    [`SampledRow::decode`]s them.
//!
//! From equal logits the device samples exactly the tokens that the processor does, whatever else
//! is in the batch.

mod step;

use std::sync::Arc;

use backstop_types::{SampledToken, SamplingParams, TokenLogprobs};

use crate::{Device, DeviceBuffer, DeviceError, DevicePointer, Grid, KernelArgs, Plain, Stream};

pub use step::{SampleStep, SampleStepFull, StepRow};

/// Most tokens whose log-probabilities are reported besides the chosen one's.
pub const TOP_LOGPROBS_MAX: usize = 20;
/// Largest vocabulary.
pub const VOCABULARY_MAX: usize = 2048 * SEGMENT;

/// Tokens that a warp reads together.
const SEGMENT: usize = 256;
const SCAN_THREADS: usize = 256;
/// Segments of a block of the first two kernels.
const SCAN_SEGMENTS: usize = SCAN_THREADS / 32;
const FINISH_THREADS: u32 = 1024;
const FINISH_SHARED_BYTES: usize = 115_392;
const HISTORY_THREADS: usize = 256;
/// In place of the number of a history, of a mask or of log-probabilities.
const NONE: u32 = u32::MAX;

/// What a workspace has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleLimits {
    /// Rows of a step.
    pub rows: usize,
    /// Tokens.
    pub vocabulary: usize,
    /// Slots of sequences.
    pub slots: usize,
    /// Sequences with penalties at a time; each takes 2 bytes for each token of the vocabulary.
    pub histories: usize,
    /// Of all rows of a step together: masked tokens, and twice the tokens with a bias.
    pub list_words: usize,
    /// Rows of a step with a mask of allowed tokens.
    pub masks: usize,
}

impl SampleLimits {
    fn segments(&self) -> usize {
        self.vocabulary.div_ceil(SEGMENT)
    }

    fn mask_words(&self) -> usize {
        self.vocabulary.div_ceil(32)
    }

    /// Bytes of device memory that a workspace takes.
    pub fn device_bytes(&self) -> usize {
        let per_segment = 3 * size_of::<f32>() + size_of::<u64>();
        let per_row = size_of::<SampledRow>() + size_of::<SampledLogprobs>();
        self.step_bytes()
            + self.rows * (self.segments() * per_segment + per_row)
            + self.history_bytes()
            + self.slots * size_of::<u32>()
    }

    /// Whole words, which is what atomics change.
    fn history_bytes(&self) -> usize {
        (self.histories * self.vocabulary * size_of::<u16>()).next_multiple_of(4)
    }
}

/// Whether a sequence's tokens influence its sampling.
pub fn needs_history(params: &SamplingParams) -> bool {
    params.repetition_penalty != 1.0
        || params.frequency_penalty != 0.0
        || params.presence_penalty != 0.0
}

/// What was sampled for a row.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampledRow {
    /// The token; 0 after a fault.
    pub token: u32,
    /// 1 if the logits were unusable.
    pub fault: u32,
}

/// Log-probabilities of a row that asked for them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SampledLogprobs {
    logprob: f32,
    rank: u32,
    top_count: u32,
    unused: u32,
    top_tokens: [u32; TOP_LOGPROBS_MAX],
    top_logprobs: [f32; TOP_LOGPROBS_MAX],
}

const _: () = assert!(size_of::<SampledRow>() == 8 && size_of::<SampledLogprobs>() == 176);

// SAFETY: numbers without padding.
unsafe impl Plain for SampledRow {}
// SAFETY: numbers without padding.
unsafe impl Plain for SampledLogprobs {}

impl SampledRow {
    /// The token, with log-probabilities for a row that asked for them; `None` if a logit was NaN
    /// or plus infinity, or if none that could be sampled was finite.
    pub fn decode(&self, logprobs: Option<&SampledLogprobs>) -> Option<SampledToken> {
        (self.fault == 0).then(|| SampledToken {
            id: self.token,
            logprobs: logprobs.map(SampledLogprobs::decode),
        })
    }
}

impl SampledLogprobs {
    fn decode(&self) -> TokenLogprobs {
        let tokens = self.top_tokens.iter().copied();
        let top = tokens.zip(self.top_logprobs.iter().copied());
        TokenLogprobs {
            logprob: self.logprob,
            rank: self.rank,
            top: top.take(self.top_count as usize).collect(),
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Args {
    logits: DevicePointer,
    row_count: DevicePointer,
    rows: DevicePointer,
    lists: DevicePointer,
    allowed: DevicePointer,
    histories: DevicePointer,
    raw_maxima: DevicePointer,
    raw_sums: DevicePointer,
    maxima: DevicePointer,
    weight_sums: DevicePointer,
    last_tokens: DevicePointer,
    sampled: DevicePointer,
    logprobs: DevicePointer,
    vocabulary: u32,
    segments: u32,
}

const _: () = assert!(size_of::<Args>() == 112);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for Args {}

#[repr(C)]
#[derive(Clone, Copy)]
struct HistoryArgs {
    tokens: DevicePointer,
    history: DevicePointer,
    prompt: u32,
    count: u32,
    vocabulary: u32,
    unused: u32,
}

const _: () = assert!(size_of::<HistoryArgs>() == 32);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for HistoryArgs {}

/// Device memory of sampling.
pub struct SampleWorkspace {
    device: Arc<dyn Device>,
    limits: SampleLimits,
    step: DeviceBuffer,
    histories: DeviceBuffer,
    raw_maxima: DeviceBuffer,
    raw_sums: DeviceBuffer,
    maxima: DeviceBuffer,
    weight_sums: DeviceBuffer,
    last_tokens: DeviceBuffer,
    sampled: DeviceBuffer,
    logprobs: DeviceBuffer,
}

impl SampleWorkspace {
    /// Memory for steps within these limits.
    pub fn new(device: &Arc<dyn Device>, limits: SampleLimits) -> Result<Self, DeviceError> {
        let vocabulary = limits.vocabulary;
        assert!(
            (1..=VOCABULARY_MAX).contains(&vocabulary),
            "a vocabulary of 1 to {VOCABULARY_MAX} tokens, not {vocabulary}"
        );
        let per_segment =
            |bytes: usize| DeviceBuffer::new(device, limits.rows * limits.segments() * bytes);
        // Without rows until the first step is uploaded, and with token 0 in every slot.
        let zeroed = |bytes: usize| DeviceBuffer::filled(device, 0, bytes);
        Ok(Self {
            device: Arc::clone(device),
            limits,
            step: zeroed(limits.step_bytes())?,
            histories: zeroed(limits.history_bytes())?,
            raw_maxima: per_segment(size_of::<f32>())?,
            raw_sums: per_segment(size_of::<f32>())?,
            maxima: per_segment(size_of::<f32>())?,
            weight_sums: per_segment(size_of::<u64>())?,
            last_tokens: zeroed(limits.slots * size_of::<u32>())?,
            sampled: zeroed(limits.rows * size_of::<SampledRow>())?,
            logprobs: zeroed(limits.rows * size_of::<SampledLogprobs>())?,
        })
    }

    /// What it has room for.
    pub fn limits(&self) -> &SampleLimits {
        &self.limits
    }

    /// Where the bytes of a [`SampleStep`] go.
    pub fn step(&self) -> DevicePointer {
        self.step.pointer()
    }

    /// u32 `[slots]`: the token that each slot sampled last.
    pub fn last_tokens(&self) -> &DeviceBuffer {
        &self.last_tokens
    }

    /// u16 `[histories, vocabulary]`: how often each token occurred in a sequence with penalties.
    pub fn histories(&self) -> &DeviceBuffer {
        &self.histories
    }

    /// [`SampledRow`] of each row.
    pub fn sampled(&self) -> &DeviceBuffer {
        &self.sampled
    }

    /// [`SampledLogprobs`] of each row; only those of rows that asked for them are written.
    pub fn logprobs(&self) -> &DeviceBuffer {
        &self.logprobs
    }

    /// Queues sampling. The step in device memory says how many of the `rows` there are.
    ///
    /// # Safety
    ///
    /// `logits` are f32 `[rows, vocabulary]`, and the bytes of a step lie in [`step`](Self::step)
    /// when the work is done.
    pub unsafe fn launch(
        &self,
        stream: Stream,
        logits: DevicePointer,
        rows: usize,
    ) -> Result<(), DeviceError> {
        let limits = &self.limits;
        assert!(rows <= limits.rows, "{rows} of {} rows", limits.rows);
        if rows == 0 {
            return Ok(());
        }
        let args = self.args(logits);
        let pieces = limits.segments().div_ceil(SCAN_SEGMENTS);
        let scan = Grid::new([pieces, rows, 1], SCAN_THREADS as u32)
            .shared(SCAN_SEGMENTS * SEGMENT * size_of::<f32>());
        let finish = Grid::line(rows, FINISH_THREADS).shared(FINISH_SHARED_BYTES);
        let kernels = [
            ("sample_scan", scan),
            ("sample_weigh", scan),
            ("sample_finish", finish),
        ];
        for (kernel, grid) in kernels {
            // SAFETY: the caller's promise, and the workspace's memory has the sizes of the
            // limits that steps are held to; the struct is the kernel's.
            unsafe { self.device.launch(stream, kernel, grid, &args)? };
        }
        Ok(())
    }

    fn args(&self, logits: DevicePointer) -> Args {
        let (rows, lists, masks) = self.limits.step_offsets();
        let step = self.step.pointer();
        Args {
            logits,
            row_count: step,
            rows: step.offset(rows),
            lists: step.offset(lists),
            allowed: step.offset(masks),
            histories: self.histories.pointer(),
            raw_maxima: self.raw_maxima.pointer(),
            raw_sums: self.raw_sums.pointer(),
            maxima: self.maxima.pointer(),
            weight_sums: self.weight_sums.pointer(),
            last_tokens: self.last_tokens.pointer(),
            sampled: self.sampled.pointer(),
            logprobs: self.logprobs.pointer(),
            vocabulary: self.limits.vocabulary as u32,
            segments: self.limits.segments() as u32,
        }
    }

    /// Queues the start of a history with `count` tokens, the first `prompt` of which are the
    /// prompt's. A token's occurrences in the output count up to 32767.
    ///
    /// # Safety
    ///
    /// `tokens` are `count` u32.
    pub unsafe fn start_history(
        &self,
        stream: Stream,
        history: u32,
        tokens: DevicePointer,
        prompt: usize,
        count: usize,
    ) -> Result<(), DeviceError> {
        let limits = &self.limits;
        assert!((history as usize) < limits.histories, "history {history}");
        let bytes = limits.vocabulary * size_of::<u16>();
        let history = self.histories.pointer().offset(history as usize * bytes);
        // SAFETY: the history is this long.
        unsafe { self.device.fill(stream, history, 0, bytes)? };
        if count == 0 {
            return Ok(());
        }
        let args = HistoryArgs {
            tokens,
            history,
            prompt: prompt as u32,
            count: count as u32,
            vocabulary: limits.vocabulary as u32,
            unused: 0,
        };
        let grid = Grid::line(count.div_ceil(HISTORY_THREADS), HISTORY_THREADS as u32);
        // SAFETY: the caller's promise; the struct is the kernel's.
        unsafe { self.device.launch(stream, "sample_history", grid, &args) }
    }
}
