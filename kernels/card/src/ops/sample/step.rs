//! What the host says about the rows of a step, and its bytes.

use std::ops::Range;

use backstop_types::{SamplingParams, TokenId};

use super::{NONE, SampleLimits, TOP_LOGPROBS_MAX, needs_history};

/// A row's parameters, as the kernels read them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct RowParams {
    seed: u64,
    slot: u32,
    position: u32,
    temperature: f32,
    top_p: f32,
    min_p: f32,
    repetition_penalty: f32,
    frequency_penalty: f32,
    presence_penalty: f32,
    top_k: u32,
    history: u32,
    allowed: u32,
    masked_first: u32,
    masked_count: u32,
    bias_first: u32,
    bias_count: u32,
    logprobs: u32,
}

const _: () = assert!(size_of::<RowParams>() == 72);

/// Bytes before the rows; the first four are the number of rows.
const HEADER_BYTES: usize = 16;
/// Outweighs all logits, and leaves the largest of them finite.
const CERTAIN: f32 = 1e30;

impl SampleLimits {
    /// Most bytes of a [`SampleStep`].
    pub fn step_bytes(&self) -> usize {
        let (_, _, masks) = self.step_offsets();
        masks + self.masks * self.mask_words() * size_of::<u32>()
    }

    /// Where rows, lists and masks begin.
    pub(super) fn step_offsets(&self) -> (usize, usize, usize) {
        let lists = HEADER_BYTES + self.rows * size_of::<RowParams>();
        (
            HEADER_BYTES,
            lists,
            lists + self.list_words * size_of::<u32>(),
        )
    }
}

/// A row to sample.
#[derive(Clone, Copy, Debug)]
pub struct StepRow<'a> {
    /// How to sample.
    pub params: &'a SamplingParams,
    /// Slot of the sequence.
    pub slot: u32,
    /// Position of the token that is sampled.
    pub position: u32,
    /// The sequence's history, if it [needs one](needs_history).
    pub history: Option<u32>,
    /// Tokens that must not be sampled.
    pub masked: &'a [TokenId],
    /// A bit for each token, from the lowest of each word on; only tokens whose bit is set may be
    /// sampled.
    pub allowed: Option<&'a [u32]>,
}

/// A row does not fit into a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleStepFull {
    /// There are as many rows as the workspace has room for.
    #[error("no room for another row")]
    Rows,
    /// Masked tokens and biases exceed the workspace's room.
    #[error("no room for the masked tokens and biases of another row")]
    Lists,
    /// There are as many masks as the workspace has room for.
    #[error("no room for another mask of allowed tokens")]
    Masks,
}

/// The rows of a step.
#[derive(Clone, Debug)]
pub struct SampleStep {
    limits: SampleLimits,
    rows: Vec<RowParams>,
    lists: Vec<u32>,
    masks: Vec<u32>,
}

impl SampleStep {
    /// A step without rows.
    pub fn new(limits: SampleLimits) -> Self {
        Self {
            limits,
            rows: Vec::new(),
            lists: Vec::new(),
            masks: Vec::new(),
        }
    }

    /// Removes all rows.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.lists.clear();
        self.masks.clear();
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds the row of the next logits. Nothing changes if it does not fit.
    pub fn push(&mut self, row: StepRow<'_>) -> Result<(), SampleStepFull> {
        self.check(&row)?;
        let params = row.params;
        let (masked_first, masked_count) = self.push_masked(row.masked);
        let (bias_first, bias_count) = self.push_bias(&params.logit_bias);
        let allowed = row.allowed.map_or(NONE, |words| {
            let index = self.masks.len() / self.limits.mask_words();
            self.masks.extend_from_slice(words);
            index as u32
        });
        self.rows.push(RowParams {
            seed: params.seed,
            slot: row.slot,
            position: row.position,
            temperature: params.temperature,
            top_p: params.top_p,
            min_p: params.min_p,
            repetition_penalty: params.repetition_penalty,
            frequency_penalty: params.frequency_penalty,
            presence_penalty: params.presence_penalty,
            top_k: params.top_k,
            history: match row.history {
                Some(history) if needs_history(params) => history,
                _ => NONE,
            },
            allowed,
            masked_first,
            masked_count,
            bias_first,
            bias_count,
            logprobs: params.logprobs.unwrap_or(NONE),
        });
        Ok(())
    }

