//! Checkpoints with more tensors than their models read, with heads that are not the embedding, and with an index of
//! files that are gone: those that are served answer as if nothing were.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backstop_arch::gguf_families;
use backstop_loader::{Fitted, fit, load_cpu_weights};
use backstop_weights::Checkpoint;
use common::{Drive, Request, drive, load, repository};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

/// Type, shape and bytes of tensors, by name.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

const PLAIN: &str = "tests/goldens/decoders/llama_f32";
const TIED: &str = "tests/goldens/decoders/llama_scaled_tied";

fn tensors_of(golden: &str) -> Tensors {
    let path = repository(golden).join("model.safetensors");
    let bytes = std::fs::read(path).expect("a golden");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let tensors = file.tensors().into_iter();
    let tensors = tensors.map(|(name, view)| {
        let shape = view.shape().to_vec();
        (name, (view.dtype(), shape, view.data().to_vec()))
    });
    tensors.collect()
}

fn zeros(shape: &[usize]) -> (Dtype, Vec<usize>, Vec<u8>) {
    let bytes = 4 * shape.iter().product::<usize>();
    (Dtype::F32, shape.to_vec(), vec![0; bytes])
}

fn write_file(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).expect("a tensor");
        (name, view)
    });
    let bytes = safetensors::serialize(views, None).expect("serialised");
    std::fs::write(path, bytes).expect("written");
}

/// A checkpoint with the configuration of a golden, in a directory of its own.
fn write(name: &str, golden: &str, tensors: &Tensors) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ignored = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("a directory");
    let config = repository(golden).join("config.json");
    std::fs::copy(config, directory.join("config.json")).expect("a copy");
    write_file(&directory.join("model.safetensors"), tensors);
    directory
}

/// Replaces the file by two, and an index by another: `change` may make it say something else.
fn shard(
    directory: &Path,
    tensors: &Tensors,
    change: impl Fn(&mut serde_json::Map<String, Value>),
) {
    std::fs::remove_file(directory.join("model.safetensors")).expect("removed");
    let mut map = serde_json::Map::new();
    let (first, second): (Tensors, Tensors) = tensors
        .clone()
        .into_iter()
        .partition(|(name, _)| name.starts_with("model.layers.0."));
    for (name, tensors) in [("one.safetensors", first), ("two.safetensors", second)] {
        write_file(&directory.join(name), &tensors);
        map.extend(tensors.into_keys().map(|tensor| (tensor, name.into())));
    }
    change(&mut map);
    let index = json!({ "weight_map": map }).to_string();
    std::fs::write(directory.join("model.safetensors.index.json"), index).expect("written");
}

/// What is said of a checkpoint that fits.
fn warnings(directory: &Path) -> Vec<String> {
    let (checkpoint, Fitted { model, warnings }) = fitted(directory);
    let loaded = load_cpu_weights(&checkpoint, model.spec(), &|_| {});
    loaded.unwrap_or_else(|error| panic!("{error}"));
    warnings
}

/// Why a checkpoint is not loaded.
fn refusal(directory: &Path) -> String {
    let (checkpoint, Fitted { model, .. }) = fitted(directory);
    let loaded = load_cpu_weights(&checkpoint, model.spec(), &|_| {});
    loaded.expect_err("a refusal").to_string()
}

fn fitted(directory: &Path) -> (Checkpoint, Fitted) {
    let checkpoint = Checkpoint::open(directory, &gguf_families());
    let mut checkpoint = checkpoint.unwrap_or_else(|error| panic!("{error}"));
    let fitted = fit(&mut checkpoint).unwrap_or_else(|error| panic!("{error}"));
    (checkpoint, fitted)
}

/// The log-probabilities of a text, each behind all before it.
fn ratings(directory: &Path) -> Vec<f32> {
    let settings = Drive {
        block_size: 16,
        blocks: 8,
        max_num_seqs: 1,
        max_num_batched_tokens: 64,
        enable_prefix_caching: false,
        num_threads: 1,
        speculation: None,
    };
    let request = Request {
        prompt: (3..40).collect(),
        sampling: backstop_types::SamplingParams {
            temperature: 0.0,
            prompt_logprobs: Some(0),
            ..backstop_types::SamplingParams::default()
        },
        max_tokens: 1,
        min_tokens: 0,
        stop_token_ids: Vec::new(),
    };
    let driven = drive(&load(directory), &settings, &[vec![request]]);
    let rated = driven.prompt_logprobs[0].iter();
    rated.map(|rated| rated.logprob).collect()
}

