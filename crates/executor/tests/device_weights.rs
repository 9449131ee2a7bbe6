//! Weights on a device, which the host executor stands in for, against the same on the CPU.

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use backstop_arch::ModelSpec;
use backstop_card::staging::{WeightNumbers, WeightRows};
use backstop_card::{CudaWeights, Device};
use backstop_kernels::{CpuWeights, ExpertsId, MatrixId, VectorId};
use backstop_loader::{DeviceWeightPlan, SyntheticWeights, load_in_pieces};
use backstop_proof::host::HostDevice;
use backstop_weights::Checkpoint;
use common::{load, model, repository};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// Checkpoints of all forms that a device takes: packed and not, BF16 and FP8 with scales of both
/// formats for rows and for tensors, one file and several, with shared experts and dense layers.
const CHECKPOINTS: &[&str] = &[
    "models/demo",
    "tests/goldens/cohere2_moe/north_fp8",
    "tests/goldens/cohere2_moe/north_bf16_sharded",
    "tests/goldens/cohere2_moe/packed_bf16_sharded",
    "tests/goldens/cohere2_moe/head_dim_128_fp8_sharded",
    "tests/goldens/cohere2_moe/shared_two_average_fp8",
    "tests/goldens/cohere2_moe/tied_with_copy_short",
    "tests/goldens/decoders/llama_linear_biased",
    "tests/goldens/decoders/mixtral_window",
    "tests/goldens/quantized/fp8_tensor_token_experts",
];

fn device() -> Arc<dyn Device> {
    HostDevice::for_tests().unwrap_or_else(|error| panic!("{error}"))
}

/// Every number on the device is what the CPU has.
fn assert_same(name: &str, spec: &ModelSpec, device: &CudaWeights, host: &CpuWeights) {
    let rows = |target| device.read_rows(target).expect("tiles");
    let numbers = |target, len| device.read_numbers(target, len).expect("numbers");
    for (index, vector) in host.vectors().iter().enumerate() {
        let target = WeightNumbers::Vector(VectorId(index as u32));
        assert!(
            &numbers(target, vector.len()) == vector,
            "{name}: {target:?}"
        );
    }
    for (index, matrix) in host.matrices().iter().enumerate() {
        let target = WeightRows::Matrix(MatrixId(index as u32));
        assert!(matrix.view().bytes() == rows(target), "{name}: {target:?}");
    }
    for (index, experts) in host.experts().iter().enumerate() {
        let id = ExpertsId(index as u32);
        let [gate_up, down] = [WeightRows::GateUp(id), WeightRows::Down(id)].map(rows);
        assert!(gate_up == experts.gate_up.data.as_slice(), "{name}: {id:?}");
        assert!(down == experts.down.data.as_slice(), "{name}: {id:?}");
        if experts.gate_up.are_fp8() {
            let scales = numbers(WeightNumbers::GateUpScales(id), 0);
            assert!(scales == experts.gate_up.scales, "{name}: {id:?}");
            let scales = numbers(WeightNumbers::DownScales(id), 0);
            assert!(scales == experts.down.scales, "{name}: {id:?}");
        }
    }
    let counts = [
        host.vectors().len(),
        host.matrices().len(),
        host.experts().len(),
    ];
    let map = &spec.weights;
    assert_eq!(
        counts,
        [map.vectors.len(), map.matrices.len(), map.experts.len()]
    );
}

#[test]
fn a_device_gets_what_the_cpu_gets_however_small_the_staging_buffers_are() {
    let device = device();
    for name in CHECKPOINTS {
        let loaded = load(&repository(name));
        let model = model(&loaded.checkpoint);
        let spec = model.spec();
        let plan = DeviceWeightPlan::of_checkpoint(&loaded.checkpoint, spec).expect(name);
        for staging_bytes in [1, 5000, 1 << 30] {
            if staging_bytes == 1 && *name == "models/demo" {
                continue; // Tens of thousands of pieces.
            }
            let weights = plan.reserve(&device).expect("memory");
            assert_eq!(weights.bytes() as u64, plan.bytes());
            load_in_pieces(&loaded.checkpoint, spec, &weights, staging_bytes, &|_| {})
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_same(name, spec, &weights, &loaded.weights);
        }
    }
}

#[test]
fn progress_ends_with_all_bytes() {
    let checkpoint = Checkpoint::open(&repository("models/demo"), &[]).expect("a checkpoint");
    let model = model(&checkpoint);
    let plan = DeviceWeightPlan::of_checkpoint(&checkpoint, model.spec()).expect("a plan");
    let weights = plan.reserve(&device()).expect("memory");
    let seen = std::sync::atomic::AtomicU64::new(0);
    let progress = |bytes| {
        seen.fetch_max(bytes, std::sync::atomic::Ordering::Relaxed);
    };
    load_in_pieces(&checkpoint, model.spec(), &weights, 1 << 20, &progress).expect("weights");
    assert_eq!(seen.into_inner(), checkpoint.bytes_total());
}

#[test]
fn f32_weights_are_refused_by_name() {
    let checkpoint = Checkpoint::open(&repository("tests/goldens/cohere2_moe/f32"), &[]);
    let checkpoint = checkpoint.expect("a checkpoint");
    let error = DeviceWeightPlan::of_checkpoint(&checkpoint, model(&checkpoint).spec());
    let text = error.expect_err("F32").to_string();
    assert!(text.contains("model.embed_tokens.weight in F32"), "{text}");
    assert!(text.contains("--device cpu"), "{text}");
}

