//! The engine for cards, run by the host executor: logits against the CPU's, and batch invariance.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use backstop_arch::{AnyModel, MatrixRole, Model};
use backstop_card::backend::StepLimits;
use backstop_card::batch::TableUpdate;
use backstop_card::ops::sample::{SampleStep, StepRow};
use backstop_card::runner::{RehearsalSizes, Runner, RunnerConfig, StepWork, rehearse};
use backstop_card::{ABILITIES, CudaKvCache, CudaWeights, Device};
use backstop_executor::{CudaExecutorConfig, DeviceExecutor};
use backstop_kernels::{Batch, Element, KvGroupLayout, MatrixId};
use backstop_proof::host::HostDevice;
use backstop_sched::{PromptLookup, Speculation};
use backstop_types::{Executor, KvGroupSpec, KvSpec, SampledToken, SamplingParams};
use common::grammars;
use common::{Drive, Driven, Flaky, Loaded, Request, backend, drive_with, load, repository};

const BLOCK_SIZE: u32 = 16;
const BLOCKS: u32 = 64;
const MAX_NUM_SEQS: u32 = 12;

fn device() -> Arc<dyn Device> {
    HostDevice::for_tests().unwrap_or_else(|error| panic!("{error}"))
}

fn model(loaded: &Loaded) -> AnyModel {
    backstop_arch::build(loaded.checkpoint.config()).unwrap_or_else(|error| panic!("{error}"))
}

/// A runner with `BLOCKS` blocks in each group.
fn runner(loaded: &Loaded, device: &Arc<dyn Device>, limits: StepLimits, kv: Element) -> Runner {
    let model = model(loaded);
    let spec = model.spec();
    let is_gate_up = |id: MatrixId| spec.weights.matrices[id.0 as usize].role == MatrixRole::GateUp;
    let weights = CudaWeights::from_host(device, &loaded.weights, is_gate_up).expect("memory");
    let weights = Arc::new(weights);
    let groups: Vec<KvGroupLayout> = spec
        .kv_groups
        .iter()
        .map(|group| group.layout(BLOCKS))
        .collect();
    let vocabulary = spec.vocabulary_size as usize;
    let sizes = RehearsalSizes {
        limits,
        vocabulary,
        block_size: BLOCK_SIZE,
    };
    let rehearsal = rehearse(device.facts(), &weights, &groups, sizes, &mut |backend| {
        model.forward(backend);
    });
    let rehearsal = rehearsal.expect("a rehearsal has no device to fail");
    Runner::new(RunnerConfig {
        device: Arc::clone(device),
        weights,
        kv: CudaKvCache::new(device, &groups, BLOCK_SIZE, kv).expect("memory"),
        needs: rehearsal.needs,
        limits,
        vocabulary,
        arena_bytes: rehearsal.arena_bytes,
    })
    .expect("memory")
}

/// All logits of one sequence, computed in chunks.
fn device_logits(loaded: &Loaded, tokens: &[u32], chunk: usize, kv: Element) -> Vec<f32> {
    let device = device();
    let limits = StepLimits {
        rows: tokens.len(),
        sequences: 2 * tokens.len(),
        positions: (BLOCKS * BLOCK_SIZE) as usize,
    };
    let mut runner = runner(loaded, &device, limits, kv);
    let model = model(loaded);
    let blocks: Vec<u32> = (0..BLOCKS).rev().collect();
    let groups = model.spec().kv_groups.len() as u32;
    let mut logits = Vec::new();
    for (index, tokens) in tokens.chunks(chunk).enumerate() {
        let mut batch = Batch::new();
        batch.push(1, (index * chunk) as u32, tokens, false);
        batch.logit_rows = (0..tokens.len() as u32).collect();
        let mut samples = SampleStep::new(*runner.sample_limits());
        for _ in tokens {
            samples.push(greedy()).expect("room");
        }
        let update = |table| TableUpdate {
            table,
            slot: 1,
            first: 0,
            count: BLOCKS,
            offset: 0,
        };
        let updates: Vec<TableUpdate> = (0..groups).filter(|_| index == 0).map(update).collect();
        let work = StepWork {
            batch: &batch,
            updates: &updates,
            blocks: &blocks,
            histories: &[],
        };
        let computed = runner.compute(&work, &mut |backend| {
            model.forward(backend);
        });
        let computed = computed.unwrap_or_else(|error| panic!("{error}"));
        let ticket = runner.sample(computed, &samples, false).expect("room");
        let sampled = runner.outputs().wait(ticket, |_| false).expect("a step");
        let row_logits = runner.read_logits(tokens.len()).expect("logits");
        assert_samples_are_largest(&sampled, &row_logits);
        logits.extend(row_logits);
    }
    logits
}

