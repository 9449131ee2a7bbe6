//! Logits and parameters to sample with.

use std::fmt;

use backstop_kernels::ops::sample::mix;
use backstop_kernels::random::{random_indices, random_values};
use backstop_types::{SamplingParams, TokenId};

/// One row.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    kind: &'static str,
    pub(super) logits: Vec<f32>,
    pub(super) params: SamplingParams,
    pub(super) prompt: Vec<TokenId>,
    pub(super) output: Vec<TokenId>,
    pub(super) masked: Vec<TokenId>,
    pub(super) allowed: Option<Vec<u32>>,
    pub(super) position: u32,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, params, .. } = self;
        let (masked, bias) = (self.masked.len(), params.logit_bias.len());
        write!(
            f,
            "{kind} logits, temperature {}, top_k {}, top_p {}, min_p {}, penalties {} {} {}, \
             logprobs {:?}, {masked} masked, {bias} biased, mask {}",
            params.temperature,
            params.top_k,
            params.top_p,
            params.min_p,
            params.repetition_penalty,
            params.frequency_penalty,
            params.presence_penalty,
            params.logprobs,
            self.allowed.is_some()
        )
    }
}

/// Every `stride`-th combination of logits and parameters, from a different one on for each
/// `offset`, with all the rest changing among them.
pub(super) fn of_vocabulary(vocabulary: usize, offset: usize, stride: usize) -> Vec<Trial> {
    let parameters = truncations(vocabulary as u32);
    let kinds = KINDS.len();
    let combinations = (offset..kinds * parameters.len()).step_by(stride);
    let mut trials: Vec<Trial> = combinations
        .map(|index| {
            let params = parameters[index / kinds].clone();
            trial(vocabulary, index, KINDS[index % kinds], params)
        })
        .collect();
    trials.extend(unusable(vocabulary));
    trials
}

const KINDS: [&str; 7] = [
    "random", "flat", "peaked", "few", "equal", "sparse", "extreme",
];

/// Logits that differ by more than any weight can express, and such whose weight is just not 0.
const EXTREMES: [f32; 9] = [-3e38, -1e30, -88.0, -87.0, -1e-30, 1e-40, 0.0, 80.0, 81.0];

fn logits_of(kind: &str, seed: u64, vocabulary: usize) -> Vec<f32> {
    let levels = |values: &[f32]| {
        let indices = random_indices(seed, vocabulary, values.len());
        let values = indices.into_iter().map(|level| values[level as usize]);
        values.collect()
    };
    match kind {
        "random" => random_values(seed, vocabulary, 3.0),
        "flat" => random_values(seed, vocabulary, 0.1),
        "peaked" => random_values(seed, vocabulary, 12.0),
        "few" => levels(&[-2.0, -1.0, 0.5, 1.0, 1.5]),
        "equal" => levels(&[0.0, -0.0]),
        "sparse" => {
            let mut logits = random_values(seed, vocabulary, 2.0);
            // One in four is left, and the last one.
            let refused = random_indices(seed + 1, vocabulary - 1, 4);
            for (logit, _) in logits
                .iter_mut()
                .zip(refused)
                .filter(|(_, level)| *level > 0)
            {
                *logit = f32::NEG_INFINITY;
            }
            logits
        }
        _ => levels(&EXTREMES),
    }
}

fn greedy() -> SamplingParams {
    SamplingParams::default()
}

fn random() -> SamplingParams {
    SamplingParams {
        temperature: 1.0,
        ..greedy()
    }
}

/// Temperatures and truncations.
fn truncations(vocabulary: u32) -> Vec<SamplingParams> {
    let mut all = vec![greedy(), random()];
    for temperature in [9e-6, 1.1e-5, 0.3, 1.7, 50.0] {
        all.push(SamplingParams {
            temperature,
            ..random()
        });
    }
    for top_k in [
        1,
        7,
        50,
        1000,
        3000,
        vocabulary.saturating_sub(1),
        vocabulary,
    ] {
        all.push(SamplingParams { top_k, ..random() });
    }
    for top_p in [0.0, 1e-9, 0.3, 0.95, 0.999_999] {
        all.push(SamplingParams { top_p, ..random() });
    }
    for min_p in [1e-6, 0.05, 1.0] {
        all.push(SamplingParams { min_p, ..random() });
    }
    for (temperature, top_k, top_p, min_p) in [
        (0.7, 40, 0.8, 0.01),
        (1.5, 0, 0.9, 0.02),
        (2.0, 20, 0.5, 0.0),
        (0.9, 2500, 0.99, 0.0),
        (1.0, 100, 1.0, 0.1),
    ] {
        all.push(SamplingParams {
            temperature,
            top_k,
            top_p,
            min_p,
            ..random()
        });
    }
    all
}

