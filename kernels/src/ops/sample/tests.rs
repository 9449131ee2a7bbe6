//! Sampling against naive references, and its distribution.

use backstop_types::{SamplingParams, TokenId};

use super::*;
use crate::random::{random_indices, random_values};

fn args<'a>(logits: &'a [f32], params: &'a SamplingParams) -> SampleArgs<'a> {
    SampleArgs {
        logits,
        params,
        prompt: &[],
        output: &[],
        masked: &[],
        allowed: None,
        position: 0,
    }
}

fn sample_id(args: &SampleArgs<'_>) -> Option<TokenId> {
    sample(args, &mut SampleScratch::default()).map(|token| token.id)
}

/// Sort-based: the kept tokens with their probabilities, in ascending order of ids.
fn naive_distribution(logits: &[f32], params: &SamplingParams) -> Vec<(TokenId, f64)> {
    let temperature = f64::from(params.temperature);
    let mut tokens: Vec<(TokenId, f64)> = logits
        .iter()
        .enumerate()
        .filter(|(_, logit)| logit.is_finite())
        .map(|(id, &logit)| (id as TokenId, f64::from(logit) / temperature))
        .collect();
    tokens.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let largest = tokens[0].1;
    tokens
        .iter_mut()
        .for_each(|(_, value)| *value = (*value - largest).exp());
    tokens.retain(|&(_, weight)| weight >= f64::from(params.min_p));
    if params.top_k > 0 {
        tokens.truncate(params.top_k as usize);
    }
    let total: f64 = tokens.iter().map(|&(_, weight)| weight).sum();
    let mut before = 0.0;
    tokens.retain(|&(_, weight)| {
        let kept = before == 0.0 || before < f64::from(params.top_p) * total;
        before += weight;
        kept
    });
    let total: f64 = tokens.iter().map(|&(_, weight)| weight).sum();
    tokens.iter_mut().for_each(|(_, weight)| *weight /= total);
    tokens.sort_by_key(|&(id, _)| id);
    tokens
}

/// The naive draw at `random`, or the neighbours if `random` lies within rounding of an edge.
fn naive_draws(distribution: &[(TokenId, f64)], random: f64) -> Vec<TokenId> {
    let mut sum = 0.0;
    let mut draws = Vec::new();
    for &(id, probability) in distribution {
        let (low, high) = (sum - 1e-5, sum + probability + 1e-5);
        if (low..high).contains(&random) {
            draws.push(id);
        }
        sum += probability;
    }
    draws
}

fn uniform(seed: u64, position: u32) -> f64 {
    random_bits(seed, position) as f64 / 2f64.powi(64)
}

fn params() -> SamplingParams {
    SamplingParams {
        temperature: 1.0,
        ..SamplingParams::default()
    }
}

fn truncations() -> Vec<SamplingParams> {
    vec![
        params(),
        SamplingParams {
            temperature: 0.3,
            ..params()
        },
        SamplingParams {
            top_k: 1,
            ..params()
        },
        SamplingParams {
            top_k: 7,
            ..params()
        },
        SamplingParams {
            top_k: 5000,
            ..params()
        },
        SamplingParams {
            top_p: 0.95,
            ..params()
        },
        SamplingParams {
            top_p: 0.3,
            temperature: 2.0,
            ..params()
        },
        SamplingParams {
            top_p: 1e-9,
            ..params()
        },
        SamplingParams {
            min_p: 0.05,
            ..params()
        },
        SamplingParams {
            min_p: 1.0,
            ..params()
        },
        SamplingParams {
            min_p: 0.01,
            top_k: 40,
            top_p: 0.8,
            ..params()
        },
    ]
}

#[test]
fn every_truncation_draws_as_the_sorted_reference() {
    for (vocabulary, spread) in [(1, 1.0), (50, 3.0), (3000, 4.0), (20_011, 0.5)] {
        let mut logits = random_values(vocabulary as u64, vocabulary, spread);
        if vocabulary > 10 {
            logits[3] = f32::NEG_INFINITY;
            logits[7] = logits[5];
        }
        let mut scratch = SampleScratch::default();
        for params in truncations() {
            let distribution = naive_distribution(&logits, &params);
            for position in 0..300 {
                let args = SampleArgs {
                    position,
                    ..args(&logits, &params)
                };
                let token = sample(&args, &mut scratch).unwrap().id;
                let random = uniform(params.seed, position);
                let expected = naive_draws(&distribution, random);
                assert!(
                    expected.contains(&token),
                    "{token} not in {expected:?}: {params:?}"
                );
            }
        }
    }
}

#[test]
fn truncated_tokens_are_never_drawn_and_all_others_are() {
    let logits: Vec<f32> = (0..64).map(|id| ((id * 37) % 64) as f32 * 0.02).collect();
    for params in truncations() {
        let distribution = naive_distribution(&logits, &params);
        let mut scratch = SampleScratch::default();
        let mut draw = |position| {
            let args = SampleArgs {
                position,
                ..args(&logits, &params)
            };
            sample(&args, &mut scratch).unwrap().id
        };
        let mut seen: Vec<TokenId> = (0..30_000).map(&mut draw).collect();
        seen.sort_unstable();
        seen.dedup();
        let kept: Vec<TokenId> = distribution.iter().map(|&(id, _)| id).collect();
        assert_eq!(seen, kept, "{params:?}");
    }
}

