//! From a plan of a device's memory to answers: cards by the host executor, and the CPU.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backstop_arch::gguf_families;
use backstop_card::planning::PlanningDevice;
use backstop_card::{Device, DeviceFacts};
use backstop_executor::{ComputeDevice, ModelSource, Plan, PlanError, PlanRequest, PlannedBytes};
use backstop_kernels::Element;
use backstop_loader::SyntheticWeights;
use backstop_models::{Canary, Manifest};
use backstop_proof::host::HostDevice;
use backstop_types::{Executor, SampledToken, SamplingParams, SleepLevel};
use backstop_weights::Checkpoint;
use common::{Drive, Request, drive_with, fitted, model, repository};

const H100_BYTES: u64 = 81_079 << 20;

/// An H100 with 80 GB, of which the driver has taken its part.
fn h100() -> ComputeDevice {
    let facts = DeviceFacts {
        name: "H100".into(),
        multiprocessors: 132,
        memory_bytes: H100_BYTES,
        driver: String::new(),
    };
    ComputeDevice::Cuda(Arc::new(
        PlanningDevice::new(facts).with_free_bytes(80_400 << 20),
    ))
}

fn request() -> PlanRequest {
    PlanRequest {
        max_num_seqs: 256,
        max_num_batched_tokens: 8192,
        max_model_len: 320_000,
        block_size: 16,
        kv_element: Element::BF16,
        kv_cache_bytes: None,
        num_threads: 1,
        memory_utilization: 0.92,
        graphs: true,
    }
}

/// A model with its weights.
fn checkpoint(path: &str) -> ModelSource {
    let opened = Checkpoint::open(&repository(path), &gguf_families());
    let mut checkpoint = opened.expect("a checkpoint");
    ModelSource {
        model: fitted(&mut checkpoint),
        checkpoint,
        synthetic: None,
    }
}

/// A model of this shape, with weights that are made.
fn shape(config: &str) -> ModelSource {
    let checkpoint = Checkpoint::open_shape(&repository(config), &repository("models/demo"), &[]);
    let checkpoint = checkpoint.expect("a shape");
    let model = model(&checkpoint);
    let synthetic = SyntheticWeights::new(&checkpoint, model.spec(), 0).expect("a scheme");
    ModelSource {
        model,
        checkpoint,
        synthetic: Some(synthetic),
    }
}

fn plan(source: &ModelSource, request: &PlanRequest) -> Result<PlannedBytes, PlanError> {
    Plan::new(&h100(), source, request, None).map(|plan| plan.bytes())
}

#[test]
fn north_mini_code_fits_an_h100_with_the_defaults() {
    for (name, kv_bytes_min) in [
        ("north-mini-code-fp8", 36 << 30),
        ("north-mini-code", 9 << 30),
    ] {
        let bytes = plan(&shape(&format!("models/shapes/{name}.json")), &request());
        let bytes = bytes.unwrap_or_else(|error| panic!("{name}: {error}"));
        let work = bytes.work.expect("sized beforehand");
        let used = bytes.weights + work + bytes.kv;
        assert!(used <= H100_BYTES * 92 / 100, "{name}: {used}");
        assert!(bytes.kv >= kv_bytes_min, "{name}: {bytes:?}");
        assert!(work < 6 << 30, "{name}: {work}");
    }
}

#[test]
fn other_architectures_fit_an_h100_if_their_weights_do() {
    for (name, fits) in [
        ("llama_3_1_8b", true),
        ("qwen2_5_coder_7b", true),
        ("qwen3_coder_30b_a3b", true),
        ("mixtral_8x7b", false),
    ] {
        let source = shape(&format!("crates/arch/tests/published/{name}.json"));
        let request = PlanRequest {
            max_model_len: 32_768,
            ..request()
        };
        match plan(&source, &request) {
            Ok(bytes) => assert!(fits && bytes.kv > 4 << 30, "{name}: {bytes:?}"),
            Err(error) => assert!(
                !fits && matches!(error, PlanError::DeviceMemory(_)),
                "{name}: {error}"
            ),
        }
    }
}

/// Why an H100 does not compute the model of a golden, whatever the settings.
fn refusal(name: &str) -> String {
    let source = checkpoint(&format!("tests/goldens/{name}"));
    match plan(&source, &request()) {
        Err(error @ PlanError::Model(_)) => error.to_string(),
        Err(error) => panic!("{name} is refused for another reason: {error}"),
        Ok(_) => panic!("{name} is not refused"),
    }
}

