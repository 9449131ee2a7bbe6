//! From a plan of a card's memory to answers, on the host executor.

mod common;

use std::path::Path;
use std::sync::Arc;

use backstop_arch::AnyModel;
use backstop_card::{ABILITIES, Device, DeviceFacts};
use backstop_executor::{CudaPlan, CudaPlanError, CudaRequest};
use backstop_kernels::Element;
use backstop_loader::{DeviceWeightPlan, SyntheticWeights, load_in_pieces};
use backstop_proof::host::HostDevice;
use backstop_types::SamplingParams;
use backstop_weights::{Checkpoint, Manifest};
use common::{Drive, Request, drive_with, repository};

/// An H100 with 80 GB, and what is free of it when the driver has taken its part.
fn h100() -> (DeviceFacts, u64) {
    let facts = DeviceFacts {
        name: "H100".into(),
        multiprocessors: 132,
        memory_bytes: 81_079 << 20,
        driver: String::new(),
    };
    (facts, 80_400 << 20)
}

fn request() -> CudaRequest {
    CudaRequest {
        max_num_seqs: 256,
        max_num_batched_tokens: 8192,
        max_model_len: 320_000,
        block_size: 16,
        kv_element: Element::BF16,
        kv_cache_bytes: None,
        memory_utilization: 0.92,
        graphs: true,
    }
}

fn model(checkpoint: &Checkpoint) -> AnyModel {
    backstop_arch::build(checkpoint.config()).unwrap_or_else(|error| panic!("{error}"))
}

/// North Mini Code's shape.
fn shape(name: &str) -> (Checkpoint, AnyModel, DeviceWeightPlan) {
    let config = repository(&format!("models/shapes/{name}.json"));
    let checkpoint = Checkpoint::open_shape(&config, &repository("models/demo"), &[]);
    let checkpoint = checkpoint.expect("a shape");
    let model = model(&checkpoint);
    let weights = SyntheticWeights::new(&checkpoint, model.spec(), 0).expect("a scheme");
    let plan = DeviceWeightPlan::of_synthetic(&weights, model.spec());
    (checkpoint, model, plan)
}

#[test]
fn north_mini_code_fits_an_h100_with_the_defaults() {
    let (facts, free) = h100();
    for (name, kv_bytes_min) in [
        ("north-mini-code-fp8", 36 << 30),
        ("north-mini-code", 9 << 30),
    ] {
        let (_, model, weights) = shape(name);
        let weights_bytes = weights.bytes();
        let plan = CudaPlan::new(&facts, free, &model, weights, request());
        let plan = plan.unwrap_or_else(|error| panic!("{name}: {error}"));
        let used = weights_bytes + plan.work_bytes() + plan.kv.bytes;
        assert!(used <= facts.memory_bytes * 92 / 100, "{name}: {used}");
        assert!(plan.kv.bytes >= kv_bytes_min, "{name}: {}", plan.kv.bytes);
        assert!(plan.work_bytes() < 6 << 30, "{name}: {}", plan.work_bytes());
    }
}

#[test]
fn what_there_are_no_kernels_for_is_refused_before_memory_is_taken() {
    let (facts, free) = h100();
    let (_, model, weights) = shape("north-mini-code-fp8");
    let odd = CudaRequest {
        block_size: 24,
        ..request()
    };
    let error = CudaPlan::new(&facts, free, &model, weights, odd).expect_err("blocks of 24");
    let text = error.to_string();
    assert!(
        text.contains("blocks of 24") && text.contains("--device cpu"),
        "{text}"
    );
}

#[test]
fn other_architectures_fit_an_h100_if_their_weights_do() {
    let (facts, free) = h100();
    for (name, fits) in [
        ("llama_3_1_8b", true),
        ("qwen2_5_coder_7b", true),
        ("qwen3_coder_30b_a3b", true),
        ("mixtral_8x7b", false),
    ] {
        let config = repository(&format!("crates/arch/tests/published/{name}.json"));
        let checkpoint = Checkpoint::open_shape(&config, &repository("models/demo"), &[]);
        let checkpoint = checkpoint.expect("a shape");
        let model = model(&checkpoint);
        let weights = SyntheticWeights::new(&checkpoint, model.spec(), 0).expect("a scheme");
        let weights = DeviceWeightPlan::of_synthetic(&weights, model.spec());
        let request = CudaRequest {
            max_model_len: 32_768,
            ..request()
        };
        match CudaPlan::new(&facts, free, &model, weights, request) {
            Ok(plan) => assert!(fits && plan.kv.bytes > 4 << 30, "{name}: {}", plan.kv.bytes),
            Err(error) => assert!(
                !fits && matches!(error, CudaPlanError::Memory(_)),
                "{name}: {error}"
            ),
        }
    }
}