fn trial(vocabulary: usize, index: usize, kind: &'static str, params: SamplingParams) -> Trial {
    let seed = index as u64;
    let mut trial = Trial {
        kind,
        logits: logits_of(kind, seed, vocabulary),
        params: SamplingParams {
            seed: mix(seed),
            ..params
        },
        prompt: Vec::new(),
        output: Vec::new(),
        masked: Vec::new(),
        allowed: None,
        position: index as u32 * 1000,
    };
    // Some tokens are not in the vocabulary.
    let tokens = |seed: u64, count| random_indices(seed, count, vocabulary + 2);
    trial.params.logprobs = [None, Some(0), Some(5), Some(20), None][index % 5];
    if index.is_multiple_of(3) {
        trial.params.repetition_penalty = [1.0, 1.3, 0.8][index / 3 % 3];
        trial.params.frequency_penalty = [0.5, 0.0, -0.25][index / 9 % 3];
        trial.params.presence_penalty = [0.0, 0.75, 0.25][index / 27 % 3];
        trial.prompt = tokens(seed + 2, 700);
        trial.output = tokens(seed + 3, index * 11 % 3000);
        trial.output.extend([0; 500]);
    }
    if index.is_multiple_of(4) {
        trial.masked = tokens(seed + 4, index % 13);
        // More than one segment's, and the last token's.
        trial
            .masked
            .extend([vocabulary as u32 - 1, vocabulary as u32]);
    }
    if index % 4 == 1 {
        let tokens = tokens(seed + 5, 2 + index % 300);
        let biases = random_values(seed + 6, tokens.len(), 2.0);
        trial.params.logit_bias = tokens.into_iter().zip(biases).collect();
    }
    if index % 6 == 5 {
        trial.allowed = Some(random_indices(
            seed + 7,
            vocabulary.div_ceil(32),
            usize::MAX,
        ));
    }
    trial
}

/// Rows of which nothing can be sampled, or only one token.
fn unusable(vocabulary: usize) -> Vec<Trial> {
    let last = vocabulary - 1;
    let words = vocabulary.div_ceil(32);
    let mut trials = Vec::new();
    for (index, params) in [greedy(), random()].into_iter().enumerate() {
        let plain = Trial {
            params,
            ..trial(vocabulary, 2 + 5 * index, "random", greedy())
        };
        let with = |kind, change: &dyn Fn(&mut Trial)| {
            let mut trial = plain.clone();
            trial.kind = kind;
            change(&mut trial);
            trial
        };
        let mut only_last = vec![0; words];
        only_last[last / 32] = 1 << (last % 32);
        trials.extend([
            with("one NaN among", &|trial| trial.logits[last] = f32::NAN),
            with("one infinity among", &|trial| {
                trial.logits[last] = f32::INFINITY
            }),
            with("one masked NaN among", &|trial| {
                trial.logits[last] = f32::NAN;
                trial.masked = vec![last as u32];
            }),
            with("infinitely biased", &|trial| {
                trial.params.logit_bias = vec![(last as u32, f32::INFINITY)];
            }),
            with("certain", &|trial| {
                trial.params.logit_bias = vec![(last as u32, 1e30)];
                trial.params.logprobs = Some(3);
            }),
            with("no", &|trial| trial.logits.fill(f32::NEG_INFINITY)),
            with("no allowed", &|trial| trial.allowed = Some(vec![0; words])),
            with("one allowed", &|trial| {
                trial.allowed = Some(only_last.clone())
            }),
        ]);
    }
    trials
}

/// Sequences with penalties, greedy and not, for several steps.
pub(super) fn with_penalties(vocabulary: usize) -> Vec<Trial> {
    let penalties = [
        (1.0, 0.0, 3.0),
        (1.8, 0.0, 0.0),
        (1.1, 0.9, 0.1),
        (1.0, -0.4, 0.0),
    ];
    let mut trials = Vec::new();
    for (index, (repetition_penalty, frequency_penalty, presence_penalty)) in
        penalties.into_iter().enumerate()
    {
        for params in [greedy(), random()] {
            let params = SamplingParams {
                repetition_penalty,
                frequency_penalty,
                presence_penalty,
                top_k: 10 * index as u32,
                logprobs: Some(2),
                ..params
            };
            let base = trial(vocabulary, 5 * trials.len() + 2, "random", greedy());
            trials.push(Trial {
                params,
                prompt: random_indices(index as u64, 40, vocabulary),
                ..base
            });
        }
    }
    trials
}

impl Trial {
    /// The logits of another position, few of which compete.
    pub(super) fn next_logits(&mut self, seed: u64) {
        self.logits = random_values(seed % 100, self.logits.len(), 2.0);
        self.position += 1;
    }
}
