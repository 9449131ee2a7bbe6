//! The portable backend against independent implementations, and against the native one.

mod common;

use std::path::Path;
use std::sync::Arc;

use backstop_arch::{KvGroup, Model, gguf_families};
use backstop_candle::{
    CandleBackend, CandleDevice, CandleDeviceKind, CandleError, CandleKvCache, CandleWeights,
    abilities,
};
use backstop_executor::CandleExecutorConfig;
use backstop_kernels::{Batch, Element};
use backstop_loader::{HostWeight, LoadFailure, load_one_by_one};
use backstop_types::SamplingParams;
use backstop_weights::{Checkpoint, ElementType};
use common::goldens::{CODES, Expected, FLOAT, FP8, Tolerance, compare, expected};
use common::{Drive, Request, drive, drive_with, fitted, kv_spec, load, model, repository};

/// Why a test fails while it loads.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Load(#[from] LoadFailure),
    #[error(transparent)]
    Candle(#[from] CandleError),
}

/// Weights and so many blocks in every group.
fn backend(checkpoint: &Checkpoint, block_size: u32, blocks: u32) -> CandleBackend {
    let device = CandleDevice::open(CandleDeviceKind::Cpu, 0).expect("there is a processor");
    let model = model(checkpoint);
    let spec = model.spec();
    let mut weights = CandleWeights::new(&device);
    let loaded = load_one_by_one(checkpoint, spec, &|_| {}, &mut |weight| {
        match weight {
            HostWeight::Vector(vector) => weights.push_vector(vector)?,
            HostWeight::Matrix(matrix) => weights.push_matrix(&matrix)?,
            HostWeight::Experts(experts) => weights.push_experts(&experts)?,
        }
        Ok::<_, Failure>(())
    });
    loaded.unwrap_or_else(|failure| panic!("{failure}"));
    let layout = |group: &KvGroup| group.layout(blocks);
    let layouts: Vec<_> = spec.kv_groups.iter().map(layout).collect();
    let cache = CandleKvCache::new(&layouts, block_size, Element::F32, &device);
    CandleBackend::new(Arc::new(weights), cache.expect("memory"))
}

fn open(directory: &Path) -> Checkpoint {
    let opened = Checkpoint::open(directory, &gguf_families());
    let mut checkpoint = opened.unwrap_or_else(|error| panic!("{error}"));
    fitted(&mut checkpoint);
    checkpoint
}

/// All wanted logits of one sequence, computed in chunks of `chunk` tokens, each beside a sequence of another length.
fn compute(
    backend: &mut CandleBackend,
    checkpoint: &Checkpoint,
    expected: &Expected,
    chunk: usize,
) -> Vec<f32> {
    let model = model(checkpoint);
    let groups = model.spec().kv_groups.len();
    let tables: Vec<Vec<u32>> = vec![(0..64).rev().collect(), (64..128).collect()];
    let tables = vec![tables; groups];
    let mut logits = Vec::new();
    for (index, tokens) in expected.tokens.chunks(chunk).enumerate() {
        let first = (index * chunk) as u32;
        let mut batch = Batch::new();
        batch.push(0, first, tokens, false);
        let range = first..first + tokens.len() as u32;
        let wanted = expected.positions.iter();
        let wanted = wanted.filter(|position| range.contains(position));
        batch.logit_rows = wanted.map(|position| position - first).collect();
        batch.push(1, 3 * index as u32, &tokens[..tokens.len().min(3)], false);
        let begun = backend.begin(&batch, &tables);
        begun.unwrap_or_else(|error| panic!("{error}"));
        model.forward(backend);
        let found = backend.take_logits();
        logits.extend(found.unwrap_or_else(|error| panic!("{error}")));
    }
    logits
}

fn check(checkpoint: &Path, golden: &Path, tolerance: &Tolerance) {
    let checkpoint = open(checkpoint);
    let expected = expected(golden);
    let name = golden.file_name().expect("a name").to_string_lossy();
    for chunk in [usize::MAX, 17, 1] {
        let mut backend = backend(&checkpoint, 16, 128);
        let chunk = chunk.min(expected.tokens.len());
        let found = compute(&mut backend, &checkpoint, &expected, chunk);
        assert_eq!(found.len(), expected.logits.len(), "{name}");
        compare(&name, &found, &expected.logits, tolerance);
    }
}

