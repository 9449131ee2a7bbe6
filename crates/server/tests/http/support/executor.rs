//! An executor without a model: sequences say what a script tells them to.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backstop_types::{
    AttentionSpan, ConstraintMatcher, Executor, KvGroupSpec, KvSpec, PromptLogprobs, SampleFault,
    SampledToken, SamplingParams, SequenceSlot, StepFailure, StepOutcome, StepPlan, TokenId,
    TokenLogprobs, TokenSample,
};

use super::vocabulary::{EOS, VOCAB_SIZE, tokenizer};

/// What the model says, and how it misbehaves.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// What the sequences say in the order in which they start; the last is said again by all
    /// that follow.
    turns: Vec<Vec<TokenId>>,
    /// Say the script again instead of ending.
    repeats: bool,
    /// How long a step takes.
    step_time: Duration,
    /// Steps neither end nor fail while this is set.
    pub(crate) stalled: Arc<AtomicBool>,
    /// The next step fails for good once this is set.
    pub(crate) broken: Arc<AtomicBool>,
    /// The sequence has this fault from this position of the answer on.
    faulty_from: Option<usize>,
    fault: SampleFault,
}

impl Script {
    /// Says `text` and ends.
    pub(crate) fn says(text: &str) -> Self {
        Self::says_in_turn(&[text])
    }

    /// The first sequence says the first text, and so on.
    pub(crate) fn says_in_turn(texts: &[impl AsRef<str>]) -> Self {
        let tokenizer = tokenizer();
        let turns = texts.iter();
        let turns = turns.map(|text| tokenizer.encode(text.as_ref(), false).unwrap());
        Self {
            turns: turns.collect(),
            repeats: false,
            step_time: Duration::ZERO,
            stalled: Arc::default(),
            broken: Arc::default(),
            faulty_from: None,
            fault: SampleFault::NotANumber,
        }
    }

    /// Says `text` again and again.
    pub(crate) fn repeats(text: &str) -> Self {
        Self {
            repeats: true,
            ..Self::says(text)
        }
    }

    /// The same, taking this long for a step.
    pub(crate) fn slowly(mut self, milliseconds: u64) -> Self {
        self.step_time = Duration::from_millis(milliseconds);
        self
    }

    /// The same, failing on the sequence from this token on.
    pub(crate) fn faulty_from(mut self, position: usize) -> Self {
        self.faulty_from = Some(position);
        self
    }

    /// The same, losing the sequence's grammar from this token on.
    pub(crate) fn losing_grammar_from(mut self, position: usize) -> Self {
        self.fault = SampleFault::Constraint;
        self.faulty_from(position)
    }

    fn token(&self, turn: usize, position: usize) -> Option<TokenId> {
        if self.faulty_from.is_some_and(|first| position >= first) {
            return None;
        }
        let tokens = self.turns.get(turn).or(self.turns.last())?;
        let position = if self.repeats {
            position % tokens.len()
        } else {
            position
        };
        Some(tokens.get(position).copied().unwrap_or(EOS))
    }
}

struct Slot {
    turn: usize,
    prompt: Vec<TokenId>,
    sampling: Arc<SamplingParams>,
    matcher: Option<Box<dyn ConstraintMatcher>>,
}

impl Slot {
    /// Whether the sequence's grammar allows this token, which then counts as taken.
    fn follows_grammar(&mut self, token: TokenId) -> bool {
        let Some(matcher) = &mut self.matcher else {
            return true;
        };
        let mut mask = [0; VOCAB_SIZE.div_ceil(32) as usize];
        matcher.fill_mask(&mut mask).is_ok()
            && mask[token as usize / 32] >> (token % 32) & 1 == 1
            && matcher.advance(token).is_ok()
    }
}

pub(crate) struct ScriptedExecutor {
    script: Script,
    kv: KvSpec,
    slots: BTreeMap<SequenceSlot, Slot>,
    plans: VecDeque<StepPlan>,
    /// Sequences that have started.
    started: usize,
}