#[test]
fn frequencies_pass_a_chi_squared_test() {
    let logits = random_values(5, 40, 1.0);
    for (seed, base) in truncations().into_iter().enumerate() {
        let params = SamplingParams {
            seed: seed as u64,
            ..base
        };
        let distribution = naive_distribution(&logits, &params);
        let draws = 20_000;
        let mut counts = vec![0u32; logits.len()];
        let mut scratch = SampleScratch::default();
        for position in 0..draws {
            let args = SampleArgs {
                position,
                ..args(&logits, &params)
            };
            counts[sample(&args, &mut scratch).unwrap().id as usize] += 1;
        }
        let statistic: f64 = distribution
            .iter()
            .map(|&(id, probability)| {
                let expected = probability * f64::from(draws);
                (f64::from(counts[id as usize]) - expected).powi(2) / expected
            })
            .sum();
        // Mean plus five standard deviations of the distribution.
        let freedom = distribution.len() as f64 - 1.0;
        assert!(
            statistic <= freedom + 5.0 * (2.0 * freedom).sqrt(),
            "{statistic}: {params:?}"
        );
    }
}

#[test]
fn instruction_sets_and_scratch_do_not_matter() {
    let logits = random_values(8, 30_000, 3.0);
    let mut scratch = SampleScratch::default();
    for (index, base) in truncations().into_iter().enumerate() {
        let params = SamplingParams {
            logprobs: Some(5),
            seed: index as u64,
            ..base
        };
        let args = SampleArgs {
            position: 11,
            ..args(&logits, &params)
        };
        let expected = sample_with(
            InstructionSet::Portable,
            &args,
            &mut SampleScratch::default(),
        );
        for instructions in InstructionSet::available() {
            assert_eq!(
                sample_with(instructions, &args, &mut scratch),
                expected,
                "{params:?}"
            );
        }
    }
}

#[test]
fn greedy_takes_the_largest_and_the_smaller_id_of_equals() {
    let logits = [0.5, 3.0, -1.0, 3.0, 2.0];
    for temperature in [0.0, 9e-6] {
        let params = SamplingParams {
            temperature,
            top_k: 3,
            ..params()
        };
        assert_eq!(sample_id(&args(&logits, &params)), Some(1));
        assert_eq!(
            sample_id(&SampleArgs {
                masked: &[1],
                ..args(&logits, &params)
            }),
            Some(3)
        );
    }
}

#[test]
fn unusable_logits_yield_nothing() {
    let greedy = SamplingParams::default();
    let random = params();
    for params in [&greedy, &random] {
        assert_eq!(sample_id(&args(&[1.0, f32::NAN, 0.0], params)), None);
        assert_eq!(sample_id(&args(&[1.0, f32::INFINITY], params)), None);
        assert_eq!(sample_id(&args(&[f32::NEG_INFINITY; 40], params)), None);
        assert_eq!(sample_id(&args(&[], params)), None);
        let masked = SampleArgs {
            masked: &[0, 1],
            ..args(&[1.0, 2.0], params)
        };
        assert_eq!(sample_id(&masked), None);
        let mut long = vec![0.0; 100];
        long[99] = f32::NAN;
        assert_eq!(sample_id(&args(&long, params)), None);
    }
}

#[test]
fn only_allowed_tokens_are_sampled() {
    let logits = random_values(9, 1000, 2.0);
    let mut allowed = vec![0u32; 1000_usize.div_ceil(32)];
    for token in [0, 31, 32, 600, 999] {
        allowed[token / 32] |= 1 << (token % 32);
    }
    for params in truncations().iter().chain([&SamplingParams::default()]) {
        for position in 0..200 {
            let args = SampleArgs {
                allowed: Some(&allowed),
                masked: &[600],
                position,
                ..args(&logits, params)
            };
            let token = sample_id(&args).unwrap();
            assert!([0, 31, 32, 999].contains(&token), "{token}: {params:?}");
        }
    }
    let greedy = SamplingParams::default();
    let nothing = SampleArgs {
        allowed: Some(&[0; 32]),
        ..args(&logits, &greedy)
    };
    assert_eq!(sample_id(&nothing), None);
}

#[test]
fn a_rated_token_has_the_log_probabilities_of_a_sampled_one() {
    let logits = random_values(4, 5000, 2.0);
    let params = SamplingParams {
        logit_bias: vec![(17, 1e30)],
        logprobs: Some(4),
        ..SamplingParams::default()
    };
    let mut scratch = SampleScratch::default();
    let sampled = sample(&args(&logits, &params), &mut scratch).unwrap();
    assert_eq!(sampled.id, 17);
    assert_eq!(rate(&logits, 17, 4, &mut scratch), sampled.logprobs);
    assert_eq!(rate(&logits, 5000, 4, &mut scratch), None);
    assert_eq!(rate(&[0.0, f32::NAN], 0, 4, &mut scratch), None);
    assert_eq!(rate(&[0.0, f32::NEG_INFINITY], 1, 4, &mut scratch), None);
}

