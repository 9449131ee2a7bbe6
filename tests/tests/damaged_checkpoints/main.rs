//! Damaged checkpoints: whatever is wrong with the files, loading ends soon, with an error or with
//! a model that computes; never with a panic, and never by asking for memory without measure.
//!
//! The mutants are tried in a process of its own whose memory is bounded, so that a runaway
//! allocation fails there instead of taking the machine with it.

mod mutation;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstop_arch::Model;
use backstop_kernels::{Batch, CpuBackend, CpuKvCache, Element, KvGroupLayout};
use backstop_loader::{fit, load_cpu_weights};
use backstop_tests::{Choices, Scratch, repository};
use backstop_text::{ChatTemplate, ChatTemplateInput, Tokenizer};
use backstop_weights::Checkpoint;

/// Mutants of each checkpoint.
const MUTANTS: u64 = 400;
/// Unfused, packed, sharded and quantised, and GGUF: the layouts that are read in different ways.
const CHECKPOINTS: [&str; 8] = [
    "cohere2_moe/top_one_fp8",
    "cohere2_moe/packed_bf16_sharded",
    "cohere2_moe/head_dim_128_fp8_sharded",
    "cohere2_moe/mlp_layer_types",
    "quantized/fp8_mixed_dense",
    "quantized/int8_channel",
    "quantized/int4_channel",
    "gguf/mixed_llama",
];
/// Mutants of the text files, which take longer to read.
const TEXT_MUTANTS: u64 = 120;
/// Address space of the process that tries them, in KiB: a checkpoint has some 200 KiB, the rest
/// is for threads and their stacks.
const ADDRESS_SPACE_KIB: u64 = 2 << 20;
/// The longest that a single mutant may take, on a machine that does much else.
const MUTANT_TIME_MAX: Duration = Duration::from_secs(5);

#[test]
fn damaged_weights_and_configurations_are_survived() {
    run_bounded("try_weight_mutants");
}

#[test]
fn damaged_text_files_are_survived() {
    run_bounded("try_text_mutants");
}

/// Runs one of the ignored tests below in a process with bounded memory.
fn run_bounded(test: &str) {
    let script = format!("ulimit -v {ADDRESS_SPACE_KIB} && exec \"$0\" \"$@\"");
    let output = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().expect("a test binary"))
        .args([
            "--ignored",
            "--exact",
            test,
            "--nocapture",
            "--test-threads=1",
        ])
        // Each arena reserves address space.
        .env("MALLOC_ARENA_MAX", "2")
        .env("RAYON_NUM_THREADS", "2")
        .output()
        .expect("there is a shell");
    let text = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<&str> = text.lines().rev().take(40).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    assert!(
        output.status.success(),
        "{}:\n{}",
        output.status,
        tail.join("\n")
    );
}

#[test]
#[ignore = "run by damaged_weights_and_configurations_are_survived in bounded memory"]
fn try_weight_mutants() {
    let mut loaded = 0;
    for (number, name) in CHECKPOINTS.iter().enumerate() {
        let original = repository("tests/goldens").join(name);
        let scratch = Scratch::new(&name.replace('/', "-"));
        copy_files(&original, scratch.path());
        assert!(load(scratch.path()).is_ok(), "{name} itself loads");
        for mutant in 0..MUTANTS {
            let mut choices = Choices::new(number as u64 * MUTANTS + mutant);
            let file = mutation::damage_one_file(scratch.path(), &mut choices);
            let label = format!("{name}, mutant {mutant}, {}", file.display());
            loaded += u64::from(attempt(&label, || load(scratch.path())));
            copy_files(&original, scratch.path());
        }
    }
    let all = MUTANTS * CHECKPOINTS.len() as u64;
    // Some damage is harmless, such as a weight that changed a little; most is not.
    assert!(
        loaded > all / 50 && loaded < all / 2,
        "{loaded} of {all} mutants were loaded"
    );
}