#[test]
fn a_model_without_kernels_is_refused_with_all_that_is_missing() {
    for (name, missing) in [
        (
            "glm4_moe_lite",
            &[
                "latent attention",
                "norms between products",
                "attention heads of",
            ][..],
        ),
        (
            "glm_moe_dsa_selecting",
            &["latent attention", "sparse attention"],
        ),
        (
            "deepseek_v3_yarn",
            &[
                "latent attention",
                "routers with corrected scores",
                "groups of experts",
            ],
        ),
        (
            "gpt_oss_bf16",
            &[
                "attention sinks",
                "routers with biases",
                "experts with biases and clamped",
            ],
        ),
    ] {
        let text = refusal(&repository("tests/goldens/decoders").join(name));
        for missing in missing {
            assert!(text.contains(missing), "{name} has no {missing}: {text}");
        }
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

/// Why the card does not compute the model of a checkpoint.
fn refusal(directory: &Path) -> String {
    let checkpoint = Checkpoint::open(directory, &[]).expect("a checkpoint");
    let refused = ABILITIES.check(&model(&checkpoint).needs());
    let refusal = refused
        .expect_err("more than the card computes")
        .to_string();
    assert!(
        refusal.starts_with("the GPU has no kernels for "),
        "{refusal}"
    );
    refusal
}

#[test]
fn what_there_are_kernels_for_is_not_refused() {
    for name in [
        "cohere2_moe/head_dim_128_fp8_sharded",
        "decoders/granite_multiplied",
        "decoders/qwen3_moe_dense_first",
        "decoders/qwen2_tied_yarn",
        "decoders/smollm3_sliding",
    ] {
        let checkpoint = Checkpoint::open(&repository("tests/goldens").join(name), &[]);
        let model = model(&checkpoint.expect("a checkpoint"));
        assert_eq!(ABILITIES.check(&model.needs()), Ok(()), "{name}");
    }
}

#[test]
fn a_refused_model_is_refused_before_anything_is_planned() {
    let (facts, free) = h100();
    let directory = repository("tests/goldens/decoders/glm4_moe_lite");
    let checkpoint = Checkpoint::open(&directory, &[]).expect("a checkpoint");
    let model = model(&checkpoint);
    let weights = DeviceWeightPlan::of_checkpoint(&checkpoint, model.spec()).expect("a plan");
    let error = CudaPlan::new(&facts, free, &model, weights, request());
    let text = error.expect_err("latent attention").to_string();
    assert!(
        text.contains("latent attention") && text.contains("--device cpu"),
        "{text}"
    );
}

#[test]
fn experts_without_kernels_are_refused_by_their_weights_too() {
    for name in ["gpt_oss_bf16", "gpt_oss_mxfp4"] {
        let directory = repository("tests/goldens/decoders").join(name);
        let checkpoint = Checkpoint::open(&directory, &[]).expect("a checkpoint");
        let model = model(&checkpoint);
        let error = DeviceWeightPlan::of_checkpoint(&checkpoint, model.spec());
        let text = error.expect_err("gpt-oss").to_string();
        assert!(
            text.contains("experts with biases") && text.contains("--device cpu"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn a_planned_and_loaded_model_gives_the_recorded_answer() {
    let directory = repository("models/demo");
    let manifest = Manifest::read(&repository("models/demo.toml")).expect("a manifest");
    let canary = manifest.canary.expect("a recorded answer");
    let device: Arc<dyn Device> = HostDevice::for_tests().unwrap_or_else(|error| panic!("{error}"));
    let checkpoint = Checkpoint::open(&directory, &[]).expect("a checkpoint");
    let model = model(&checkpoint);
    let weights = DeviceWeightPlan::of_checkpoint(&checkpoint, model.spec()).expect("a plan");
    let request = CudaRequest {
        max_num_seqs: 2,
        max_num_batched_tokens: 64,
        max_model_len: 1024,
        ..request()
    };
    let free = device.free_bytes().expect("a number");
    let plan = CudaPlan::new(device.facts(), free, &model, weights, request);
    let plan = plan.unwrap_or_else(|error| panic!("{error}"));
    let kv = plan.kv.spec.clone();
    let executor = plan.start(&device, Box::new(model), |spec, weights| {
        load_in_pieces(&checkpoint, spec, weights, 1 << 20, &|_| {})
    });
    let mut executor = executor.unwrap_or_else(|error| panic!("{error}"));
    let drive = Drive {
        block_size: 16,
        blocks: 0,
        max_num_seqs: 2,
        max_num_batched_tokens: 64,
        enable_prefix_caching: true,
        num_threads: 1,
        speculation: None,
    };
    let request = Request {
        prompt: canary.prompt_tokens,
        sampling: SamplingParams {
            temperature: 0.0,
            logprobs: Some(0),
            ..SamplingParams::default()
        },
        max_tokens: canary.tokens.len() as u32,
        min_tokens: 0,
        stop_token_ids: Vec::new(),
    };
    let driven = drive_with(&mut executor, &kv, &drive, &[vec![request]]);
    let tokens: Vec<u32> = driven.tokens[0].iter().map(|token| token.id).collect();
    assert_eq!(tokens, canary.tokens);
    for (token, expected) in driven.tokens[0].iter().zip(&canary.logprobs) {
        let found = token.logprobs.as_ref().expect("asked for").logprob;
        let off = (found - expected).abs();
        assert!(
            off <= canary.tolerance,
            "{}: {found}, not {expected}",
            token.id
        );
    }
}