fn greedy() -> StepRow<'static> {
    static GREEDY: std::sync::LazyLock<SamplingParams> =
        std::sync::LazyLock::new(SamplingParams::default);
    StepRow {
        params: &GREEDY,
        slot: 1,
        position: 0,
        history: None,
        masked: &[],
        allowed: None,
    }
}

fn assert_samples_are_largest(sampled: &[Option<SampledToken>], logits: &[f32]) {
    let columns = logits.len() / sampled.len();
    for (token, logits) in sampled.iter().zip(logits.chunks(columns)) {
        let token = token.as_ref().expect("usable logits").id as usize;
        assert!(logits.iter().all(|&logit| logit <= logits[token]));
    }
}

fn cpu_logits(loaded: &Loaded, tokens: &[u32], kv: Element) -> Vec<f32> {
    let model = common::model(&loaded.checkpoint);
    let groups = model.spec().kv_groups.len();
    let mut backend = backend(loaded, BLOCK_SIZE, &vec![BLOCKS; groups], kv);
    let mut batch = Batch::new();
    batch.push(0, 0, tokens, false);
    batch.logit_rows = (0..tokens.len() as u32).collect();
    let tables = vec![vec![(0..BLOCKS).collect::<Vec<_>>()]; groups];
    backend.begin(&batch, &tables);
    model.forward(&mut backend);
    backend.logits().to_vec()
}

/// Root mean square difference, relative to the deviation of what is expected.
fn difference(found: &[f32], expected: &[f32]) -> f64 {
    let count = expected.len() as f64;
    let mean = expected.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
    let square = |x: f64| x * x;
    let variance = expected
        .iter()
        .map(|&x| square(f64::from(x) - mean))
        .sum::<f64>()
        / count;
    let pairs = found.iter().zip(expected);
    let squares: f64 = pairs
        .map(|(&a, &b)| square(f64::from(a) - f64::from(b)))
        .sum();
    (squares / count / variance).sqrt()
}

fn prompt(loaded: &Loaded, len: usize) -> Vec<u32> {
    let vocabulary = model(loaded).spec().vocabulary_size as usize;
    (0..len)
        .map(|index| ((index * 7919 + 13) % vocabulary) as u32)
        .collect()
}

/// Whether the device computes with the checkpoint's number formats and shapes.
fn is_for_the_device(loaded: &Loaded) -> bool {
    let model = model(loaded);
    let spec = model.spec();
    let is_bf16 = |matrix: &backstop_arch::MatrixRequest| {
        let tensor = loaded.checkpoint.tensor(&matrix.parts[0].name);
        tensor.is_some_and(|tensor| tensor.element_type == backstop_weights::ElementType::BF16)
    };
    ABILITIES.check(&model.needs()).is_ok() && spec.weights.matrices.iter().all(is_bf16)
}

#[test]
fn the_demo_model_computes_as_on_the_cpu() {
    let loaded = load(&repository("models/demo"));
    let tokens = prompt(&loaded, 90);
    for kv in [Element::BF16, Element::F8E4M3] {
        let whole = device_logits(&loaded, &tokens, tokens.len(), kv);
        let off = difference(&whole, &cpu_logits(&loaded, &tokens, kv));
        // BF16 activations against f32 ones; every E4M3 rounding may fall to the other side.
        assert!(off < 0.05, "{kv:?}: {off}");
        let chunked = device_logits(&loaded, &tokens, 13, kv);
        assert!(whole == chunked, "chunks change the logits");
    }
}

#[test]
fn answers_do_not_depend_on_the_batch() {
    let loaded = load(&repository("models/demo"));
    let requests: Vec<Request> = (0..9)
        .map(|index| Request {
            prompt: prompt(&loaded, 3 + 11 * index),
            sampling: SamplingParams {
                temperature: if index % 2 == 0 { 0.0 } else { 0.8 },
                frequency_penalty: if index % 3 == 0 { 0.5 } else { 0.0 },
                seed: index as u64,
                logprobs: Some(2),
                prompt_logprobs: (index % 2 == 1).then_some(1),
                ..SamplingParams::default()
            },
            max_tokens: 6,
            min_tokens: 0,
            stop_token_ids: Vec::new(),
        })
        .collect();
    let expected = run(&loaded, &alone(&requests), 128, false);
    let together = run(&loaded, &[requests], 40, true);
    assert_same(&expected, &together);
    for (index, rated) in expected.prompt_logprobs.iter().enumerate() {
        let count = if index % 2 == 1 { 2 + 11 * index } else { 0 };
        assert_eq!(rated.len(), count, "prompt {index}");
    }
}

