//! Logits against an independent implementation, teacher-forced; `tests/goldens/README.md` says
//! how the expected ones were made.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use backstop_arch::{Model, gguf_families};
use backstop_kernels::{Batch, CpuBackend, Element};
use backstop_weights::{Checkpoint, ElementType};
use common::goldens::{CODES, Expected, FLOAT, FP8, Tolerance, compare, expected};
use common::{Loaded, backend, load, load_with, model, repository};

/// What is allowed of weights as they are stored, and as they are arranged to be served.
struct Tolerances {
    stored: Tolerance,
    arranged: Tolerance,
}

/// All wanted logits of one sequence, computed in chunks of `chunk` tokens.
fn compute(
    backend: &mut CpuBackend,
    checkpoint: &Checkpoint,
    expected: &Expected,
    chunk: usize,
) -> Vec<f32> {
    let model = model(checkpoint);
    let groups = model.spec().kv_groups.len();
    // Blocks in descending order, so that a block's number never equals its index by chance.
    let tables = vec![vec![(0..64_u32).rev().collect::<Vec<_>>()]; groups];
    let mut logits = Vec::new();
    for (index, tokens) in expected.tokens.chunks(chunk).enumerate() {
        let first = (index * chunk) as u32;
        let mut batch = Batch::new();
        batch.push(0, first, tokens, false);
        let range = first..first + tokens.len() as u32;
        let wanted = expected
            .positions
            .iter()
            .filter(|position| range.contains(position));
        batch.logit_rows = wanted.map(|position| position - first).collect();
        backend.begin(&batch, &tables);
        model.forward(backend);
        logits.extend_from_slice(backend.logits());
    }
    logits
}

fn check(checkpoint: &Path, golden: &Path) {
    let opened =
        Checkpoint::open(checkpoint, &gguf_families()).unwrap_or_else(|error| panic!("{error}"));
    let has = |is_meant: fn(ElementType) -> bool| {
        let mut tensors = opened.tensors();
        tensors.any(|tensor| is_meant(tensor.element_type))
    };
    let fp8 = has(|element| element == ElementType::F8E4M3);
    let stored = if fp8 { FP8 } else { FLOAT };
    let quantization = opened.config().get("quantization_config");
    let mxfp4 = quantization.is_some_and(|config| config["quant_method"] == "mxfp4");
    let codes = mxfp4 || has(|element| matches!(element, ElementType::Block(_)));
    let arranged = if codes { CODES } else { stored };
    check_within(checkpoint, golden, &Tolerances { stored, arranged });
}

fn check_within(checkpoint: &Path, golden: &Path, tolerances: &Tolerances) {
    let stored = load_with(checkpoint, |weights| weights);
    check_loaded(&stored, golden, &tolerances.stored, "as stored");
    check_loaded(&load(checkpoint), golden, &tolerances.arranged, "arranged");
}

fn check_loaded(loaded: &Loaded, golden: &Path, tolerance: &Tolerance, how: &str) {
    let name = golden.file_name().expect("a name").to_string_lossy();
    let name = format!("{name}, {how}");
    let expected = expected(golden);
    let groups = model(&loaded.checkpoint).spec().kv_groups.len();
    let blocks = vec![64; groups];
    let mut whole = Vec::new();
    for chunk in [usize::MAX, 17, 1] {
        let mut backend = backend(loaded, 16, &blocks, Element::F32);
        let chunk = chunk.min(expected.tokens.len());
        let found = compute(&mut backend, &loaded.checkpoint, &expected, chunk);
        assert_eq!(found.len(), expected.logits.len(), "{name}");
        compare(&name, &found, &expected.logits, tolerance);
        if whole.is_empty() {
            whole = found;
        } else {
            assert!(
                whole == found,
                "{name}: chunks of {chunk} change the logits"
            );
        }
    }
}

/// Checks the goldens of a set; returns the model types that it has.
fn check_all(set: &str) -> BTreeSet<String> {
    let root = repository("tests/goldens").join(set);
    let mut model_types = BTreeSet::new();
    for entry in std::fs::read_dir(&root).expect("goldens are part of the repository") {
        let directory = entry.expect("readable").path();
        if directory.is_dir() {
            check(&directory, &directory);
            let checkpoint = Checkpoint::open(&directory, &gguf_families()).expect("checked above");
            let model_type = checkpoint.config()["model_type"].as_str();
            model_types.insert(model_type.expect("a text").to_owned());
        }
    }
    model_types
}