    /// Adds a row for the log-probabilities of a token that is known already: one that samples
    /// this token, whatever the logits. It counts as sampled for `slot`, which must be nobody's.
    pub fn push_rating(
        &mut self,
        token: TokenId,
        alternatives: u32,
        slot: u32,
    ) -> Result<(), SampleStepFull> {
        let params = SamplingParams {
            logit_bias: vec![(token, CERTAIN)],
            logprobs: Some(alternatives),
            ..SamplingParams::default()
        };
        self.push(StepRow {
            params: &params,
            slot,
            position: 0,
            history: None,
            masked: &[],
            allowed: None,
        })
    }

    fn check(&self, row: &StepRow<'_>) -> Result<(), SampleStepFull> {
        let limits = &self.limits;
        let params = row.params;
        assert!((row.slot as usize) < limits.slots, "slot {}", row.slot);
        assert!(
            !needs_history(params) || row.history.is_some(),
            "penalties need a history"
        );
        if let Some(history) = row.history {
            assert!((history as usize) < limits.histories, "history {history}");
        }
        if let Some(count) = params.logprobs {
            assert!(count as usize <= TOP_LOGPROBS_MAX, "{count} logprobs");
        }
        let words = self.lists.len() + row.masked.len() + 2 * params.logit_bias.len();
        if self.rows.len() == limits.rows {
            return Err(SampleStepFull::Rows);
        }
        if words > limits.list_words {
            return Err(SampleStepFull::Lists);
        }
        if let Some(words) = row.allowed {
            assert_eq!(words.len(), limits.mask_words(), "a bit for each token");
            if self.masks.len() == limits.masks * limits.mask_words() {
                return Err(SampleStepFull::Masks);
            }
        }
        Ok(())
    }

    /// In ascending order, without what is not in the vocabulary; first place and number.
    fn push_masked(&mut self, masked: &[TokenId]) -> (u32, u32) {
        let first = self.lists.len();
        let vocabulary = self.limits.vocabulary;
        let known = masked
            .iter()
            .filter(|&&token| (token as usize) < vocabulary);
        self.lists.extend(known);
        self.lists[first..].sort_unstable();
        (first as u32, (self.lists.len() - first) as u32)
    }

    /// The same, followed by the biases. Several of one token keep their order.
    fn push_bias(&mut self, biases: &[(TokenId, f32)]) -> (u32, u32) {
        let vocabulary = self.limits.vocabulary;
        let known = biases
            .iter()
            .filter(|&&(token, _)| (token as usize) < vocabulary);
        let mut known: Vec<(TokenId, f32)> = known.copied().collect();
        known.sort_by_key(|&(token, _)| token);
        let first = self.lists.len();
        self.lists.extend(known.iter().map(|&(token, _)| token));
        self.lists
            .extend(known.iter().map(|&(_, bias)| bias.to_bits()));
        (first as u32, known.len() as u32)
    }

    /// Writes the step into `bytes`, of which there are
    /// [`step_bytes`](SampleLimits::step_bytes). Returns which of them must be uploaded: header
    /// and rows, lists, masks; the last two may be empty.
    pub fn write(&self, bytes: &mut [u8]) -> [Range<usize>; 3] {
        let (rows, lists, masks) = self.limits.step_offsets();
        bytes[..4].copy_from_slice(&(self.rows.len() as u32).to_ne_bytes());
        let mut end = rows;
        for (params, bytes) in self
            .rows
            .iter()
            .zip(bytes[rows..lists].chunks_exact_mut(size_of::<RowParams>()))
        {
            bytes.copy_from_slice(&params.to_bytes());
            end += bytes.len();
        }
        for (first, words) in [(lists, &self.lists), (masks, &self.masks)] {
            for (word, bytes) in words.iter().zip(bytes[first..].chunks_exact_mut(4)) {
                bytes.copy_from_slice(&word.to_ne_bytes());
            }
        }
        let piece = |first, words: &Vec<u32>| first..first + size_of_val(words.as_slice());
        [0..end, piece(lists, &self.lists), piece(masks, &self.masks)]
    }
}

impl RowParams {
    fn to_bytes(self) -> [u8; size_of::<Self>()] {
        // SAFETY: numbers without padding.
        unsafe { std::mem::transmute(self) }
    }
}
