//! Weights that are kept in a file, and weights that are brought into panels while they are read, against weights that
//! are read as they are stored and arranged then.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use backstop_arch::{AnyModel, gguf_families};
use backstop_kernels::CpuWeights;
use backstop_loader::{CacheMiss, WeightCache, load_cpu_weights, load_cpu_weights_in_panels};
use backstop_weights::Checkpoint;
use common::{fitted, repository};

/// Families and formats: BF16, F32, FP8, blocks of GGUF files and of quantised checkpoints, experts packed, in turns and
/// with columns first, matrices of several formats, rows that do not fill panels.
const CHECKPOINTS: &[&str] = &[
    "models/demo",
    "tests/goldens/cohere2_moe/north_fp8",
    "tests/goldens/cohere2_moe/shared_two_sum_packed",
    "tests/goldens/decoders/llama_f32",
    "tests/goldens/decoders/gpt_oss_mxfp4",
    "tests/goldens/decoders/gpt_oss_bf16",
    "tests/goldens/decoders/glm4_moe_lite",
    "tests/goldens/decoders/qwen3_moe_packed_step",
    "tests/goldens/gguf/mixed_llama",
    "tests/goldens/gguf/mixed_mixtral",
    "tests/goldens/gguf/qwen2_tied_yarn",
    "tests/goldens/quantized/f16",
    "tests/goldens/quantized/fp8_tensor_token_experts",
    "tests/goldens/quantized/int4_experts",
    "tests/goldens/quantized/int8_channel",
    "tests/goldens/quantized/nvfp4_experts",
];

struct Opened {
    checkpoint: Checkpoint,
    model: AnyModel,
}

impl Opened {
    fn at(path: &Path) -> Self {
        let checkpoint = Checkpoint::open(path, &gguf_families());
        let mut checkpoint = checkpoint.unwrap_or_else(|error| panic!("{error}"));
        let model = fitted(&mut checkpoint);
        Self { checkpoint, model }
    }

    /// Of the repository.
    fn named(name: &str) -> Self {
        let directory = repository(name);
        let gguf = directory.join("model.gguf");
        Self::at(if gguf.exists() { &gguf } else { &directory })
    }

    fn cache(&self, directory: &Path) -> WeightCache {
        let cache = WeightCache::new(directory, "a model/here", &self.checkpoint, "0123");
        cache.unwrap_or_else(|error| panic!("{error}"))
    }

    fn arranged(&self) -> CpuWeights {
        let loaded = load_cpu_weights(&self.checkpoint, self.model.spec(), &|_| {});
        loaded
            .unwrap_or_else(|error| panic!("{error}"))
            .arranged(&|_| {})
    }

    fn kept(&self, cache: &WeightCache) -> Result<CpuWeights, CacheMiss> {
        cache.read(&self.checkpoint, self.model.spec(), &|_, _| {})
    }

    /// Why nothing is taken from the cache.
    fn miss(&self, cache: &WeightCache) -> CacheMiss {
        self.kept(cache).expect_err("it is passed over")
    }
}

/// A directory that is gone in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("backstop-weight-cache-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn files(&self) -> usize {
        fs::read_dir(&self.0).expect("a directory").count()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ignored = fs::remove_dir_all(&self.0);
    }
}

fn write(cache: &WeightCache, weights: &CpuWeights) -> Option<u64> {
    let written = cache.write(weights, &mut || true);
    written.unwrap_or_else(|error| panic!("{error}"))
}

/// The same numbers in the same places, of which every answer is a function.
fn assert_same(name: &str, found: &CpuWeights, expected: &CpuWeights) {
    assert_eq!(found.layout(), expected.layout(), "{name}");
    assert!(found.parts() == expected.parts(), "{name}");
}