#[test]
fn tensors_that_no_forward_pass_reads_change_nothing_and_are_told_once() {
    let mut tensors = tensors_of(PLAIN);
    let plain = write("fit_plain", PLAIN, &tensors);
    assert_eq!(warnings(&plain), Vec::<String>::new());
    for (name, shape) in [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", vec![6]),
        ("model.layers.1.self_attn.rotary_emb.inv_freq", vec![6]),
        ("model.layers.2.eh_proj.weight", vec![48, 96]),
        ("vision_tower.patch_embed.weight", vec![3]),
    ] {
        tensors.insert(name.to_owned(), zeros(&shape));
    }
    let with_more = write("fit_more", PLAIN, &tensors);
    let [warning] = warnings(&with_more).try_into().expect("one warning");
    for part in [
        "4 tensors of 18492 bytes",
        "tables of rotary embeddings: 2",
        "layers beyond num_hidden_layers: 1",
        "encoders of images, video or sound: 1",
    ] {
        assert!(warning.contains(part), "{warning}");
    }
    assert_eq!(ratings(&plain), ratings(&with_more));
}

#[test]
fn a_weight_within_a_layer_that_the_family_does_not_add_is_refused_by_name() {
    let mut tensors = tensors_of(PLAIN);
    let name = "model.layers.0.self_attn.q_proj.bias";
    tensors.insert(name.to_owned(), zeros(&[48]));
    let message = refusal(&write("fit_bias", PLAIN, &tensors));
    assert!(
        message.contains(&format!("1 not expected: {name}")),
        "{message}"
    );
}

#[test]
fn a_copy_of_the_embedding_as_the_head_is_passed_over() {
    let mut tensors = tensors_of(TIED);
    let plain = write("fit_tied", TIED, &tensors);
    let embedding = tensors["model.embed_tokens.weight"].clone();
    tensors.insert("lm_head.weight".to_owned(), embedding.clone());
    let copied = write("fit_copied", TIED, &tensors);
    let [warning] = warnings(&copied).try_into().expect("one warning");
    assert!(
        warning.contains("copies of the embedding as the head: 1"),
        "{warning}"
    );
    tensors.remove("model.embed_tokens.weight");
    let head_alone = write("fit_head_alone", TIED, &tensors);
    assert_eq!(warnings(&head_alone), Vec::<String>::new());
    for other in [copied, head_alone] {
        assert_eq!(ratings(&plain), ratings(&other));
    }
}

#[test]
fn a_head_that_differs_from_the_embedding_is_computed_with() {
    let mut tensors = tensors_of(TIED);
    let plain = write("fit_still_tied", TIED, &tensors);
    let (dtype, shape, mut bytes) = tensors["model.embed_tokens.weight"].clone();
    // Twice each number, in BF16: one more in the exponent.
    for number in bytes.as_chunks_mut::<2>().0 {
        let doubled = u16::from_le_bytes(*number) + (1 << 7);
        *number = doubled.to_le_bytes();
    }
    tensors.insert("lm_head.weight".to_owned(), (dtype, shape, bytes));
    let untied = write("fit_untied", TIED, &tensors);
    let [warning] = warnings(&untied).try_into().expect("one warning");
    for part in ["tie_word_embeddings", "lm_head.weight", "differ"] {
        assert!(warning.contains(part), "{warning}");
    }
    assert_ne!(ratings(&plain), ratings(&untied));
    let (_, shape, _) = &mut tensors.get_mut("lm_head.weight").expect("it was added");
    *shape = vec![shape[0] / 2, shape[1] * 2];
    let bent = write("fit_bent", TIED, &tensors);
    let message = refusal(&bent);
    assert!(
        message.contains("1 of another shape: lm_head.weight"),
        "{message}"
    );
}

#[test]
fn an_index_of_files_that_are_gone_matters_where_the_model_reads_them() {
    let tensors = tensors_of(PLAIN);
    let directory = write("fit_index", PLAIN, &tensors);
    let whole = ratings(&directory);
    shard(&directory, &tensors, |map| {
        map.insert("vision_tower.weight".to_owned(), "three.safetensors".into());
        map.remove("model.norm.weight");
    });
    let [warning] = warnings(&directory).try_into().expect("one warning");
    for part in [
        "files that are absent: 1 (three.safetensors)",
        "not in it: 1",
    ] {
        assert!(warning.contains(part), "{warning}");
    }
    assert_eq!(ratings(&directory), whole);
    std::fs::remove_file(directory.join("one.safetensors")).expect("removed");
    let message = refusal(&directory);
    let named = "model.layers.0.input_layernorm.weight (one.safetensors, where model.safetensors.index.json has it, is absent)";
    assert!(message.contains(named), "{message}");
}
