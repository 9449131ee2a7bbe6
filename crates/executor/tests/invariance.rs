//! What else is in the batch, how a prompt is cut into chunks, preemption and the prefix cache must
//! not change an answer: not its tokens, and not the last bit of their log-probabilities.

mod common;

use backstop_sched::{PromptLookup, Speculation};
use backstop_types::{SampledToken, SamplingParams, TokenLogprobs};
use common::{Drive, Driven, Loaded, Request, drive, load, repository};

const CHECKPOINTS: [&str; 6] = [
    "models/demo",
    "tests/goldens/cohere2_moe/north_fp8",
    "tests/goldens/decoders/qwen2_layer_types",
    "tests/goldens/decoders/qwen3_moe_dense_first",
    "tests/goldens/decoders/glm4_moe_lite",
    "tests/goldens/decoders/glm_moe_dsa_selecting",
];

/// Deterministic "random" numbers.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn vocabulary(loaded: &Loaded) -> u64 {
    common::model(&loaded.checkpoint)
        .spec()
        .vocabulary_size
        .into()
}

/// `count` requests of different lengths; every other one samples at random, and some share a
/// prefix with their predecessor.
fn requests(loaded: &Loaded, count: usize) -> Vec<Request> {
    let mut numbers = Numbers(42);
    let vocabulary = vocabulary(loaded);
    let mut requests: Vec<Request> = Vec::new();
    for index in 0..count {
        let length = 1 + numbers.below(120) as usize;
        let mut prompt: Vec<u32> = (0..length)
            .map(|_| numbers.below(vocabulary) as u32)
            .collect();
        if index % 3 == 2 {
            let before = &requests[index - 1].prompt;
            let shared = before.len().min(prompt.len());
            prompt[..shared].copy_from_slice(&before[..shared]);
        }
        let sampling = SamplingParams {
            temperature: if index % 2 == 0 { 0.0 } else { 0.9 },
            top_p: 0.95,
            frequency_penalty: if index % 5 == 0 { 0.5 } else { 0.0 },
            seed: index as u64,
            logprobs: Some(3),
            prompt_logprobs: (index % 4 == 1).then_some(2),
            ..SamplingParams::default()
        };
        requests.push(Request {
            prompt,
            sampling,
            max_tokens: 24,
            min_tokens: 0,
            stop_token_ids: Vec::new(),
        });
    }
    requests
}

fn roomy() -> Drive {
    Drive {
        block_size: 16,
        blocks: 1024,
        max_num_seqs: 64,
        max_num_batched_tokens: 512,
        enable_prefix_caching: false,
        num_threads: 2,
        speculation: None,
    }
}

/// The answers of each request alone, one after the other.
fn alone(loaded: &Loaded, requests: &[Request]) -> Driven {
    let waves: Vec<Vec<Request>> = requests
        .iter()
        .map(|request| vec![request.clone()])
        .collect();
    drive(loaded, &roomy(), &waves)
}

fn assert_same(expected: &[Vec<SampledToken>], found: &[Vec<SampledToken>], what: &str) {
    for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
        assert_eq!(
            expected.len(),
            found.len(),
            "{what}: length of answer {index}"
        );
        for (position, (expected, found)) in expected.iter().zip(found).enumerate() {
            assert_eq!(
                expected.id, found.id,
                "{what}: token {position} of answer {index}"
            );
            let bits = |token: &SampledToken| bits(token.logprobs.as_ref().expect("asked for"));
            assert_eq!(
                bits(expected),
                bits(found),
                "{what}: token {position} of answer {index}"
            );
        }
    }
}

fn bits(logprobs: &TokenLogprobs) -> (u32, u32, Vec<(u32, u32)>) {
    let top = logprobs.top.iter();
    let top = top.map(|(id, logprob)| (*id, logprob.to_bits()));
    (logprobs.logprob.to_bits(), logprobs.rank, top.collect())
}