#[test]
fn random_checkpoints_of_every_architecture_agree_with_the_reference_implementation() {
    let mut model_types = check_all("cohere2_moe");
    model_types.append(&mut check_all("decoders"));
    let names: BTreeSet<String> = backstop_arch::names()
        .iter()
        .map(|&name| name.to_owned())
        .collect();
    assert_eq!(model_types, names, "model types with goldens, and all");
}

/// Weights that are quantised are computed with as they are stored, and inputs are not rounded; but
/// for one case with FP8 experts. Arranged as they are served, they are multiplied in integers.
#[test]
fn checkpoints_in_every_quantised_format_agree_with_transformers_on_the_widened_weights() {
    let root = repository("tests/goldens/quantized");
    let entries = std::fs::read_dir(&root).expect("goldens are part of the repository");
    for entry in entries {
        let directory = entry.expect("readable").path();
        let rounds_inputs = directory.ends_with("fp8_tensor_token_experts");
        let tolerances = Tolerances {
            stored: if rounds_inputs { FP8 } else { FLOAT },
            arranged: CODES,
        };
        check_within(&directory, &directory, &tolerances);
    }
}

#[test]
fn the_demo_model_agrees_with_the_reference_implementation() {
    check(
        &repository("models/demo"),
        &repository("tests/goldens/demo"),
    );
}

#[test]
fn a_gguf_file_whose_matrices_have_many_formats_agrees_with_transformers() {
    for name in ["mixed_llama", "mixed_mixtral", "mixed_qwen3_moe"] {
        let directory = repository("tests/goldens/gguf").join(name);
        check(&directory, &directory);
    }
}

/// Written with the names that the package `gguf` has for what transformers computed with.
#[test]
fn a_family_in_a_gguf_file_agrees_with_transformers() {
    for name in [
        "cohere2_by_default",
        "cohere_with_theta",
        "gpt_oss_as_gguf",
        "granite_tied",
        "phi3_sliding_tied",
        "qwen2_tied_yarn",
        "qwen3_tied",
        "smollm3_by_default",
    ] {
        let golden = repository("tests/goldens/decoders").join(name);
        check(&repository("tests/goldens/gguf").join(name), &golden);
    }
    for name in [
        "layer_norm_null",
        "north_bf16_sharded",
        "softmax_shared_average",
    ] {
        let golden = repository("tests/goldens/cohere2_moe").join(name);
        let written = format!("tests/goldens/gguf/cohere2moe_{name}");
        check(&repository(&written), &golden);
    }
}

/// The file is not part of the repository: `BACKSTOP_SMOLLM2_GGUF` says where it is, and
/// `scripts/models/smollm2.sh` fetches it.
#[test]
fn a_real_gguf_model_rates_a_text_as_transformers_does() {
    let Some(path) = std::env::var_os("BACKSTOP_SMOLLM2_GGUF") else {
        return;
    };
    let golden = repository("tests/goldens/gguf/smollm2_135m_instruct.json");
    let golden = std::fs::read(golden).expect("a golden");
    let golden: serde_json::Value = serde_json::from_slice(&golden).expect("JSON");
    let numbers = |name: &str| golden[name].as_array().expect("a list").iter();
    let tokens: Vec<u32> = numbers("tokens")
        .map(|token| token.as_u64().expect("a token") as u32)
        .collect();
    let expected = Expected {
        positions: (0..tokens.len() as u32).collect(),
        tokens,
        logits: Vec::new(),
    };
    let loaded = load_with(Path::new(&path), |weights| weights);
    let mut backend = backend(&loaded, 16, &[64], Element::F32);
    let found = compute(&mut backend, &loaded.checkpoint, &expected, 64);
    let vocabulary = found.len() / expected.tokens.len();
    let next = expected.tokens[1..].iter();
    for ((row, &token), logprob) in found.chunks(vocabulary).zip(next).zip(numbers("logprobs")) {
        let largest = row.iter().copied().fold(f32::MIN, f32::max);
        let sum: f32 = row.iter().map(|logit| (logit - largest).exp()).sum();
        let found = row[token as usize] - largest - sum.ln();
        let difference = (f64::from(found) - logprob.as_f64().expect("a number")).abs();
        assert!(difference < 2e-3, "{token}: {found} instead of {logprob}");
    }
}