#[test]
fn a_damaged_number_is_refused_by_name_in_whatever_piece_it_lies() {
    let scratch = std::env::temp_dir().join(format!("backstop-damaged-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).expect("a directory");
    let original = repository("models/demo");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(original.join(name), scratch.join(name)).expect("a copy");
    }
    let path: PathBuf = scratch.join("model.safetensors");
    let mut bytes = std::fs::read(&path).expect("the copy");
    let end = bytes.len();
    bytes[end - 2..].copy_from_slice(&[0xff, 0xff]);
    std::fs::write(&path, bytes).expect("the copy");

    let checkpoint = Checkpoint::open(&scratch, &[]).expect("a checkpoint");
    let model = model(&checkpoint);
    let plan = DeviceWeightPlan::of_checkpoint(&checkpoint, model.spec()).expect("a plan");
    let weights = plan.reserve(&device()).expect("memory");
    let error = load_in_pieces(&checkpoint, model.spec(), &weights, 1 << 20, &|_| {});
    let text = error.expect_err("a NaN").to_string();
    assert!(text.contains("holds a NaN"), "{text}");
    std::fs::remove_dir_all(scratch).expect("a directory");
}

#[test]
fn the_tensors_of_a_vector_may_have_different_formats() {
    let golden = repository("tests/goldens/decoders/llama_linear_biased");
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("mixed_vector");
    std::fs::create_dir_all(&scratch).expect("a directory");
    std::fs::copy(golden.join("config.json"), scratch.join("config.json")).expect("a copy");
    let bytes = std::fs::read(golden.join("model.safetensors")).expect("a golden");
    let tensors = SafeTensors::deserialize(&bytes).expect("a golden");
    // The bias of the keys, between those of queries and values.
    let name = "model.layers.0.self_attn.k_proj.bias";
    let bias = tensors.tensor(name).expect("a bias");
    let numbers = bias.data().as_chunks::<2>().0.iter();
    let wide: Vec<u8> = numbers.flat_map(|&[low, high]| [0, 0, low, high]).collect();
    let wide = TensorView::new(Dtype::F32, bias.shape().to_vec(), &wide).expect("a tensor");
    let mut tensors = tensors.tensors();
    for (other, tensor) in &mut tensors {
        if other == name {
            *tensor = wide.clone();
        }
    }
    let file = safetensors::serialize(tensors, None).expect("a file");
    std::fs::write(scratch.join("model.safetensors"), file).expect("written");
    assert_eq!(
        load(&scratch).weights.vectors(),
        load(&golden).weights.vectors()
    );
}

#[test]
fn synthetic_weights_are_the_same_on_device_and_cpu() {
    let device = device();
    for name in [
        "models/demo",
        "tests/goldens/cohere2_moe/shared_two_sum_packed",
        "tests/goldens/decoders/qwen2_tied_yarn",
        "tests/goldens/decoders/mixtral_window",
    ] {
        let directory = repository(name);
        let config = directory.join("config.json");
        let checkpoint = Checkpoint::open_shape(&config, &directory, &[]).expect("a shape");
        let model = model(&checkpoint);
        let spec = model.spec();
        let synthetic = SyntheticWeights::new(&checkpoint, spec, 17).expect("a scheme");
        let host = synthetic.make_on_cpu(spec, &|_| {});
        assert_eq!(host.bytes() as u64, synthetic.cpu_bytes(spec));
        let plan = DeviceWeightPlan::of_synthetic(&synthetic, spec);
        let weights = plan.reserve(&device).expect("memory");
        synthetic.make_on_device(spec, &weights).expect("launches");
        assert_same(name, spec, &weights, &host);
        let other = SyntheticWeights::new(&checkpoint, spec, 18).expect("a scheme");
        let other = other.make_on_cpu(spec, &|_| {});
        assert!(
            other.vectors() != host.vectors(),
            "another seed, the same weights"
        );
    }
}

#[test]
fn experts_in_formats_that_are_not_made_up_are_refused() {
    for (name, format) in [
        ("decoders/gpt_oss_mxfp4", "MXFP4"),
        ("quantized/fp8_blocks", "FP8"),
        ("quantized/int4_experts", "INT4"),
        ("quantized/nvfp4_experts", "NVFP4"),
    ] {
        let directory = repository("tests/goldens").join(name);
        let config = directory.join("config.json");
        let checkpoint = Checkpoint::open_shape(&config, &directory, &[]).expect("a shape");
        let model = model(&checkpoint);
        let error = SyntheticWeights::new(&checkpoint, model.spec(), 0).expect_err("refused");
        assert!(error.to_string().contains(format), "{name}: {error}");
    }
}

#[test]
fn north_mini_code_takes_what_arithmetic_says() {
    for (name, expected) in [
        ("north-mini-code", 60_968_607_744_u64),
        ("north-mini-code-fp8", 32_021_618_688),
    ] {
        let config = repository(&format!("models/shapes/{name}.json"));
        let checkpoint = Checkpoint::open_shape(&config, &repository("models/demo"), &[]);
        let checkpoint = checkpoint.expect("a shape");
        let model = model(&checkpoint);
        let synthetic = SyntheticWeights::new(&checkpoint, model.spec(), 0).expect("a scheme");
        let plan = DeviceWeightPlan::of_synthetic(&synthetic, model.spec());
        // Norms, and the scales of FP8, are f32 on the device and BF16 in checkpoints.
        let more = plan.bytes() - expected;
        assert!(more <= 45_000_000, "{name}: {} bytes", plan.bytes());
        assert!(
            synthetic.cpu_bytes(model.spec()) == plan.bytes(),
            "nothing needs padding"
        );
    }
}