fn alone(requests: &[Request]) -> Vec<Vec<Request>> {
    let waves = requests.iter().map(|request| vec![request.clone()]);
    waves.collect()
}

fn drive_limits(max_num_batched_tokens: u32, enable_prefix_caching: bool) -> Drive {
    Drive {
        block_size: BLOCK_SIZE,
        blocks: BLOCKS,
        max_num_seqs: MAX_NUM_SEQS,
        max_num_batched_tokens,
        enable_prefix_caching,
        num_threads: 1,
        speculation: None,
    }
}

fn executor(loaded: &Loaded, max_num_batched_tokens: u32, graphs: bool) -> DeviceExecutor {
    let limits = StepLimits {
        rows: max_num_batched_tokens as usize,
        sequences: MAX_NUM_SEQS as usize,
        positions: 256,
    };
    let model = model(loaded);
    let groups = model.spec().kv_groups.iter();
    let kv = KvSpec {
        block_size: BLOCK_SIZE,
        groups: groups
            .map(|group| KvGroupSpec {
                span: group.span,
                num_blocks: BLOCKS,
            })
            .collect(),
    };
    CudaExecutorConfig {
        runner: runner(loaded, &device(), limits, Element::BF16),
        model: Box::new(model),
        kv,
        max_num_seqs: MAX_NUM_SEQS,
        graphs,
    }
    .start()
    .unwrap_or_else(|error| panic!("{error}"))
}

fn run(
    loaded: &Loaded,
    waves: &[Vec<Request>],
    max_num_batched_tokens: u32,
    graphs: bool,
) -> Driven {
    let mut executor = executor(loaded, max_num_batched_tokens, graphs);
    let kv = executor.kv_spec().clone();
    let limits = drive_limits(max_num_batched_tokens, graphs);
    drive_with(&mut executor, &kv, &limits, waves)
}

fn assert_same(expected: &Driven, found: &Driven) {
    for (index, expected_tokens) in expected.tokens.iter().enumerate() {
        assert_eq!(expected_tokens, &found.tokens[index], "answer {index}");
        assert_eq!(expected.ends[index], found.ends[index], "answer {index}");
        let ratings = &expected.prompt_logprobs[index];
        assert_eq!(ratings, &found.prompt_logprobs[index], "prompt {index}");
    }
}

/// Requests whose prompts repeat themselves, of all kinds that guesses may get wrong: a third is
/// greedy, a third samples at random, and a third has penalties; some must not stop too soon.
fn repetitive_requests(loaded: &Loaded) -> Vec<Request> {
    let vocabulary = common::vocabulary(loaded);
    let request = |index: usize| Request {
        prompt: prompt(loaded, 4 + 3 * index).repeat(3),
        sampling: SamplingParams {
            temperature: if index % 3 == 1 { 0.7 } else { 0.0 },
            top_p: 0.9,
            repetition_penalty: if index % 3 == 2 { 1.2 } else { 1.0 },
            seed: index as u64,
            logprobs: index.is_multiple_of(2).then_some(2),
            prompt_logprobs: (index % 5 == 1).then_some(1),
            ..SamplingParams::default()
        },
        max_tokens: 24,
        min_tokens: if index.is_multiple_of(2) { 12 } else { 0 },
        stop_token_ids: match index % 4 {
            0 => (0..vocabulary).step_by(5).collect(),
            _ => Vec::new(),
        },
    };
    (0..9).map(request).collect()
}

#[test]
fn answers_are_the_same_with_guesses_and_after_preemptions_and_failed_steps() {
    let loaded = load(&repository("models/demo"));
    let requests = repetitive_requests(&loaded);
    let expected = run(&loaded, &alone(&requests), 128, false);
    let limits = Drive {
        speculation: Some(Speculation::PromptLookup(PromptLookup {
            max_draft_tokens: 4,
            min_ngram: 1,
            max_ngram: 3,
        })),
        ..drive_limits(64, true)
    };
    let waves = std::slice::from_ref(&requests);
    let mut executor = executor(&loaded, 64, true);
    let mut kv = executor.kv_spec().clone();
    let found = drive_with(&mut executor, &kv, &limits, waves);
    assert_same(&expected, &found);
    let (guessed, right) = found.guessed;
    assert!(right > 20, "only {right} of {guessed} guesses were right");
    assert!(right < guessed, "guesses are wrong now and then");

    let mut flaky = Flaky::new(&mut executor, 4);
    assert_same(&expected, &drive_with(&mut flaky, &kv, &limits, waves));

    for group in &mut kv.groups {
        group.num_blocks = 16;
    }
    let found = drive_with(&mut executor, &kv, &limits, waves);
    assert!(found.preemptions > 0, "room for all");
    assert_same(&expected, &found);
}

