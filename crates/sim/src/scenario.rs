//! The random configuration of an episode and its random arrivals.

use std::sync::Arc;

use backstop_sched::{Arrival, PromptLookup, SchedulerConfig, Speculation};
use backstop_types::{
    AttentionSpan, KvGroupSpec, KvSpec, SamplingParams, SequenceId, StopConditions, TokenId,
};

use crate::random::Random;

/// How often each kind of turn is taken, relative to the others. Some are 0 in some episodes,
/// because many faults show only where something does not happen.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    pub(crate) arrive: u32,
    pub(crate) abort: u32,
    pub(crate) tick: u32,
    pub(crate) plan: u32,
    pub(crate) execute: u32,
    pub(crate) deliver: u32,
    /// While nothing lives.
    pub(crate) lose_cache: u32,
}

/// What an episode is like.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) config: SchedulerConfig,
    pub(crate) weights: Weights,
    /// Turns before arrivals stop.
    pub(crate) turns: u32,
    /// Steps that fail.
    pub(crate) failures_per_mille: u32,
    /// Samples that are not numbers.
    pub(crate) faults_per_mille: u32,
    pub(crate) priorities: bool,
    deadlines: bool,
    /// Prompts that are rated.
    rated_per_mille: u32,
    vocabulary: u32,
    max_prompt: u32,
    max_tokens: u32,
    salts: u32,
    pub(crate) tenants: u32,
    /// Memory is never short.
    pub(crate) roomy: bool,
    /// Prompts that others begin like. Conversations join them.
    stems: Vec<Vec<TokenId>>,
}

/// Stems that are kept.
const MAX_STEMS: usize = 6;

impl Scenario {
    pub(crate) fn new(random: &mut Random) -> Self {
        let mut config = random_config(random);
        let roomy = random.chance(250);
        if roomy {
            give_room(&mut config);
        }
        let rarely = |random: &mut Random, value| if random.chance(350) { 0 } else { value };
        let weights = Weights {
            arrive: random.between(1, 12),
            abort: random.between(1, 8),
            tick: random.between(1, 5),
            plan: random.between(5, 40),
            execute: random.between(5, 40),
            deliver: random.between(5, 40),
            lose_cache: random.between(1, 8),
        };
        let weights = Weights {
            abort: rarely(random, weights.abort),
            tick: rarely(random, weights.tick),
            lose_cache: rarely(random, weights.lose_cache),
            ..weights
        };
        let vocabulary = random.between(2, 4);
        // Short prompts with long answers outgrow memory, long prompts fill it.
        let longest = if random.chance(600) {
            config.kv.block_size
        } else {
            1000
        };
        let most = if random.chance(300) { 8 } else { 200 };
        let max_tokens = random.between(1, most);
        let max_prompt = random.between(1, longest.min(config.max_model_len));
        let failures = random.between(1, 60);
        let faults = random.between(1, 10);
        let stems = (0..3)
            .map(|_| random_tokens(random, vocabulary, max_prompt))
            .collect();
        Self {
            weights,
            turns: random.between(50, 1500),
            failures_per_mille: rarely(random, failures),
            faults_per_mille: if random.chance(700) { 0 } else { faults },
            priorities: random.chance(300),
            deadlines: random.chance(400),
            rated_per_mille: if random.chance(500) { 0 } else { 300 },
            vocabulary,
            max_prompt,
            max_tokens,
            salts: if random.chance(700) { 1 } else { 3 },
            tenants: if random.chance(500) { 1 } else { 4 },
            roomy,
            stems,
            config,
        }
    }

    /// A random arrival. Most prompts begin like another one.
    pub(crate) fn arrival(&mut self, random: &mut Random, id: u64, now_ms: u64) -> Arrival {
        let stop = StopConditions {
            max_tokens: if random.chance(10) {
                0
            } else {
                random.between(1, self.max_tokens)
            },
            min_tokens: if random.chance(700) {
                0
            } else {
                random.below(5)
            },
            stop_token_ids: if random.chance(750) {
                Vec::new()
            } else {
                vec![random.below(self.vocabulary)]
            },
        };
        let priority = if self.priorities {
            random.below(3) as i32 - 1
        } else {
            0
        };
        let deadline = self.deadlines && random.chance(500);
        Arrival {
            id: SequenceId(id),
            prompt: self.prompt(random).into(),
            // Few seeds, so that conversations repeat as well.
            sampling: Arc::new(SamplingParams {
                seed: random.next() % 3,
                prompt_logprobs: random.chance(self.rated_per_mille).then_some(0),
                ..Default::default()
            }),
            stop: Arc::new(stop),
            priority,
            tenant: self.tenant(random),
            deadline_ms: deadline.then(|| now_ms + u64::from(random.below(40))),
            cache_salt: u64::from(random.below(self.salts)),
        }
    }