#[test]
fn weights_are_the_same_to_the_last_bit_however_they_come_into_memory() {
    let scratch = Scratch::new("same");
    for name in CHECKPOINTS {
        let opened = Opened::named(name);
        let expected = opened.arranged();
        let loaded = load_cpu_weights_in_panels(&opened.checkpoint, opened.model.spec(), &|_| {});
        let loaded = loaded.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_same(name, &loaded.arranged(&|_| {}), &expected);
        let cache = opened.cache(&scratch.0);
        assert!(matches!(opened.miss(&cache), CacheMiss::Absent), "{name}");
        let bytes = write(&cache, &expected).expect("nobody else writes it");
        assert_eq!(cache.path().metadata().unwrap().len(), bytes, "{name}");
        let kept = opened
            .kept(&cache)
            .unwrap_or_else(|miss| panic!("{name}: {miss}"));
        assert_same(name, &kept, &expected);
    }
    // Of one name, and yet each a file of its own.
    assert_eq!(scratch.files(), CHECKPOINTS.len());
}

#[test]
fn progress_ends_with_the_whole_file() {
    let scratch = Scratch::new("progress");
    let opened = Opened::named("models/demo");
    let cache = opened.cache(&scratch.0);
    let bytes = write(&cache, &opened.arranged()).unwrap();
    let most = std::sync::Mutex::new((0, 0));
    let spec = opened.model.spec();
    let kept = cache.read(&opened.checkpoint, spec, &|done, total| {
        let mut most = most.lock().unwrap();
        *most = (most.0.max(done), total);
    });
    assert!(kept.is_ok());
    let (done, total) = *most.lock().unwrap();
    assert_eq!(total, bytes);
    assert!(done <= total && done > total / 2, "{done} of {total}");
}

#[test]
fn what_is_not_exactly_what_was_written_is_passed_over() {
    let scratch = Scratch::new("damaged");
    let opened = Opened::named("tests/goldens/gguf/mixed_llama");
    let cache = opened.cache(&scratch.0);
    let weights = opened.arranged();
    let bytes = write(&cache, &weights).unwrap();
    let whole = fs::read(cache.path()).unwrap();
    // A bit of the magic number, of the digest, the length, a checksum, the header's own, and of weights.
    let flipped = [
        0,
        20,
        85,
        90,
        200,
        4096,
        bytes as usize / 2,
        bytes as usize - 1,
    ];
    let used = |at: usize| whole[at] != 0 || at >= 4096;
    for at in flipped.into_iter().filter(|at| used(*at)) {
        let file = OpenOptions::new().write(true).open(cache.path()).unwrap();
        file.write_all_at(&[whole[at] ^ 4], at as u64).unwrap();
        let found = opened.kept(&cache);
        // What lies between parts is nobody's.
        match found {
            Ok(found) => assert_same("between parts", &found, &weights),
            Err(miss) => {
                let told = matches!(miss, CacheMiss::Damaged(_) | CacheMiss::Stale);
                assert!(told, "byte {at}: {miss}");
            }
        }
        file.write_all_at(&[whole[at]], at as u64).unwrap();
    }
    for len in [0, 10, 88, 200, 4096, bytes - 1] {
        fs::write(cache.path(), &whole[..len as usize]).unwrap();
        let miss = opened.miss(&cache);
        assert!(matches!(miss, CacheMiss::Damaged(_)), "{len} bytes: {miss}");
    }
    fs::write(cache.path(), &whole).unwrap();
    let mut longer = OpenOptions::new().append(true).open(cache.path()).unwrap();
    longer.write_all(b"more").unwrap();
    assert!(matches!(opened.miss(&cache), CacheMiss::Damaged(_)));
    fs::remove_file(cache.path()).unwrap();
    fs::create_dir(cache.path()).unwrap();
    assert!(matches!(opened.miss(&cache), CacheMiss::Damaged(_)));
    fs::remove_dir(cache.path()).unwrap();
    // And it is written anew over whatever there is.
    fs::write(cache.path(), b"something else").unwrap();
    assert_eq!(write(&cache, &weights), Some(bytes));
    assert!(fs::read(cache.path()).unwrap() == whole);
}