#[test]
fn prompts_are_rated_as_on_the_cpu() {
    let loaded = load(&repository("models/demo"));
    let request = Request {
        prompt: prompt(&loaded, 50),
        sampling: SamplingParams {
            prompt_logprobs: Some(3),
            ..SamplingParams::default()
        },
        max_tokens: 1,
        min_tokens: 0,
        stop_token_ids: Vec::new(),
    };
    let waves = [vec![request]];
    let found = run(&loaded, &waves, 64, true);
    let expected = common::drive(&loaded, &drive_limits(64, false), &waves);
    assert_eq!(found.prompt_logprobs[0].len(), 49);
    let pairs = found.prompt_logprobs[0]
        .iter()
        .zip(&expected.prompt_logprobs[0]);
    for (position, (found, expected)) in pairs.enumerate() {
        assert_eq!(found.top.len(), 3);
        // BF16 activations against f32 ones.
        let off = (found.logprob - expected.logprob).abs() / (1.0 - expected.logprob);
        assert!(off < 0.1, "{position}: {found:?}, not {expected:?}");
    }
}

#[test]
fn grammars_are_followed_as_on_the_cpu_and_through_failed_steps() {
    let loaded = load(&repository("models/demo"));
    let requests = grammars::requests(common::vocabulary(&loaded), 8, 2);
    let expected = run(&loaded, &alone(&requests), 128, false);
    grammars::check(&requests, 2, &expected);
    let on_cpu = common::drive(&loaded, &drive_limits(128, false), &alone(&requests));
    for (index, request) in requests.iter().enumerate() {
        let sampling = &request.sampling;
        if sampling.constraint.is_some() && sampling.temperature == 0.0 {
            assert_eq!(expected.ids(index), on_cpu.ids(index), "answer {index}");
        }
    }
    let mut executor = executor(&loaded, 40, true);
    let kv = executor.kv_spec().clone();
    let limits = drive_limits(40, true);
    let waves = std::slice::from_ref(&requests);
    assert_same(&expected, &drive_with(&mut executor, &kv, &limits, waves));
    let mut flaky = Flaky::new(&mut executor, 4);
    assert_same(&expected, &drive_with(&mut flaky, &kv, &limits, waves));
}

#[test]
fn greedy_answers_are_those_of_the_cpu() {
    // Random checkpoints have near ties everywhere; the trained model has few.
    let loaded = load(&repository("models/demo"));
    let tokens = prompt(&loaded, 40);
    let found = device_logits(&loaded, &tokens, 40, Element::BF16);
    let expected = cpu_logits(&loaded, &tokens, Element::BF16);
    let columns = found.len() / tokens.len();
    let best = |row: &[f32]| {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter().position(|&logit| logit == largest)
    };
    let rows = found.chunks(columns).zip(expected.chunks(columns));
    let same = rows
        .filter(|(found, expected)| best(found) == best(expected))
        .count();
    assert!(same * 10 >= tokens.len() * 8, "{same} of {}", tokens.len());
}

#[test]
fn random_checkpoints_compute_as_on_the_cpu() {
    let mut model_types = BTreeMap::new();
    for set in ["cohere2_moe", "decoders"] {
        let root = repository("tests/goldens").join(set);
        for entry in std::fs::read_dir(&root).expect("goldens are part of the repository") {
            let directory = entry.expect("readable").path();
            if !directory.is_dir() {
                continue;
            }
            let loaded = load(&directory);
            if !is_for_the_device(&loaded) {
                continue;
            }
            let tokens = prompt(&loaded, 50);
            let found = device_logits(&loaded, &tokens, 50, Element::BF16);
            let off = difference(&found, &cpu_logits(&loaded, &tokens, Element::BF16));
            assert!(off < 0.08, "{}: {off}", directory.display());
            let chunked = device_logits(&loaded, &tokens, 7, Element::BF16);
            assert!(found == chunked, "{}: chunks matter", directory.display());
            let model_type = model(&loaded).spec().architecture;
            *model_types.entry(model_type).or_insert(0) += 1;
        }
    }
    let expected = [
        ("cohere2_moe", 3),
        ("granite", 1),
        ("llama", 3),
        ("mistral", 1),
        ("mixtral", 1),
        ("qwen2", 2),
        ("qwen3", 1),
        ("qwen3_moe", 1),
        ("smollm3", 2),
    ];
    for (model_type, least) in expected {
        let count = model_types.get(model_type).copied().unwrap_or(0);
        assert!(count >= least, "{count} checkpoints of {model_type}");
    }
}
