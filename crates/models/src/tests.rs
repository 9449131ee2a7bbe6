//! Manifests, the search for models, and digests.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::{
    CachedAs, ClaimValue, FileRecord, FileRecords, Manifest, ModelLocator, Store, check_sizes,
    files_of, gguf_path, verify_digests,
};

/// A directory that goes away with its owner.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("backstop-models-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
}

impl Deref for Directory {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Asserts that a message has every one of the parts.
#[track_caller]
fn assert_mentions(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

const SMALL: &str = "name = \"tiny\"\narchitecture = \"Tiny\"\ndescription = \"A model.\"\n";

#[test]
fn the_manifests_of_the_repository_are_valid() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let manifests = ModelLocator::new(vec![directory]).manifests();
    for name in ["demo", "north-mini-code"] {
        assert!(manifests.contains_key(name), "{name}");
    }
    for path in manifests.values() {
        let manifest = Manifest::read(path).unwrap();
        assert_eq!(Manifest::parse(&manifest.text().unwrap()), Ok(manifest));
    }
}

#[test]
fn a_full_manifest_is_read() {
    let digest = "0".repeat(64);
    let text = format!(
        r#"{SMALL}
        repository = "someone/tiny"
        revision = "abc"
        licence = "Apache-2.0"
        path = "weights"
        context_length = 4096
        serving = {{ temperature = 1.0, top_p = 0.95, max_model_len = 2048 }}
        hardware = {{ device_memory_bytes = 1000, notes = "weights alone" }}
        claims = [
            {{ name = "A", value = 67.6, source = "card", method = "once" }},
            {{ name = "B", value = 3, source = "card" }},
            {{ name = "C", value = "good", source = "card" }},
            {{ name = "D", value = 61.6, source = "report", benchmark = "humaneval", metric = "pass@1",
               settings = {{ tasks = 164, temperature = 0.0, attempts = 1 }} }},
        ]
        [files]
        "config.json" = "{digest}"
        [canary]
        prompt_tokens = [1, 2]
        tokens = [3]
        logprobs = [-0.5]
        tolerance = 0.01
        "#
    );
    let manifest = Manifest::parse(&text).unwrap();
    assert_eq!(manifest.serving.top_p, Some(0.95));
    assert_eq!(manifest.claims[1].value, ClaimValue::Number(3.0));
    assert_eq!(
        manifest.claims[2].value,
        ClaimValue::Text("good".to_owned())
    );
    assert_eq!(manifest.claims[3].settings.tasks, Some(164));
    assert_eq!(
        Manifest::parse(&manifest.text().unwrap()),
        Ok(manifest.clone())
    );
    assert_eq!(
        manifest.directory(Path::new("/m/tiny.toml")),
        PathBuf::from("/m/weights")
    );
    let small = Manifest::parse(SMALL).unwrap();
    assert_eq!(
        small.directory(Path::new("/m/tiny.toml")),
        PathBuf::from("/m/tiny")
    );
}

#[test]
fn bad_manifests_are_refused() {
    for (addition, part) in [
        ("colour = 1", "colour"),
        ("serving = { beams = 1 }", "beams"),
        ("serving = { top_p = 1.5 }", "top_p"),
        ("serving = { temperature = nan }", "temperature"),
        ("serving = { max_model_len = 0 }", "max_model_len"),
        ("hardware = { notes = \"x\" }", "device_memory_bytes"),
        (
            "claims = [{ name = \"A\", value = 1, source = \"x\", metric = \"pass@1\" }]",
            "no benchmark",
        ),
        (
            "claims = [{ name = \"A\", value = 164.0, source = \"x\", benchmark = \"a\" }]",
            "percentage",
        ),
        ("[files]\n\"../x\" = \"00\"", "../x"),
        ("[files]\n\"/x\" = \"00\"", "/x"),
        ("[files]\n\"x\" = \"00\"", "SHA-256"),
        (
            "canary = { prompt_tokens = [1], tokens = [1], logprobs = [], tolerance = 1 }",
            "canary",
        ),
        (
            "canary = { prompt_tokens = [1], tokens = [1], logprobs = [0.5], tolerance = 1 }",
            "posit",
        ),
        (
            "canary = { prompt_tokens = [1], tokens = [1], logprobs = [-1], tolerance = 0 }",
            "toler",
        ),
        (
            "canary = { prompt_tokens = [], tokens = [1], logprobs = [-1], tolerance = 1 }",
            "prompt",
        ),
    ] {
        let error = Manifest::parse(&format!("{SMALL}{addition}")).unwrap_err();
        assert_mentions(&error, &[part]);
    }
    for name in ["", "a/b", "..", ".hidden", "a b"] {
        assert!(
            Manifest::parse(&SMALL.replace("tiny", name)).is_err(),
            "{name}"
        );
    }
    assert!(Manifest::parse("name = \"x\"").is_err());
}

#[test]
fn models_are_located_by_directory_by_name_and_by_manifest() {
    let (first, second) = (Directory::new(), Directory::new());
    second.write("tiny.toml", SMALL);
    second.write("tiny/config.json", "{}");
    second.write("bare/config.json", "{}");
    let directories = vec![
        first.join("absent"),
        first.to_path_buf(),
        second.to_path_buf(),
    ];
    let locator = ModelLocator::new(directories);

    let by_name = locator.locate("tiny").unwrap();
    assert_eq!(by_name.directory, second.join("tiny"));
    assert_eq!(by_name.name(), "tiny");
    assert!(!by_name.verify_digests(&|_| {}).unwrap());
    let by_manifest = locator
        .locate(second.join("tiny.toml").to_str().unwrap())
        .unwrap();
    assert_eq!(by_manifest.directory, by_name.directory);
    let by_directory = locator
        .locate(second.join("tiny").to_str().unwrap())
        .unwrap();
    assert_eq!(by_directory.manifest.unwrap().1.name, "tiny");
    let bare = locator
        .locate(second.join("bare").to_str().unwrap())
        .unwrap();
    assert!(bare.manifest.is_none());
    assert_eq!(bare.name(), "bare");

    // The earlier directory wins.
    first.write("tiny.toml", SMALL);
    first.write("tiny/config.json", "{}");
    assert_eq!(
        locator.locate("tiny").unwrap().directory,
        first.join("tiny")
    );
}

#[test]
fn a_shape_is_the_checkpoints_or_the_one_that_the_manifest_brings() {
    let root = Directory::new();
    root.write("tiny.toml", format!("{SMALL}shape = \"shapes/tiny.json\""));
    root.write("bare.toml", SMALL.replace("tiny", "bare"));
    let locator = ModelLocator::new(vec![root.to_path_buf()]);
    assert!(locator.locate_shape("tiny").is_err(), "no shape yet");
    fs::create_dir(root.join("shapes")).unwrap();
    root.write("shapes/tiny.json", "{}");

    let shape = locator.locate_shape("tiny").unwrap();
    assert_eq!(shape.config, root.join("shapes/tiny.json"));
    assert_eq!((shape.texts, shape.name.as_str()), (None, "tiny"));
    let error = locator.locate_shape("bare").unwrap_err();
    assert_mentions(&error.to_string(), &["bare.toml expects weights in"]);

    fs::create_dir(root.join("tiny")).unwrap();
    root.write("tiny/config.json", "{}");
    root.write("tiny/tokenizer.json", "{}");
    let shape = locator.locate_shape("tiny").unwrap();
    assert_eq!(shape.config, root.join("tiny/config.json"));
    assert_eq!(shape.texts, Some(root.join("tiny")));
}

#[test]
fn a_located_model_is_verified_by_its_manifest() {
    let directory = Directory::new();
    directory.write("tiny/config.json", "abc");
    for (digit, is_right) in [("5ad", true), ("5ae", false)] {
        let start = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f2001";
        let files = format!("[files]\n\"config.json\" = \"{start}{digit}\"");
        directory.write("tiny.toml", format!("{SMALL}{files}"));
        let model = ModelLocator::new(vec![directory.to_path_buf()])
            .locate("tiny")
            .unwrap();
        assert_eq!(
            model.verify_digests(&|_| {}).is_ok_and(|verified| verified),
            is_right
        );
    }
}

#[test]
fn a_failed_search_says_what_there_is_and_where_it_looked() {
    let directory = Directory::new();
    directory.write(
        "tiny.toml",
        format!("{SMALL}repository = \"someone/tiny\"\nrevision = \"r1\""),
    );
    directory.write("other.toml", SMALL);
    let locator = ModelLocator::new(vec![directory.to_path_buf()]);
    let shown = directory.display().to_string();
    for unknown in ["huge", "../tiny", "", "a/b"] {
        let message = locator.locate(unknown).unwrap_err().to_string();
        assert_mentions(&message, &["Known names: other, tiny", &shown]);
    }
    let message = locator.locate("tiny").unwrap_err().to_string();
    assert_mentions(
        &message,
        &["tiny.toml", "no config.json", "someone/tiny at revision r1"],
    );
    let message = locator.locate("other").unwrap_err().to_string();
    assert_mentions(&message, &["it must be called tiny.toml"]);
}

#[test]
fn the_usual_places_are_searched() {
    let locator = ModelLocator::from_environment();
    assert!(locator.directories().contains(&PathBuf::from("models")));
    assert!(
        locator
            .directories()
            .iter()
            .any(|path| path.ends_with("share/backstop/models"))
    );
}

#[test]
fn digests_are_verified() {
    let directory = Directory::new();
    directory.write("config.json", "abc");
    directory.write("deep/x", "");
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let empty = "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855";
    let record = |sha256: &str, bytes| FileRecord {
        sha256: sha256.to_owned(),
        bytes,
    };
    let mut digests: FileRecords = [
        ("config.json", record(abc, None)),
        ("deep/x", record(empty, Some(0))),
    ]
    .map(|(name, record)| (name.to_owned(), record))
    .into();
    check_sizes(&directory, &digests).unwrap();
    let done = AtomicU64::new(0);
    verify_digests(&directory, &digests, &|bytes| {
        done.fetch_max(bytes, Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(done.into_inner(), 3);

    directory.write("deep/x", "changed");
    directory.write("surplus.safetensors", "x");
    digests.insert("absent".to_owned(), record(abc, None));
    let error = check_sizes(&directory, &digests).unwrap_err();
    let parts = ["deep/x has 7 bytes, expected 0", "absent", "surplus"];
    assert_mentions(&error.to_string(), &parts);
    digests.insert("deep/x".to_owned(), record(empty, None));
    let error = verify_digests(&directory, &digests, &|_| {}).unwrap_err();
    assert_eq!(error.problems.len(), 3);
    assert_mentions(
        &error.to_string(),
        &[
            "absent cannot be read",
            "deep/x has digest",
            "surplus.safetensors has no digest",
        ],
    );
}

#[test]
fn what_is_no_model_is_told_by_what_it_is() {
    let root = Directory::new();
    for (path, contents) in [
        ("adapter/adapter_config.json", "{}"),
        ("hub/models--a--b/snapshots/1/other", ""),
        ("two/a.gguf", ""),
        ("two/b.gguf", ""),
        ("parts/model.safetensors", ""),
        ("pickled/pytorch_model.bin", ""),
        (
            "pointer.gguf.tmp",
            "version https://git-lfs.github.com/spec/v1\n",
        ),
        ("sha256-0123", "GGUF\u{3}"),
        ("model.safetensors", ""),
        ("weights.pth", ""),
    ] {
        root.write(path, contents);
    }
    let locator = ModelLocator::new(Vec::new());
    let refusal = |model: &str| locator.locate(model).unwrap_err().to_string();
    for (path, part) in [
        ("adapter", "LoRA adapter"),
        ("hub", "cache of 1 models"),
        ("hub/models--a--b", "no whole commit"),
        ("two", "2 GGUF files: name one of a.gguf, b.gguf"),
        ("parts", "no config.json"),
        ("pickled", "convert them to safetensors"),
        ("pointer.gguf.tmp", "git lfs pull"),
        ("sha256-0123", "make a link NAME.gguf"),
        ("model.safetensors", "name its directory"),
        ("weights.pth", "convert them"),
    ] {
        let message = refusal(root.join(path).to_str().unwrap());
        assert_mentions(&message, &[part]);
    }
    assert_mentions(&refusal("Qwen/Qwen3-8B"), &["backstop pull Qwen/Qwen3-8B"]);
    for path in ["./a/b", "/a/b", "a/b/c", "../a"] {
        assert_mentions(&refusal(path), &["it is neither"]);
    }
}

#[test]
fn a_gguf_file_in_parts_is_one_model() {
    let root = Directory::new();
    let part = |directory: &str, number: u32| {
        root.write(
            &format!("{directory}/tiny-Q4_0-0000{number}-of-00002.gguf"),
            "GGUF",
        );
    };
    for number in [1, 2] {
        part("whole", number);
        part("with-another", number);
    }
    part("cut", 2);
    root.write("with-another/tiny-Q8_0.gguf", "GGUF");
    let first = root.join("whole/tiny-Q4_0-00001-of-00002.gguf");
    assert_eq!(gguf_path(&root.join("whole")), Some(first.clone()));
    let second = root.join("whole/tiny-Q4_0-00002-of-00002.gguf");
    assert_eq!(gguf_path(&second), Some(first.clone()));
    assert_eq!(files_of(&second), [first.clone(), second.clone()]);
    let cut = root.join("cut/tiny-Q4_0-00002-of-00002.gguf");
    assert_eq!(gguf_path(&root.join("cut")), Some(cut));
    assert_eq!(gguf_path(&root.join("with-another")), None);
    let locator = ModelLocator::new(Vec::new());
    let name = |path: &Path| locator.locate(path.to_str().unwrap()).unwrap().name();
    assert_eq!(name(&first), "tiny-Q4_0");
    assert_eq!(name(&second), "tiny-Q4_0");
    assert_eq!(name(&root.join("whole")), "whole");
}

#[cfg(unix)]
#[test]
fn what_is_reached_through_links_is_called_as_it_was_named() {
    use std::os::unix::fs::symlink;
    let root = Directory::new();
    root.write("blobs/0123", "GGUF");
    root.write("plain/config.json", "{}");
    root.write("models--org--small/blobs/89ab", "{}");
    root.write("models--org--small/refs/main", "c0ffee\n");
    let snapshot = root.join("models--org--small/snapshots/c0ffee");
    fs::create_dir_all(&snapshot).unwrap();
    symlink("../../blobs/89ab", snapshot.join("config.json")).unwrap();
    symlink("blobs/0123", root.join("tiny.Q4_0.gguf")).unwrap();
    symlink("plain", root.join("current")).unwrap();
    symlink(&snapshot, root.join("pinned")).unwrap();
    let locator = ModelLocator::new(Vec::new());
    let name = |path: &str| {
        let located = locator.locate(root.join(path).to_str().unwrap());
        located.unwrap().name()
    };
    assert_eq!(name("tiny.Q4_0.gguf"), "tiny.Q4_0");
    assert_eq!(name("current"), "current");
    assert_eq!(name("plain/."), "plain");
    for path in [
        "models--org--small",
        "models--org--small/snapshots/c0ffee",
        "pinned",
    ] {
        assert_eq!(name(path), "small", "{path}");
    }
    assert_eq!(
        CachedAs::of(&snapshot).map(|cached| (cached.repository, cached.revision)),
        Some(("org/small".to_owned(), "c0ffee".to_owned()))
    );
}

#[test]
fn what_is_written_is_read_again() {
    let store = Store::new(Directory::new().to_path_buf().join("deep"));
    fs::create_dir_all(store.directory()).unwrap();
    let mut manifest = Manifest::new("tiny", "Tiny", "A \"model\".");
    manifest.serving.top_p = Some(0.5);
    let digest = "0".repeat(64);
    let files = [
        ("model.safetensors", Some(3)),
        ("1_Pooling/config.json", None),
    ];
    let files = files.map(|(name, bytes)| {
        let sha256 = digest.clone();
        (name.to_owned(), FileRecord { sha256, bytes })
    });
    manifest.files = Some(files.into());
    let path = store.record(&manifest).unwrap();
    assert_eq!(Manifest::read(&path).unwrap(), manifest);
    manifest.name = "../tiny".to_owned();
    assert!(store.record(&manifest).is_err());
    fs::remove_dir_all(store.directory()).unwrap();
}

#[test]
fn the_model_that_is_there_counts_and_can_be_removed() {
    let (catalogue, own) = (Directory::new(), Directory::new());
    catalogue.write("tiny.toml", SMALL);
    let store = Store::new(own.to_path_buf());
    store.record(&Manifest::parse(SMALL).unwrap()).unwrap();
    let locator = ModelLocator::new(vec![catalogue.to_path_buf(), own.to_path_buf()]);
    assert_eq!(locator.manifests()["tiny"], catalogue.join("tiny.toml"));
    own.write("tiny/config.json", "{}");
    assert_eq!(locator.manifests()["tiny"], own.join("tiny.toml"));
    let located = locator.locate("tiny").unwrap();
    assert_eq!(located.directory, own.join("tiny"));

    for unknown in ["huge", "..", "", "tiny/config.json"] {
        let error = store.remove(unknown).unwrap_err();
        assert_mentions(&error, &["there is no model"]);
    }
    store.remove("tiny").unwrap();
    assert!(!own.join("tiny").exists() && !own.join("tiny.toml").exists());
    own.write(
        "far.toml",
        format!("{}path = \"/data\"", SMALL.replace("tiny", "far")),
    );
    assert_mentions(&store.remove("far").unwrap_err(), &["/data", "by hand"]);
}