/// Checks the goldens of a set that candle computes; returns the names of those that it does not.
fn check_all(set: &str, tolerance: impl Fn(&Checkpoint) -> Tolerance) -> Vec<String> {
    let root = repository("tests/goldens").join(set);
    let mut refused = Vec::new();
    for entry in std::fs::read_dir(&root).expect("goldens are part of the repository") {
        let directory = entry.expect("readable").path();
        if !directory.is_dir() {
            continue;
        }
        let checkpoint = open(&directory);
        let abilities = abilities(CandleDeviceKind::Cpu);
        match abilities.check(&model(&checkpoint).needs()) {
            Ok(()) => check(&directory, &directory, &tolerance(&checkpoint)),
            Err(_) => refused.push(
                directory
                    .file_name()
                    .expect("a name")
                    .to_string_lossy()
                    .into(),
            ),
        }
    }
    refused.sort();
    refused
}

/// Weights in FP8 come with inputs that are rounded.
fn of_numbers(checkpoint: &Checkpoint) -> Tolerance {
    let mut tensors = checkpoint.tensors();
    match tensors.any(|tensor| tensor.element_type == ElementType::F8E4M3) {
        true => FP8,
        false => FLOAT,
    }
}

#[test]
fn every_architecture_but_those_with_sparse_attention_agrees_with_the_reference_implementation() {
    let none: [String; 0] = [];
    assert_eq!(check_all("cohere2_moe", of_numbers), none);
    assert_eq!(
        check_all("decoders", of_numbers),
        [
            "glm_moe_dsa",
            "glm_moe_dsa_at_its_limit",
            "glm_moe_dsa_selecting",
            "glm_moe_dsa_selecting_in_turns"
        ]
    );
}

#[test]
fn every_quantised_format_agrees_with_the_reference_implementation() {
    let rounded = repository("tests/goldens/quantized/fp8_tensor_token_experts");
    let tolerance = |checkpoint: &Checkpoint| match checkpoint.directory() == rounded {
        true => FP8,
        false => FLOAT,
    };
    assert!(check_all("quantized", tolerance).is_empty());
}

#[test]
fn the_demo_model_agrees_with_the_reference_implementation() {
    let demo = repository("models/demo");
    check(&demo, &repository("tests/goldens/demo"), &FP8);
}

/// Candle rounds inputs of products with codes to 8 bits, of most formats with one scale for 256 of them.
#[test]
fn gguf_files_of_many_formats_agree_with_transformers() {
    for name in ["mixed_llama", "mixed_mixtral", "mixed_qwen3_moe"] {
        let directory = repository("tests/goldens/gguf").join(name);
        let tolerance = Tolerance {
            root_mean_square: 1e-1,
            ..CODES
        };
        check(&directory, &directory, &tolerance);
    }
}

#[test]
fn greedy_answers_with_preemptions_and_prefix_hits_are_those_of_the_native_backend() {
    let directory = repository("tests/goldens/decoders/llama_f32");
    let (native, checkpoint) = (load(&directory), open(&directory));
    let limits = Drive {
        block_size: 4,
        blocks: 48,
        max_num_seqs: 8,
        max_num_batched_tokens: 96,
        enable_prefix_caching: true,
        num_threads: 2,
        speculation: None,
    };
    let request = |number: u32| Request {
        prompt: (0..40 + number)
            .map(|index| (index * 7 + number * 31) % 61)
            .collect(),
        sampling: SamplingParams {
            temperature: 0.0,
            ..SamplingParams::default()
        },
        max_tokens: 24,
        min_tokens: 24,
        stop_token_ids: Vec::new(),
    };
    let waves = [(0..8).map(request).collect(), vec![request(7)]];
    let kv = kv_spec(&native, &limits);
    let config = CandleExecutorConfig {
        model: Box::new(model(&checkpoint)),
        backend: backend(&checkpoint, limits.block_size, limits.blocks),
        kv: kv.clone(),
        max_num_seqs: limits.max_num_seqs,
        num_threads: limits.num_threads,
    };
    let mut executor = config.start().expect("threads");
    let found = drive_with(&mut executor, &kv, &limits, &waves);
    let expected = drive(&native, &limits, &waves);
    let kinds = (found.preemptions, found.prefix_hits);
    assert!(
        kinds.0 > 0 && kinds.1 > 0,
        "preemptions and hits: {kinds:?}"
    );
    let ids = |driven: &common::Driven| -> Vec<Vec<u32>> {
        let answers = driven.tokens.iter();
        answers
            .map(|tokens| tokens.iter().map(|token| token.id).collect())
            .collect()
    };
    assert_eq!(ids(&found), ids(&expected));
}
