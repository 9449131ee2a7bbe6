//! An executor that computes nothing and checks everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use backstop_sched::{SchedulerConfig, Speculation};
use backstop_types::{
    BlockId, PlanId, PromptLogprobs, SampleFault, SampledToken, ScheduledSequence, SequenceId,
    StepOutcome, StepPlan, TokenId, TokenLogprobs, TokenSample,
};

use crate::oracle::{Oracle, empty_prefix, next_token, rating};
use crate::random::{Random, chain};

/// What the host knows of a slot as of the last plan handed in.
#[derive(Clone, Debug)]
struct HostSlot {
    sequence: SequenceId,
    salt: u64,
    seed: u64,
    /// Block tables: first index and blocks.
    tables: Vec<BTreeMap<u32, BlockId>>,
    next_position: u32,
    /// Tokens known or being sampled.
    total: u32,
    /// Guesses in flight.
    drafts: u32,
}

/// What the device knows of a slot as of the last plan executed.
#[derive(Clone, Debug)]
struct DeviceSlot {
    sequence: SequenceId,
    /// Hash of each prefix of the slot's tokens.
    prefixes: Vec<u64>,
    tokens: Vec<TokenId>,
}

/// Blocks of one group that a sequence's part of a plan touches: the visible ones, by index.
type Touched = Vec<(u32, BlockId)>;

/// One sequence's part of a plan, with the tables as they were when it was handed in.
#[derive(Clone, Debug)]
struct Part {
    scheduled: ScheduledSequence,
    salt: u64,
    seed: u64,
    touched: Vec<Touched>,
}

#[derive(Clone, Debug)]
struct Submitted {
    id: PlanId,
    parts: Vec<Part>,
    /// `None` until executed.
    result: Option<Result<Computed, ()>>,
}

/// What a plan brought.
type Computed = (Vec<TokenSample>, Vec<PromptLogprobs>);

/// An outcome with what the oracle needs to judge it.
#[derive(Clone, Debug)]
pub(crate) enum Delivery {
    /// With all sequences of the plan, in order.
    Done(StepOutcome, Vec<SequenceId>),
    /// The plan failed, and these sequences with it. `None` if a failure before it has taken
    /// them down already.
    Failed(PlanId, Option<Vec<SequenceId>>),
}

/// The executor.
#[derive(Clone, Debug)]
pub(crate) struct ShadowExecutor {
    config: SchedulerConfig,
    /// For each group and each position of each block, the hash of the prefix that it stands for.
    shadow: Vec<Vec<u64>>,
    host: Vec<Option<HostSlot>>,
    device: Vec<Option<DeviceSlot>>,
    submitted: VecDeque<Submitted>,
    last_plan: Option<PlanId>,
    /// A plan has failed, and so does everything until the pipeline is empty.
    failing: bool,
    /// The failure has been delivered.
    failure_told: bool,
}