#[test]
fn every_bit_of_the_weights_is_checked() {
    let scratch = Scratch::new("bits");
    let opened = Opened::named("tests/goldens/gguf/qwen2_tied_yarn");
    let cache = opened.cache(&scratch.0);
    let weights = opened.arranged();
    write(&cache, &weights).unwrap();
    let whole = fs::read(cache.path()).unwrap();
    // The first and the last byte of each part, wherever that is: it is found by its bytes.
    let mut from = 4096;
    for part in weights.parts().into_iter().filter(|part| !part.is_empty()) {
        let start = (from..whole.len())
            .step_by(4096)
            .find(|&at| whole[at..].starts_with(part))
            .expect("parts lie one behind the other, each on a page");
        for at in [start, start + part.len() - 1] {
            let file = OpenOptions::new().write(true).open(cache.path()).unwrap();
            file.write_all_at(&[whole[at] ^ 1], at as u64).unwrap();
            let miss = opened.miss(&cache);
            assert!(matches!(miss, CacheMiss::Damaged(_)), "byte {at}: {miss}");
            file.write_all_at(&[whole[at]], at as u64).unwrap();
        }
        from = start + part.len().next_multiple_of(4096);
    }
    assert!(opened.kept(&cache).is_ok());
}

#[test]
fn files_of_other_weights_are_stale() {
    let scratch = Scratch::new("stale");
    let copy = scratch.0.join("model.gguf");
    fs::copy(
        repository("tests/goldens/gguf/mixed_llama/model.gguf"),
        &copy,
    )
    .unwrap();
    let opened = Opened::at(&copy);
    let cache = opened.cache(&scratch.0);
    write(&cache, &opened.arranged()).unwrap();
    // Another digest, which is how provenance tells weights apart.
    let other = WeightCache::new(&scratch.0, "a model/here", &opened.checkpoint, "4567").unwrap();
    assert_eq!(other.path(), cache.path());
    assert!(matches!(opened.miss(&other), CacheMiss::Stale));
    // Another model's, by its name.
    let foreign = Opened::named("tests/goldens/gguf/qwen2_tied_yarn");
    let of_foreign = foreign.cache(&scratch.0);
    fs::copy(cache.path(), of_foreign.path()).unwrap();
    assert!(matches!(foreign.miss(&of_foreign), CacheMiss::Stale));
    // The checkpoint was changed without a change of digest or length.
    let changed = SystemTime::now() + Duration::from_secs(3600);
    let file = File::options().append(true).open(&copy).unwrap();
    file.set_modified(changed).unwrap();
    let opened = Opened::at(&copy);
    assert!(matches!(
        opened.miss(&opened.cache(&scratch.0)),
        CacheMiss::Stale
    ));
}

#[test]
fn a_file_that_was_not_finished_is_not_there() {
    let scratch = Scratch::new("unfinished");
    let opened = Opened::named("models/demo");
    let (cache, weights) = (opened.cache(&scratch.0), opened.arranged());
    let mut pieces = 0;
    let stopped = cache.write(&weights, &mut || {
        pieces += 1;
        pieces < 3
    });
    assert_eq!(stopped.unwrap(), None);
    assert_eq!(scratch.files(), 0);
    // What a process leaves behind that dies is no obstacle.
    fs::write(
        cache.path().with_extension("cpu-weights.unfinished"),
        b"half",
    )
    .unwrap();
    assert!(write(&cache, &weights).is_some());
    assert_eq!(scratch.files(), 1);
    assert!(opened.kept(&cache).is_ok());
}

#[test]
fn several_processes_may_start_at_once() {
    let scratch = Scratch::new("concurrent");
    let opened = Opened::named("models/demo");
    let (cache, weights) = (opened.cache(&scratch.0), opened.arranged());
    // Locks are those of open files, so that threads stand for processes.
    let written = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| (write(&cache, &weights), opened.kept(&cache))))
            .collect();
        let outcomes = starts.into_iter().map(|start| start.join().unwrap());
        let written = outcomes.filter(|(written, kept)| {
            match kept {
                Ok(kept) => assert_same("kept", kept, &weights),
                Err(miss) => assert!(matches!(miss, CacheMiss::Absent), "{miss}"),
            }
            written.is_some()
        });
        written.count()
    });
    assert!(written >= 1);
    assert_eq!(scratch.files(), 1);
    assert_same("kept", &opened.kept(&cache).unwrap(), &weights);
}

#[test]
fn what_cannot_be_written_is_an_error_and_leaves_nothing() {
    let scratch = Scratch::new("nowhere");
    let opened = Opened::named("models/demo");
    let cache = opened.cache(&scratch.0.join("is not there"));
    assert!(cache.write(&opened.arranged(), &mut || true).is_err());
    assert_eq!(scratch.files(), 0);
}
