//! A model that is looked at: one text at a time, with all logits, and without sampling.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use backstop_kernels::Batch;
use backstop_types::{
    BlockAppend, BlockId, KvSpec, PlanId, SamplingParams, ScheduledSequence, SequenceId,
    SequenceSlot, SequenceStart, StepPlan, StopConditions, TokenId,
};

use crate::device::{Observation, StepDevice};
use crate::executor::WorkerSettings;
use crate::panics::message;

/// Computes one text at a time on a device.
#[expect(
    missing_debug_implementations,
    reason = "devices have no useful text form"
)]
pub struct Probe {
    device: Box<dyn StepDevice>,
    pool: rayon::ThreadPool,
    kv: KvSpec,
    /// The text so far.
    tokens: Vec<TokenId>,
    steps: u64,
}

impl Probe {
    pub(crate) fn new(
        device: Box<dyn StepDevice>,
        settings: WorkerSettings,
    ) -> std::io::Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(settings.num_threads);
        Ok(Self {
            device,
            pool: pool.build().map_err(std::io::Error::other)?,
            kv: settings.kv,
            tokens: Vec::new(),
            steps: 0,
        })
    }

    /// Numbers of a row of logits.
    pub fn vocabulary(&self) -> usize {
        self.device.limits().vocabulary
    }

    /// Tokens that [`extend`](Self::extend) takes at once.
    pub fn tokens_max(&self) -> usize {
        self.device.limits().logit_rows as usize
    }

    /// Forgets the text.
    pub fn restart(&mut self) {
        self.tokens.clear();
    }

    /// Computes the text's next tokens; a row of logits for each says what may follow it. The error is the device's,
    /// or what a kernel that panicked says.
    pub fn extend(&mut self, tokens: &[TokenId]) -> Result<Observation, String> {
        let first = self.tokens.len() as u32;
        self.tokens.extend(tokens);
        let mut batch = Batch::new();
        batch.push(0, first, tokens, false);
        batch.logit_rows = (0..tokens.len() as u32).collect();
        let plan = self.plan(first, tokens.len() as u32);
        let Self { device, pool, .. } = self;
        let observe = || pool.install(|| device.observe(&plan, &batch));
        match catch_unwind(AssertUnwindSafe(observe)) {
            Ok(observed) => observed.map_err(|fault| fault.message),
            Err(panic) => Err(message(panic.as_ref())),
        }
    }

    fn plan(&mut self, first_position: u32, num_tokens: u32) -> StepPlan {
        self.steps += 1;
        let start = (first_position == 0).then(|| SequenceStart {
            tokens: self.tokens.as_slice().into(),
            prompt_len: num_tokens,
            sampling: Arc::new(SamplingParams::default()),
            stop: Arc::new(StopConditions {
                max_tokens: 1,
                min_tokens: 0,
                stop_token_ids: Vec::new(),
            }),
        });
        StepPlan {
            id: PlanId(self.steps),
            sequences: vec![ScheduledSequence {
                sequence: SequenceId(self.steps),
                slot: SequenceSlot(0),
                start,
                first_position,
                num_tokens,
                draft: Vec::new(),
                new_blocks: self.new_blocks(first_position, first_position + num_tokens),
                rated: 0..0,
                samples: false,
            }],
        }
    }

    /// The blocks of positions that had none. A pool that is smaller than the text is a window's, whose first blocks
    /// are used again.
    fn new_blocks(&self, first_position: u32, end_position: u32) -> Vec<BlockAppend> {
        let first = first_position.div_ceil(self.kv.block_size);
        let entries = first..end_position.div_ceil(self.kv.block_size);
        let groups = self.kv.groups.iter().enumerate();
        let appends = groups.map(|(group, pool)| BlockAppend {
            group,
            first_index: first,
            blocks: entries
                .clone()
                .map(|entry| BlockId(entry % pool.num_blocks))
                .collect(),
        });
        appends.filter(|append| !append.blocks.is_empty()).collect()
    }
}