impl ScriptedExecutor {
    pub(crate) fn new(script: Script) -> Self {
        let group = KvGroupSpec {
            span: AttentionSpan::Full,
            num_blocks: 4096,
        };
        Self {
            script,
            kv: KvSpec {
                block_size: 16,
                groups: vec![group],
            },
            slots: BTreeMap::new(),
            plans: VecDeque::new(),
            started: 0,
        }
    }

    /// A script that leaves the sequence's grammar loses it.
    fn sample(&mut self, slot: SequenceSlot, length: u32) -> Result<SampledToken, SampleFault> {
        let slot = self.slots.get_mut(&slot).unwrap();
        let position = length as usize - slot.prompt.len();
        let id = self
            .script
            .token(slot.turn, position)
            .ok_or(self.script.fault)?;
        if !slot.follows_grammar(id) {
            return Err(SampleFault::Constraint);
        }
        let logprobs = slot.sampling.logprobs;
        let logprobs = logprobs.map(|alternatives| logprobs_of(id, -0.5, alternatives));
        Ok(SampledToken { id, logprobs })
    }
}

/// The tokens that follow `id` are the most likely ones beside it.
fn logprobs_of(id: TokenId, logprob: f32, alternatives: u32) -> TokenLogprobs {
    let top = (0..alternatives).map(|rank| (id.wrapping_add(rank) % 256, logprob));
    TokenLogprobs {
        logprob,
        rank: 1,
        top: top.collect(),
    }
}

impl Slot {
    /// A prompt's token has its position as its log-probability, below 0.
    fn rate(&self, rated: Range<u32>) -> Vec<TokenLogprobs> {
        let alternatives = self.sampling.prompt_logprobs.unwrap_or(0);
        let positions = rated.map(|position| position + 1);
        let rate = |position: u32| {
            let token = self.prompt[position as usize];
            logprobs_of(token, -(position as f32), alternatives)
        };
        positions.map(rate).collect()
    }
}

impl Executor for ScriptedExecutor {
    fn kv_spec(&self) -> &KvSpec {
        &self.kv
    }

    fn pipeline_depth(&self) -> usize {
        2
    }

    fn max_logit_rows(&self) -> u32 {
        64
    }

    fn submit(&mut self, plan: StepPlan) {
        self.plans.push_back(plan);
    }

    fn wait(&mut self) -> Result<StepOutcome, StepFailure> {
        let plan = self.plans.pop_front().unwrap();
        std::thread::sleep(self.script.step_time);
        while self.script.stalled.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.script.broken.load(Ordering::Relaxed) {
            return Err(StepFailure {
                plan: plan.id,
                message: "out of order".into(),
                fatal: true,
            });
        }
        let (mut samples, mut prompt_logprobs) = (Vec::new(), Vec::new());
        for scheduled in &plan.sequences {
            if let Some(start) = &scheduled.start {
                let slot = Slot {
                    turn: self.started,
                    prompt: start.tokens[..start.prompt_len as usize].to_vec(),
                    sampling: Arc::clone(&start.sampling),
                    matcher: start
                        .sampling
                        .constraint
                        .as_ref()
                        .map(|constraint| constraint.0.matcher()),
                };
                self.started += 1;
                self.slots.insert(scheduled.slot, slot);
            }
            if !scheduled.rated.is_empty() {
                prompt_logprobs.push(PromptLogprobs {
                    sequence: scheduled.sequence,
                    tokens: Ok(self.slots[&scheduled.slot].rate(scheduled.rated.clone())),
                });
            }
            if scheduled.samples {
                let length = scheduled.first_position + scheduled.num_tokens;
                let token = self.sample(scheduled.slot, length);
                samples.push(TokenSample {
                    sequence: scheduled.sequence,
                    token,
                    further: Vec::new(),
                    proposal: Vec::new(),
                });
            }
        }
        Ok(StepOutcome {
            plan: plan.id,
            samples,
            prompt_logprobs,
        })
    }
}