/// The ratings of the prompts that were to be rated.
fn assert_same_ratings(requests: &[Request], expected: &Driven, found: &Driven, what: &str) {
    let pairs = expected.prompt_logprobs.iter().zip(&found.prompt_logprobs);
    for (index, (request, (expected, found))) in requests.iter().zip(pairs).enumerate() {
        let rated = request
            .sampling
            .prompt_logprobs
            .map(|_| request.prompt.len() - 1);
        assert_eq!(expected.len(), rated.unwrap_or(0), "{what}: prompt {index}");
        let bits = |all: &[TokenLogprobs]| all.iter().map(bits).collect::<Vec<_>>();
        assert_eq!(bits(expected), bits(found), "{what}: prompt {index}");
    }
}

fn check(what: &str, run: impl Fn(&Loaded, &[Request]) -> Driven) {
    for checkpoint in CHECKPOINTS {
        let loaded = load(&repository(checkpoint));
        let requests = requests(&loaded, 65);
        let expected = alone(&loaded, &requests);
        let found = run(&loaded, &requests);
        assert_same(
            &expected.tokens,
            &found.tokens,
            &format!("{checkpoint}: {what}"),
        );
        assert_same_ratings(&requests, &expected, &found, what);
    }
}

#[test]
fn an_answer_is_the_same_among_64_others() {
    check("in a batch", |loaded, requests| {
        drive(loaded, &roomy(), &[requests.to_vec()])
    });
}

#[test]
fn an_answer_is_the_same_however_its_prompt_is_chunked() {
    for (max_num_batched_tokens, block_size) in [(64, 16), (65, 8), (97, 32)] {
        let settings = Drive {
            max_num_batched_tokens,
            block_size,
            ..roomy()
        };
        check("chunked", |loaded, requests| {
            drive(loaded, &settings, &[requests.to_vec()])
        });
    }
}

#[test]
fn an_answer_is_the_same_after_preemption() {
    let settings = Drive {
        block_size: 4,
        blocks: 48,
        ..roomy()
    };
    check("preempted", |loaded, requests| {
        let driven = drive(loaded, &settings, &[requests.to_vec()]);
        assert!(
            driven.preemptions >= 10,
            "only {} preemptions",
            driven.preemptions
        );
        driven
    });
}

#[test]
fn an_answer_is_the_same_after_a_prefix_hit() {
    let settings = Drive {
        enable_prefix_caching: true,
        ..roomy()
    };
    check("after a prefix hit", |loaded, requests| {
        let twice = drive(loaded, &settings, &[requests.to_vec(), requests.to_vec()]);
        assert!(
            twice.prefix_hits > 1000,
            "only {} tokens hit",
            twice.prefix_hits
        );
        let (first, second) = twice.tokens.split_at(requests.len());
        assert_same(first, second, "second time");
        twice
    });
}

#[test]
fn an_answer_is_the_same_on_one_thread() {
    let settings = Drive {
        num_threads: 1,
        ..roomy()
    };
    check("on one thread", |loaded, requests| {
        drive(loaded, &settings, &[requests.to_vec()])
    });
}

#[test]
fn an_answer_is_the_same_with_guesses() {
    let settings = Drive {
        enable_prefix_caching: true,
        speculation: Some(Speculation::PromptLookup(PromptLookup {
            max_draft_tokens: 5,
            min_ngram: 1,
            max_ngram: 3,
        })),
        ..roomy()
    };
    check("with guesses", |loaded, requests| {
        // Few at a time, so that there are rows of logits for guesses.
        let waves: Vec<Vec<Request>> = requests.chunks(9).map(<[_]>::to_vec).collect();
        let driven = drive(loaded, &settings, &waves);
        let (guessed, right) = driven.guessed;
        assert!(right > 20, "only {right} of {guessed} guesses were right");
        assert!(right < guessed, "guesses are wrong now and then");
        driven
    });
}
