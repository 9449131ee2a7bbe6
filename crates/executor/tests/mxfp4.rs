//! Experts in MXFP4, as gpt-oss stores them: what damaged or contradictory files are refused for,
//! and that progress is told of every byte.

mod common;

use std::path::PathBuf;
use std::sync::Mutex;

use backstop_loader::load_cpu_weights;
use backstop_weights::Checkpoint;
use common::{model, repository};
use serde_json::Value;

const SCALES: &str = "model.layers.1.mlp.experts.down_proj_scales";

/// A copy of the golden checkpoint, with its configuration and its weight file changed.
fn copy(
    name: &str,
    change_config: impl Fn(&mut Value),
    change_weights: impl Fn(&mut Vec<u8>),
) -> PathBuf {
    let golden = repository("tests/goldens/decoders/gpt_oss_mxfp4");
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&directory).expect("a directory");
    let config = std::fs::read(golden.join("config.json")).expect("a golden");
    let mut config = serde_json::from_slice(&config).expect("JSON");
    change_config(&mut config);
    std::fs::write(directory.join("config.json"), config.to_string()).expect("written");
    let mut weights = std::fs::read(golden.join("model.safetensors")).expect("a golden");
    change_weights(&mut weights);
    std::fs::write(directory.join("model.safetensors"), weights).expect("written");
    directory
}

fn load(directory: &std::path::Path) -> Result<(), String> {
    let checkpoint = Checkpoint::open(directory, &[]).map_err(|error| error.to_string())?;
    let model = model(&checkpoint);
    let loaded = load_cpu_weights(&checkpoint, model.spec(), &|_| {});
    loaded.map(|_| ()).map_err(|error| error.to_string())
}

/// Sets one scale of the last layer.
fn set_scale(weights: &mut [u8], index: usize, scale: u8) {
    let header_len = u64::from_le_bytes(weights[..8].try_into().expect("8 bytes")) as usize;
    let header: Value = serde_json::from_slice(&weights[8..][..header_len]).expect("a header");
    let start = header[SCALES]["data_offsets"][0].as_u64();
    let start = start.expect("an offset") as usize;
    weights[8 + header_len + start + index] = scale;
}

#[test]
fn scales_that_make_infinities_are_refused_by_name_and_place() {
    for (scale, refused) in [(0, false), (252, false), (253, true), (255, true)] {
        let directory = copy(
            &format!("scale_{scale}"),
            |_| {},
            |weights| set_scale(weights, 205, scale),
        );
        match load(&directory) {
            Ok(()) => assert!(!refused, "{scale}"),
            Err(error) => assert!(
                refused && error.contains(SCALES) && error.contains("element 205"),
                "{scale}: {error}"
            ),
        }
    }
}

#[test]
fn blocks_that_the_configuration_does_not_speak_of_are_refused() {
    let directory = copy(
        "without_quantization",
        |config| config["quantization_config"] = Value::Null,
        |_| {},
    );
    let error = load(&directory).expect_err("contradictory");
    assert!(
        error.contains("_blocks holds MXFP4 blocks but the configuration does not say so"),
        "{error}"
    );
}

#[test]
fn progress_reaches_the_size_of_the_checkpoint_and_never_goes_beyond() {
    let checkpoint = Checkpoint::open(&repository("tests/goldens/decoders/gpt_oss_mxfp4"), &[]);
    let checkpoint = checkpoint.expect("a golden");
    let told = Mutex::new(Vec::new());
    let model = model(&checkpoint);
    load_cpu_weights(&checkpoint, model.spec(), &|bytes| {
        told.lock().expect("not poisoned").push(bytes);
    })
    .expect("a golden");
    let told = told.into_inner().expect("not poisoned");
    assert_eq!(told.iter().max(), Some(&checkpoint.bytes_total()));
}