impl ShadowExecutor {
    pub(crate) fn new(config: SchedulerConfig) -> Self {
        let positions = |num_blocks: u32| (num_blocks * config.kv.block_size) as usize;
        let groups = config.kv.groups.iter();
        Self {
            shadow: groups
                .map(|group| vec![0; positions(group.num_blocks)])
                .collect(),
            host: vec![None; config.max_num_seqs as usize],
            device: vec![None; config.max_num_seqs as usize],
            submitted: VecDeque::new(),
            last_plan: None,
            failing: false,
            failure_told: false,
            config,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.submitted.is_empty()
    }

    /// As a device that slept: nothing is left of what it held.
    pub(crate) fn lose_cache(&mut self) {
        assert!(self.is_idle(), "the cache is lost under a plan");
        let groups = self.shadow.iter_mut();
        groups.for_each(|positions| positions.fill(0));
        self.host.fill(None);
        self.device.fill(None);
    }

    pub(crate) fn can_execute(&self) -> bool {
        self.submitted.iter().any(|plan| plan.result.is_none())
    }

    pub(crate) fn can_deliver(&self) -> bool {
        self.submitted
            .front()
            .is_some_and(|plan| plan.result.is_some())
    }

    /// Takes a plan and checks all that can be checked before it runs.
    pub(crate) fn submit(&mut self, plan: StepPlan, oracle: &Oracle) {
        assert!(
            self.last_plan < Some(plan.id),
            "plans are numbered in order"
        );
        self.last_plan = Some(plan.id);
        assert!(
            self.submitted.len() < self.config.max_in_flight_plans as usize,
            "too many plans"
        );
        assert!(
            !self.failure_told,
            "a plan is made before a failure is over"
        );
        assert!(
            plan.num_tokens() <= self.config.max_num_batched_tokens,
            "over budget"
        );
        let rows: u32 = plan
            .sequences
            .iter()
            .map(ScheduledSequence::logit_rows)
            .sum();
        assert!(rows <= self.config.max_logit_rows, "too many logits");
        let sequences: BTreeSet<_> = plan.sequences.iter().map(|part| part.sequence).collect();
        let slots: BTreeSet<_> = plan.sequences.iter().map(|part| part.slot).collect();
        assert!(!sequences.is_empty(), "an empty plan");
        assert_eq!(
            sequences.len(),
            plan.sequences.len(),
            "a sequence stands twice in a plan"
        );
        assert_eq!(
            slots.len(),
            plan.sequences.len(),
            "a slot stands twice in a plan"
        );
        let parts = plan
            .sequences
            .into_iter()
            .map(|part| self.enter(part, oracle));
        let parts = parts.collect::<Vec<_>>();
        for part in &parts {
            self.check_against_flight(part);
        }
        self.submitted.push_back(Submitted {
            id: plan.id,
            parts,
            result: None,
        });
    }

    /// Brings a slot up to date with its part of a plan.
    fn enter(&mut self, mut scheduled: ScheduledSequence, oracle: &Oracle) -> Part {
        let expected = oracle
            .live
            .get(&scheduled.sequence)
            .expect("only the living are planned");
        let seat = &mut self.host[scheduled.slot.0 as usize];
        if let Some(start) = &scheduled.start {
            assert_eq!(
                *start.tokens, *expected.tokens,
                "a start has all known tokens"
            );
            assert_eq!(start.prompt_len as usize, expected.arrival.prompt.len());
            *seat = Some(HostSlot {
                sequence: scheduled.sequence,
                salt: expected.arrival.cache_salt,
                seed: start.sampling.seed,
                tables: vec![BTreeMap::new(); self.config.kv.groups.len()],
                next_position: scheduled.first_position,
                total: start.tokens.len() as u32,
                drafts: 0,
            });
        }
        // After a failure the host has not heard of yet, plans may go on as before. They fail.
        let slot = seat.as_mut().expect("a slot is used without a start");
        assert_eq!(
            slot.sequence, scheduled.sequence,
            "a slot is used without a start"
        );
        assert_eq!(
            slot.next_position, scheduled.first_position,
            "a position is left out"
        );
        assert!(scheduled.num_tokens > 0, "an empty part");
        assert_eq!(slot.drafts, 0, "a plan behind guesses that are not checked");
        slot.drafts = scheduled.draft.len() as u32;
        let known = slot.total;
        assert!(
            slot.drafts == 0 || known as usize == expected.tokens.len(),
            "guesses behind a token that is not known"
        );
        assert!(
            known + slot.drafts < expected.end_len || slot.drafts == 0,
            "guesses past the end"
        );
        slot.next_position += scheduled.num_tokens;
        assert!(
            slot.next_position <= known + slot.drafts,
            "a position without a token"
        );
        assert_eq!(
            scheduled.samples,
            slot.next_position == known + slot.drafts,
            "wrong time to sample"
        );
        slot.total += u32::from(scheduled.samples);
        let rated = &scheduled.rated;
        let positions = scheduled.first_position..slot.next_position;
        assert!(
            rated.is_empty() || positions.start <= rated.start && rated.end <= positions.end,
            "a position is rated that is not computed"
        );
        for append in std::mem::take(&mut scheduled.new_blocks) {
            let table = &mut slot.tables[append.group];
            let end = table.last_key_value().map(|(&index, _)| index + 1);
            let follows = end.is_none_or(|end| end == append.first_index);
            assert!(
                follows && !append.blocks.is_empty(),
                "an append leaves a gap"
            );
            table.extend((append.first_index..).zip(append.blocks));
        }
        let block_size = self.config.kv.block_size;
        let last_index = (slot.next_position - 1) / block_size;
        let groups = self.config.kv.groups.iter().zip(&slot.tables);
        let touched = groups.map(|(spec, table)| {
            let first_visible = spec.span.first_visible(scheduled.first_position);
            let indices = first_visible / block_size..=last_index;
            let block = |index| (index, *table.get(&index).expect("a table lacks a block"));
            indices.map(block).collect()
        });
        Part {
            salt: slot.salt,
            seed: slot.seed,
            touched: touched.collect(),
            scheduled,
        }
    }

    /// Slots and blocks that a plan in flight uses belong to their sequences until it is done.
    fn check_against_flight(&self, part: &Part) {
        let block_size = self.config.kv.block_size;
        let own = part.scheduled.sequence;
        for other in self.submitted.iter().flat_map(|plan| &plan.parts) {
            if other.scheduled.sequence == own {
                assert_eq!(
                    other.scheduled.slot, part.scheduled.slot,
                    "a sequence changes slots"
                );
                assert!(
                    part.scheduled.start.is_none(),
                    "a sequence in flight starts again"
                );
                continue;
            }
            assert_ne!(
                other.scheduled.slot, part.scheduled.slot,
                "a slot in flight is reused"
            );
            let first_written = part.scheduled.first_position / block_size;
            for (mine, theirs) in part.touched.iter().zip(&other.touched) {
                let written = mine.iter().filter(|(index, _)| *index >= first_written);
                for (_, block) in written {
                    let used = theirs.iter().any(|(_, other)| other == block);
                    assert!(!used, "a block in flight is written for another sequence");
                }
            }
        }
    }

    /// Executes the oldest plan that has not been.
    pub(crate) fn execute(&mut self, random: &mut Random, fail: bool, faults_per_mille: u32) {
        let place = self.submitted.iter().position(|plan| plan.result.is_none());
        let place = place.expect("there is a plan to execute");
        let parts = std::mem::take(&mut self.submitted[place].parts);
        self.failing |= fail;
        let result = if self.failing {
            parts.iter().for_each(|part| self.ruin(part));
            Err(())
        } else {
            parts.iter().for_each(|part| self.write(part));
            parts.iter().for_each(|part| self.read(part));
            let rated = parts.iter().filter(|part| !part.scheduled.rated.is_empty());
            let ratings = rated.map(|part| {
                let fault = random_fault(random, faults_per_mille);
                PromptLogprobs {
                    sequence: part.scheduled.sequence,
                    tokens: fault.map_or_else(|| Ok(self.rate(part)), Err),
                }
            });
            let ratings = ratings.collect();
            let sampling = parts.iter().filter(|part| part.scheduled.samples);
            let samples = sampling.map(|part| {
                let mut tokens = self
                    .sample(part)
                    .into_iter()
                    .map(|id| SampledToken { id, logprobs: None });
                let token = tokens.next().expect("a part that samples has a token");
                let fault = random_fault(random, faults_per_mille);
                TokenSample {
                    sequence: part.scheduled.sequence,
                    token: fault.map_or(Ok(token), Err),
                    further: match fault {
                        Some(_) => Vec::new(),
                        None => tokens.collect(),
                    },
                    proposal: self.propose(part, random),
                }
            });
            Ok((samples.collect(), ratings))
        };
        self.submitted[place].parts = parts;
        self.submitted[place].result = Some(result);
    }

    /// Writes the keys and values of a part's positions.
    fn write(&mut self, part: &Part) {
        let scheduled = &part.scheduled;
        let seat = &mut self.device[scheduled.slot.0 as usize];
        if let Some(start) = &scheduled.start {
            let mut hash = empty_prefix(part.salt);
            let prefixes = start.tokens.iter().map(|&token| {
                hash = chain(hash, token.into());
                hash
            });
            let prefixes = prefixes.collect();
            *seat = Some(DeviceSlot {
                sequence: scheduled.sequence,
                prefixes,
                tokens: start.tokens.to_vec(),
            });
        }
        let slot = seat.as_mut().expect("the device knows a slot in use");
        assert_eq!(
            slot.sequence, scheduled.sequence,
            "the device has another sequence there"
        );
        // Right or wrong, guesses are what is computed with.
        for &token in &scheduled.draft {
            let prefix = *slot.prefixes.last().expect("a sequence has tokens");
            slot.prefixes.push(chain(prefix, token.into()));
        }
        let end = scheduled.first_position + scheduled.num_tokens;
        for (shadow, touched) in self.shadow.iter_mut().zip(&part.touched) {
            for position in scheduled.first_position..end {
                let place = place_of(touched, position, self.config.kv.block_size);
                shadow[place] = slot.prefixes[position as usize];
            }
        }
    }

    /// Reads everything that the part's positions attend to.
    fn read(&self, part: &Part) {
        let scheduled = &part.scheduled;
        let slot = self.device[scheduled.slot.0 as usize].as_ref();
        let prefixes = &slot.expect("the slot was written a moment ago").prefixes;
        let end = scheduled.first_position + scheduled.num_tokens;
        for (group, touched) in part.touched.iter().enumerate() {
            let first_visible = self.config.kv.groups[group]
                .span
                .first_visible(scheduled.first_position);
            for position in first_visible..end {
                let place = place_of(touched, position, self.config.kv.block_size);
                assert_eq!(
                    self.shadow[group][place], prefixes[position as usize],
                    "group {group} holds something else for position {position} of {}",
                    scheduled.sequence.0
                );
            }
        }
    }

    /// Samples from what the first group holds for the last known position, and for those behind
    /// it as long as guesses are right, and keeps the tokens.
    fn sample(&mut self, part: &Part) -> Vec<TokenId> {
        let end = part.scheduled.first_position + part.scheduled.num_tokens;
        let draft = &part.scheduled.draft;
        let slot = self.device[part.scheduled.slot.0 as usize].as_mut();
        let prefixes = &mut slot.expect("the slot was read a moment ago").prefixes;
        assert_eq!(prefixes.len() as u32, end, "a token is sampled twice");
        prefixes.truncate(prefixes.len() - draft.len());
        let mut tokens = Vec::new();
        loop {
            let last = prefixes.len() as u32 - 1;
            let place = place_of(&part.touched[0], last, self.config.kv.block_size);
            let token = next_token(self.shadow[0][place], part.seed);
            let prefix = *prefixes.last().expect("a sequence has tokens");
            prefixes.push(chain(prefix, token.into()));
            tokens.push(token);
            if draft.get(tokens.len() - 1) != Some(&token) {
                return tokens;
            }
        }
    }

    /// Guesses, some of them wrong, at the tokens that follow those just sampled.
    fn propose(&self, part: &Part, random: &mut Random) -> Vec<TokenId> {
        let Some(Speculation::Proposals { max_draft_tokens }) = self.config.speculation else {
            return Vec::new();
        };
        let slot = self.device[part.scheduled.slot.0 as usize].as_ref();
        let prefixes = &slot.expect("the slot was read a moment ago").prefixes;
        let mut prefix = *prefixes.last().expect("a sequence has tokens");
        let mut proposal = Vec::new();
        // More now and then than the scheduler has been told that it can expect.
        for _ in 0..random.below(max_draft_tokens + 2) {
            let token = next_token(prefix, part.seed);
            prefix = chain(prefix, token.into());
            let right = random.chance(800);
            proposal.push(if right { token } else { token ^ 1 });
        }
        proposal
    }

    /// Rates prompt tokens by what the first group holds for the positions before them.
    fn rate(&self, part: &Part) -> Vec<TokenLogprobs> {
        let slot = self.device[part.scheduled.slot.0 as usize].as_ref();
        let tokens = &slot.expect("the slot was read a moment ago").tokens;
        let block_size = self.config.kv.block_size;
        let positions = part.scheduled.rated.clone();
        let ratings = positions.map(|position| {
            let place = place_of(&part.touched[0], position, block_size);
            rating(self.shadow[0][place], tokens[position as usize + 1])
        });
        ratings.collect()
    }

    /// What a failed step leaves behind: garbage where it was to write, and no slots.
    fn ruin(&mut self, part: &Part) {
        let scheduled = &part.scheduled;
        let end = scheduled.first_position + scheduled.num_tokens;
        for (shadow, touched) in self.shadow.iter_mut().zip(&part.touched) {
            for position in scheduled.first_position..end {
                shadow[place_of(touched, position, self.config.kv.block_size)] = 0xdead;
            }
        }
        self.device[scheduled.slot.0 as usize] = None;
    }

    /// Hands out the outcome of the oldest plan.
    pub(crate) fn deliver(&mut self) -> Delivery {
        let mut plan = self
            .submitted
            .pop_front()
            .expect("there is a plan to deliver");
        match plan.result.take().expect("the plan has been executed") {
            Ok((samples, prompt_logprobs)) => {
                self.learn(&plan.parts, &samples);
                let outcome = StepOutcome {
                    plan: plan.id,
                    samples,
                    prompt_logprobs,
                };
                let sequences = plan.parts.iter().map(|part| part.scheduled.sequence);
                Delivery::Done(outcome, sequences.collect())
            }
            Err(()) => {
                let first = !self.failure_told;
                let down = first.then(|| self.take_down(&plan));
                self.failing = !self.submitted.is_empty();
                self.failure_told = self.failing;
                Delivery::Failed(plan.id, down)
            }
        }
    }

    /// Lets the host know which guesses were right.
    fn learn(&mut self, parts: &[Part], samples: &[TokenSample]) {
        let drafted = parts.iter().filter(|part| !part.scheduled.draft.is_empty());
        for part in drafted {
            let sample = samples
                .iter()
                .find(|sample| sample.sequence == part.scheduled.sequence);
            let right = sample.expect("a part with guesses samples").further.len() as u32;
            let seat = &mut self.host[part.scheduled.slot.0 as usize];
            let slot = seat.as_mut().expect("a slot in flight is in use");
            slot.total += right;
            slot.next_position = slot.total - 1;
            slot.drafts = 0;
        }
    }

    /// The sequences of a failed plan and of those behind it, each once. Their slots are lost.
    fn take_down(&mut self, plan: &Submitted) -> Vec<SequenceId> {
        let mut down = Vec::new();
        for part in plan
            .parts
            .iter()
            .chain(self.submitted.iter().flat_map(|plan| &plan.parts))
        {
            self.host[part.scheduled.slot.0 as usize] = None;
            if !down.contains(&part.scheduled.sequence) {
                down.push(part.scheduled.sequence);
            }
        }
        down
    }
}

fn random_fault(random: &mut Random, per_mille: u32) -> Option<SampleFault> {
    random.chance(per_mille).then(|| match random.chance(500) {
        true => SampleFault::NotANumber,
        false => SampleFault::Constraint,
    })
}

/// Where a group's pool holds a position.
fn place_of(touched: &Touched, position: u32, block_size: u32) -> usize {
    let offset = position / block_size - touched[0].0;
    let (_, block) = touched[offset as usize];
    (block.0 * block_size + position % block_size) as usize
}