#[test]
fn penalties_and_bias_change_the_logits_as_documented() {
    let logits = [2.0, -2.0, 1.0, 0.0, 5.0];
    let params = SamplingParams {
        repetition_penalty: 2.0,
        frequency_penalty: 0.5,
        presence_penalty: 0.25,
        logit_bias: vec![(3, 4.0), (99, 1.0)],
        ..SamplingParams::default()
    };
    let args = SampleArgs {
        prompt: &[0, 1, 1, 77],
        output: &[3, 2, 3, 3],
        masked: &[4],
        ..args(&logits, &params)
    };
    let mut scratch = SampleScratch::default();
    for _ in 0..2 {
        adjust(&args, &mut scratch);
        let expected = [
            1.0,
            -4.0,
            0.5 - 0.5 - 0.25,
            2.0 - 1.5 - 0.25,
            f32::NEG_INFINITY,
        ];
        assert_eq!(scratch.adjusted, expected);
        assert!(scratch.counts.iter().all(|&count| count == 0));
    }
}

#[test]
fn logprobs_are_those_of_the_raw_logits() {
    let logits = random_values(4, 5000, 2.0);
    let params = SamplingParams {
        logit_bias: vec![(17, 100.0)],
        logprobs: Some(4),
        temperature: 0.7,
        ..params()
    };
    let token = sample(&args(&logits, &params), &mut SampleScratch::default()).unwrap();
    assert_eq!(token.id, 17);
    let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
    let logprob = |id: TokenId| f64::from(logits[id as usize]) - total.ln();
    let reported = token.logprobs.unwrap();
    assert!((f64::from(reported.logprob) - logprob(17)).abs() < 1e-5);
    let better = logits.iter().filter(|&&logit| logit > logits[17]).count();
    assert_eq!(reported.rank as usize, better + 1);
    let mut sorted: Vec<TokenId> = (0..5000).collect();
    sorted.sort_by(|&a, &b| {
        logits[b as usize]
            .total_cmp(&logits[a as usize])
            .then(a.cmp(&b))
    });
    let ids: Vec<TokenId> = reported.top.iter().map(|&(id, _)| id).collect();
    assert_eq!(ids, sorted[..4]);
    for (id, value) in reported.top {
        assert!((f64::from(value) - logprob(id)).abs() < 1e-5);
    }
}

#[test]
fn ranks_of_equal_logits_follow_the_ids() {
    let params = SamplingParams {
        logprobs: Some(0),
        ..SamplingParams::default()
    };
    let args = SampleArgs {
        masked: &[1],
        ..args(&[0.0, 2.0, 2.0, 2.0], &params)
    };
    let logprobs = sample(&args, &mut SampleScratch::default())
        .unwrap()
        .logprobs
        .unwrap();
    assert_eq!((logprobs.rank, logprobs.top.len()), (2, 0));
}

#[test]
fn selection_agrees_with_a_sort() {
    let mut selector = Selector::default();
    for (seed, len) in [1, 63, 64, 65, 1000, 10_000].into_iter().enumerate() {
        // Few distinct values, so that there are many ties.
        let ids = random_indices(seed as u64, len, 50);
        let logits: Vec<f32> = ids.iter().map(|&value| value as f32 * 0.5 - 9.0).collect();
        let mut sorted: Vec<TokenId> = (0..len as TokenId).collect();
        sorted.sort_by(|&a, &b| {
            logits[b as usize]
                .total_cmp(&logits[a as usize])
                .then(a.cmp(&b))
        });
        for count in [0, 1, 2, 15, 64, 200, len, len + 1] {
            selector.select(&logits, count);
            let selected: Vec<TokenId> = selector.sorted().collect();
            assert_eq!(selected, sorted[..count.min(len)], "{count} of {len}");
        }
    }
}

#[test]
fn uniform_numbers_are_spread_evenly() {
    for seed in [0, 1, u64::MAX] {
        let numbers: Vec<f64> = (0..4096).map(|position| uniform(seed, position)).collect();
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
        let mean = numbers.iter().sum::<f64>() / 4096.0;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
        let pairs = numbers
            .windows(2)
            .map(|pair| (pair[0] - 0.5) * (pair[1] - 0.5));
        assert!((pairs.sum::<f64>() / 4095.0).abs() < 0.01);
    }
}

#[test]
fn exp_of_negative_numbers_is_exact_enough() {
    for step in 0..8700 {
        let value = step as f32 * -0.01;
        let exact = f64::from(value).exp();
        let error = (f64::from(weights::exp_of_negative(value)) - exact).abs() / exact;
        assert!(error < 2.5 * f64::from(f32::EPSILON), "{value}");
    }
    assert_eq!(weights::exp_of_negative(0.0), 1.0);
    assert_eq!(weights::exp_of_negative(f32::NEG_INFINITY), 0.0);
}