#[test]
fn a_model_without_kernels_is_refused_with_all_that_is_missing() {
    for (name, missing) in [
        (
            "decoders/glm4_moe_lite",
            &[
                "latent attention",
                "norms between products",
                "attention heads of",
            ][..],
        ),
        (
            "decoders/glm_moe_dsa_selecting",
            &["latent attention", "sparse attention"],
        ),
        (
            "decoders/deepseek_v3_yarn",
            &[
                "latent attention",
                "routers with corrected scores",
                "groups of experts",
            ],
        ),
        (
            "decoders/gpt_oss_bf16",
            &[
                "attention sinks",
                "routers with biases",
                "experts with biases and clamped",
            ],
        ),
        (
            "decoders/gpt_oss_mxfp4",
            &["experts with biases and clamped"],
        ),
        ("quantized/f16", &["in F16", "but for matrices in BF16"]),
        ("quantized/int4_experts", &["in INT4"]),
        ("quantized/fp8_blocks", &["in FP8 with a scale for each"]),
        ("gguf/mixed_llama", &["but for matrices in BF16"]),
    ] {
        let text = refusal(name);
        assert!(
            text.starts_with("the GPU has no kernels for "),
            "{name}: {text}"
        );
        assert!(text.ends_with(": choose --device cpu"), "{name}: {text}");
        for missing in missing {
            assert!(text.contains(missing), "{name} has no {missing}: {text}");
        }
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn what_there_are_kernels_for_is_planned() {
    for name in [
        "cohere2_moe/head_dim_128_fp8_sharded",
        "decoders/granite_multiplied",
        "decoders/qwen2_tied_yarn",
        "decoders/qwen3_moe_dense_first",
        "decoders/smollm3_sliding",
    ] {
        let source = checkpoint(&format!("tests/goldens/{name}"));
        plan(&source, &request()).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn a_cache_without_kernels_is_refused_with_the_settings_to_change() {
    let source = shape("models/shapes/north-mini-code-fp8.json");
    for (odd, reason) in [
        (
            PlanRequest {
                block_size: 24,
                ..request()
            },
            "blocks of 24",
        ),
        (
            PlanRequest {
                kv_element: Element::F32,
                ..request()
            },
            "a KV cache in F32",
        ),
    ] {
        let text = plan(&source, &odd).expect_err("odd").to_string();
        assert!(text.contains(reason), "{text}");
        assert!(text.contains("--block-size, or --device cpu"), "{text}");
    }
}

#[test]
fn what_no_setting_helps_is_said_before_what_one_does() {
    let source = checkpoint("tests/goldens/quantized/int4_channel");
    let odd = PlanRequest {
        kv_element: Element::F32,
        ..request()
    };
    let error = plan(&source, &odd).expect_err("INT4, and a cache in F32");
    assert!(matches!(error, PlanError::Model(_)), "{error}");
}

#[test]
fn the_cpu_computes_whatever_the_card_does_not() {
    let cpu = ComputeDevice::Cpu {
        free_bytes: Some(1 << 30),
    };
    let request = PlanRequest {
        max_num_seqs: 2,
        max_model_len: 64,
        ..request()
    };
    for name in [
        "decoders/glm_moe_dsa_selecting",
        "decoders/gpt_oss_mxfp4",
        "cohere2_moe/f32",
    ] {
        let source = checkpoint(&format!("tests/goldens/{name}"));
        let plan = Plan::new(&cpu, &source, &request, None);
        let bytes = plan
            .unwrap_or_else(|error| panic!("{name}: {error}"))
            .bytes();
        assert_eq!(bytes.weights, source.checkpoint.bytes_total(), "{name}");
        assert_eq!(bytes.work, None, "{name}");
    }
}

#[test]
fn the_cache_of_the_cpu_takes_a_share_of_what_is_free_and_what_is_asked_for_is_kept_or_refused() {
    let source = checkpoint("models/demo");
    let weights = source.checkpoint.bytes_total();
    let bytes = |free_bytes: u64, kv_cache_bytes| {
        let cpu = ComputeDevice::Cpu {
            free_bytes: Some(free_bytes),
        };
        let request = PlanRequest {
            max_model_len: 1024,
            kv_cache_bytes,
            ..request()
        };
        Plan::new(&cpu, &source, &request, None).map(|plan| plan.bytes().kv)
    };
    let share = bytes(1 << 30, None).expect("a share");
    assert!((1 << 27..=1 << 28).contains(&share), "{share}");
    let asked = bytes(1 << 30, Some(1 << 28)).expect("room");
    assert!((1 << 27..=1 << 28).contains(&asked), "{asked}");
    let refused = |free_bytes, asked: u64| {
        bytes(free_bytes, Some(asked))
            .expect_err("too much")
            .to_string()
    };
    let text = refused(1 << 20, 1 << 21);
    assert!(
        text.contains("--kv-cache-memory 2.0 MiB is more than"),
        "{text}"
    );
    let text = refused(weights + (1 << 20), 1 << 20);
    assert!(!text.contains("more than the machine has free"), "{text}");
}

/// A small server's sizes.
fn small() -> PlanRequest {
    PlanRequest {
        max_num_seqs: 2,
        max_num_batched_tokens: 64,
        max_model_len: 1024,
        kv_cache_bytes: Some(1 << 20),
        ..request()
    }
}

fn started(device: &ComputeDevice, source: ModelSource) -> Box<dyn Executor> {
    let plan = Plan::new(device, &source, &small(), None);
    let plan = plan.unwrap_or_else(|error| panic!("{error}"));
    let executor = plan.start(source, &|_, _, _| {});
    executor.unwrap_or_else(|error| panic!("{error}"))
}

/// The answer to the demo model's recorded prompt.
fn answer(executor: &mut dyn Executor, canary: &Canary) -> Vec<SampledToken> {
    let kv = executor.kv_spec().clone();
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
        prompt: canary.prompt_tokens.clone(),
        sampling: SamplingParams {
            temperature: 0.0,
            logprobs: Some(0),
            ..SamplingParams::default()
        },
        max_tokens: canary.tokens.len() as u32,
        min_tokens: 0,
        stop_token_ids: Vec::new(),
    };
    let mut driven = drive_with(executor, &kv, &drive, &[vec![request]]);
    driven.tokens.remove(0)
}

fn demo_canary() -> Canary {
    let manifest = Manifest::read(&repository("models/demo.toml")).expect("a manifest");
    manifest.canary.expect("a recorded answer")
}

fn host_device() -> Arc<dyn Device> {
    HostDevice::for_tests().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_planned_and_loaded_model_gives_the_recorded_answer() {
    let canary = demo_canary();
    let device = ComputeDevice::Cuda(host_device());
    let mut executor = started(&device, checkpoint("models/demo"));
    let tokens = answer(&mut *executor, &canary);
    let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
    assert_eq!(ids, canary.tokens);
    for (token, expected) in tokens.iter().zip(&canary.logprobs) {
        let found = token.logprobs.as_ref().expect("asked for").logprob;
        let off = (found - expected).abs();
        assert!(
            off <= canary.tolerance,
            "{}: {found}, not {expected}",
            token.id
        );
    }
}

#[test]
fn what_slept_gives_the_same_answer_to_the_last_bit() {
    let canary = demo_canary();
    let cpu = ComputeDevice::Cpu { free_bytes: None };
    for device in [cpu, ComputeDevice::Cuda(host_device())] {
        let mut executor = started(&device, checkpoint("models/demo"));
        let before = answer(&mut *executor, &canary);
        for level in [
            SleepLevel::KeepWeights,
            SleepLevel::DropWeights,
            SleepLevel::KeepWeights,
        ] {
            executor.sleep(level).expect("asleep");
            assert!(executor.sleep(level).is_err(), "twice");
            let told = AtomicU64::new(0);
            let progress = |done, _| told.store(done, Ordering::Relaxed);
            executor.wake(&progress).expect("awake");
            assert!(executor.wake(&progress).is_err(), "twice");
            let is_read = level == SleepLevel::DropWeights;
            assert!(!is_read || told.load(Ordering::Relaxed) > 0, "no progress");
            assert_eq!(answer(&mut *executor, &canary), before, "{level:?}");
        }
    }
}

#[test]
fn a_card_that_sleeps_holds_no_memory() {
    let device = host_device();
    let free = || device.free_bytes().expect("a device");
    let before = free();
    let mut executor = started(
        &ComputeDevice::Cuda(Arc::clone(&device)),
        checkpoint("models/demo"),
    );
    let loaded = free();
    assert!(loaded < before, "{loaded} of {before}");
    for _ in 0..3 {
        executor.sleep(SleepLevel::KeepWeights).expect("asleep");
        assert_eq!(free(), before, "bytes that sleeping left");
        executor.wake(&|_, _| {}).expect("awake");
        assert_eq!(free(), loaded, "bytes after waking");
    }
}

#[test]
fn weights_that_are_cut_off_leave_the_executor_asleep() {
    let directory = std::env::temp_dir().join(format!("backstop-cut-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let weights = directory.join("model.safetensors");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        let from = repository("models/demo").join(file);
        std::fs::copy(from, directory.join(file)).expect("a copy");
    }
    let cpu = ComputeDevice::Cpu { free_bytes: None };
    let mut executor = started(&cpu, checkpoint(&directory.to_string_lossy()));
    let before = answer(&mut *executor, &demo_canary());
    executor.sleep(SleepLevel::DropWeights).expect("asleep");
    let whole = std::fs::read(&weights).expect("weights");
    std::fs::write(&weights, &whole[..whole.len() / 2]).expect("cut off");
    let error = executor.wake(&|_, _| {}).expect_err("half the weights");
    assert!(error.contains("model.safetensors"), "{error}");
    std::fs::write(&weights, &whole).expect("whole again");
    executor.wake(&|_, _| {}).expect("awake");
    assert_eq!(answer(&mut *executor, &demo_canary()), before);
    std::fs::remove_dir_all(directory).expect("removed");
}
