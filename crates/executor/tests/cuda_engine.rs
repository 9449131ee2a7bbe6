//! The engine for cards, run by the host executor: logits against the CPU's, and batch invariance.

mod common;

use std::sync::Arc;

use backstop_arch::{MatrixRole, Model};
use backstop_executor::{CudaExecutor, CudaExecutorConfig};
use backstop_kernels::cuda::backend::{CudaBackend, StepLimits};
use backstop_kernels::cuda::batch::TableUpdate;
use backstop_kernels::cuda::host::HostDevice;
use backstop_kernels::cuda::runner::{Runner, RunnerConfig, StepWork, rehearse};
use backstop_kernels::cuda::{CudaKvCache, CudaWeights, Device};
use backstop_kernels::ops::sample::cuda::{SampleStep, StepRow};
use backstop_kernels::{Batch, Element, KvGroupLayout, MatrixId};
use backstop_types::{KvGroupSpec, KvSpec, SampledToken, SamplingParams};
use common::{Drive, Loaded, Request, backend, drive_with, load, repository};

const BLOCK_SIZE: u32 = 16;
const BLOCKS: u32 = 64;

fn device() -> Arc<dyn Device> {
    HostDevice::for_tests().unwrap_or_else(|error| panic!("{error}"))
}

fn model(loaded: &Loaded) -> Box<dyn Model<CudaBackend>> {
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
    let sizes = (limits, vocabulary, BLOCK_SIZE);
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
            samples: &samples,
            updates: &updates,
            blocks: &blocks,
            histories: &[],
            logprobs: false,
        };
        let ticket = runner.submit(&work, &mut |backend| model.forward(backend));
        let ticket = ticket.unwrap_or_else(|error| panic!("{error}"));
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
    let heads = spec
        .kv_groups
        .iter()
        .all(|group| [32, 64, 128].contains(&group.head_dim));
    heads && spec.weights.matrices.iter().all(is_bf16)
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
                ..SamplingParams::default()
            },
            max_tokens: 6,
        })
        .collect();
    let run = |waves: &[Vec<Request>], max_num_batched_tokens: u32, graphs: bool| {
        let limits = StepLimits {
            rows: max_num_batched_tokens as usize,
            sequences: 12,
            positions: 256,
        };
        let device = device();
        let model = model(&loaded);
        let kv = KvSpec {
            block_size: BLOCK_SIZE,
            groups: model
                .spec()
                .kv_groups
                .iter()
                .map(|group| KvGroupSpec {
                    span: group.span,
                    num_blocks: BLOCKS,
                })
                .collect(),
        };
        let mut executor = CudaExecutor::new(CudaExecutorConfig {
            runner: runner(&loaded, &device, limits, Element::BF16),
            model,
            kv: kv.clone(),
            max_num_seqs: 12,
            graphs,
        })
        .unwrap_or_else(|error| panic!("{error}"));
        let drive = Drive {
            block_size: BLOCK_SIZE,
            blocks: BLOCKS,
            max_num_seqs: 12,
            max_num_batched_tokens,
            enable_prefix_caching: graphs,
            num_threads: 1,
        };
        drive_with(&mut executor, &kv, &drive, waves).tokens
    };
    let alone: Vec<Vec<Request>> = requests
        .iter()
        .map(|request| vec![request.clone()])
        .collect();
    let expected = run(&alone, 128, false);
    let together = run(&[requests], 40, true);
    for (index, (expected, found)) in expected.iter().zip(&together).enumerate() {
        assert_eq!(expected, found, "answer {index}");
    }
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
    let root = repository("tests/goldens/cohere2_moe");
    let mut count = 0;
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
        count += 1;
    }
    assert!(count >= 3, "only {count} checkpoints are for the device");
}