#[test]
#[ignore = "run by damaged_text_files_are_survived in bounded memory"]
fn try_text_mutants() {
    let original = repository("models/demo");
    let scratch = Scratch::new("text-files");
    let names = ["tokenizer.json", "chat_template.jinja"];
    for mutant in 0..TEXT_MUTANTS {
        let mut choices = Choices::new(mutant);
        let name = names[mutant as usize % names.len()];
        let path = scratch.path().join(name);
        std::fs::copy(original.join(name), &path).expect("a copy");
        mutation::damage_text(&path, &mut choices);
        let label = format!("mutant {mutant}, {name}");
        match name {
            "tokenizer.json" => attempt(&label, || tokenize(&path)),
            _ => attempt(&label, || render(&path)),
        };
    }
}

/// Runs `work` and says whether it succeeded; fails the test if it panicked or took too long.
fn attempt(label: &str, work: impl FnOnce() -> Result<(), String>) -> bool {
    let started = Instant::now();
    // Standard error survives an abort, unlike a message that is kept for later.
    let result = catch_unwind(AssertUnwindSafe(work));
    let elapsed = started.elapsed();
    let result = result.unwrap_or_else(|_| panic!("{label}: panicked"));
    assert!(elapsed < MUTANT_TIME_MAX, "{label}: took {elapsed:?}");
    match result {
        Ok(()) => true,
        Err(message) => {
            assert!(!message.is_empty(), "{label}: no explanation");
            false
        }
    }
}

/// As the command line does it: open, fit, load; and then computes a few tokens.
fn load(directory: &Path) -> Result<(), String> {
    let mut checkpoint = Checkpoint::open(directory, &backstop_arch::gguf_families())
        .map_err(|error| error.to_string())?;
    let fitted = fit(&mut checkpoint).map_err(|error| error.to_string())?;
    let model = fitted.model;
    let weights =
        load_cpu_weights(&checkpoint, model.spec(), &|_| {}).map_err(|error| error.to_string())?;
    let groups = &model.spec().kv_groups;
    let layouts: Vec<KvGroupLayout> = groups.iter().map(|group| group.layout(2)).collect();
    let cache = CpuKvCache::new(&layouts, 4, Element::BF16);
    let mut backend = CpuBackend::new(Arc::new(weights.arranged(&|_| {})), cache);
    compute(&model, &mut backend, groups.len());
    Ok(())
}

fn compute(model: &dyn Model<CpuBackend>, backend: &mut CpuBackend, groups: usize) {
    let vocabulary = model.spec().vocabulary_size;
    let tokens: Vec<u32> = [1, 2, 3].map(|token| token % vocabulary).to_vec();
    let mut batch = Batch::new();
    batch.push(0, 0, &tokens, true);
    backend.begin(&batch, &vec![vec![vec![1, 0]]; groups]);
    model.forward(backend);
    assert_eq!(backend.logits().len(), vocabulary as usize);
}

fn tokenize(path: &Path) -> Result<(), String> {
    let tokenizer = Tokenizer::from_file(path).map_err(|error| error.to_string())?;
    let text = "def f(x):\n    return \"\u{e9}\u{1f389}\" + <|START_TEXT|>";
    let tokens = tokenizer
        .encode(text, true)
        .map_err(|error| error.to_string())?;
    tokenizer
        .decode(&tokens, false)
        .map(drop)
        .map_err(|error| error.to_string())
}

fn render(path: &Path) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let source = String::from_utf8(bytes).map_err(|error| error.to_string())?;
    let template = ChatTemplate::from_source(&source).map_err(|error| error.to_string())?;
    let input = ChatTemplateInput {
        messages: vec![serde_json::json!({"role": "user", "content": "Hello"})],
        tools: None,
        documents: None,
        add_generation_prompt: true,
        bos_token: Some("<BOS>".to_owned()),
        eos_token: None,
        extra: serde_json::Map::new(),
        now_unix_seconds: 0,
    };
    template
        .render(&input)
        .map(drop)
        .map_err(|error| error.to_string())
}

fn copy_files(from: &Path, to: &Path) {
    for path in files(to) {
        std::fs::remove_file(path).expect("the scratch directory is ours");
    }
    for path in files(from) {
        let name = path.file_name().expect("a file's name");
        std::fs::copy(&path, to.join(name)).expect("a copy");
    }
}

/// The files that loading reads, in a fixed order.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .filter(|path| is_read(path))
        .collect();
    paths.sort();
    paths
}

fn is_read(path: &Path) -> bool {
    !path.ends_with("expected.safetensors")
}