    /// Lets later prompts begin like this conversation.
    pub(crate) fn remember(&mut self, random: &mut Random, conversation: &[TokenId]) {
        if self.stems.len() < MAX_STEMS {
            self.stems.push(conversation.to_vec());
        } else {
            let place = random.below(MAX_STEMS as u32) as usize;
            self.stems[place] = conversation.to_vec();
        }
    }

    /// One tenant sends more than all others.
    fn tenant(&self, random: &mut Random) -> u64 {
        match random.chance(700) {
            true => 0,
            false => u64::from(random.below(self.tenants)),
        }
    }

    fn prompt(&self, random: &mut Random) -> Vec<TokenId> {
        if random.chance(5) {
            return Vec::new();
        }
        if random.chance(150) {
            return random_tokens(random, self.vocabulary, self.max_prompt);
        }
        let stem = &self.stems[random.below(self.stems.len() as u32) as usize];
        let longest = stem.len().min(self.max_prompt as usize);
        let keep = if random.chance(600) {
            longest
        } else {
            random.below(longest as u32) as usize
        };
        let mut prompt = stem[..keep].to_vec();
        prompt.extend(random_tokens(random, self.vocabulary, 3));
        prompt
    }
}

/// 1 to `max` tokens.
fn random_tokens(random: &mut Random, vocabulary: u32, max: u32) -> Vec<TokenId> {
    (0..random.between(1, max))
        .map(|_| random.below(vocabulary))
        .collect()
}

fn random_config(random: &mut Random) -> SchedulerConfig {
    let largest = if random.chance(500) { 3 } else { 16 };
    let block_size = random.between(1, largest);
    let num_groups = random.between(1, 3);
    let groups = (0..num_groups).map(|_| KvGroupSpec {
        span: if random.chance(500) {
            AttentionSpan::Full
        } else {
            AttentionSpan::Sliding {
                visible_keys: random.between(1, 3 * block_size),
            }
        },
        num_blocks: if random.chance(700) {
            random.between(2, 20)
        } else {
            random.between(1, 64)
        },
    });
    let groups: Vec<_> = groups.collect();
    // Around what the smallest full pool holds, so that memory is short.
    let full = groups
        .iter()
        .filter(|group| group.span == AttentionSpan::Full);
    let capacity = full
        .map(|group| group.num_blocks * block_size)
        .min()
        .unwrap_or(64);
    let fewest = if random.chance(600) { 5 } else { 1 };
    let max_num_seqs = random.between(fewest, 10);
    let max_num_batched_tokens = max_num_seqs + random.below(4 * block_size + 8);
    SchedulerConfig {
        kv: KvSpec { block_size, groups },
        max_num_seqs,
        max_num_batched_tokens,
        max_logit_rows: max_num_seqs + random.below(12),
        max_waiting: random.between(1, 12),
        max_model_len: random.between((capacity / 4).clamp(2, 100), (capacity + 4).min(160)),
        max_in_flight_plans: random.between(1, 2),
        enable_prefix_caching: random.chance(850),
        max_step_failures: random.below(4),
        speculation: random.chance(400).then(|| random_speculation(random)),
    }
}

/// Lets all sequences that may run fit at their full length.
fn give_room(config: &mut SchedulerConfig) {
    let each = config.max_model_len / config.kv.block_size + 2;
    for group in &mut config.kv.groups {
        group.num_blocks = group.num_blocks.max(config.max_num_seqs * each);
    }
}

fn random_speculation(random: &mut Random) -> Speculation {
    let max_draft_tokens = random.between(1, 6);
    if random.chance(400) {
        return Speculation::Proposals { max_draft_tokens };
    }
    let min_ngram = random.between(1, 3);
    Speculation::PromptLookup(PromptLookup {
        max_draft_tokens,
        min_ngram,
        max_ngram: min_ngram + random.below(3),
    })
}
