//! What something is that is no model, and what to do with it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::cache::is_cached_model;
use crate::manifest::is_repository;

/// How a file of Git LFS begins that stands for another.
const LFS_POINTER: &[u8] = b"version https://git-lfs";
/// How a GGUF file begins.
const GGUF: &[u8] = b"GGUF";
/// What others save weights in, and nobody should load who does not trust them.
const PICKLES: [&str; 4] = ["bin", "ckpt", "pt", "pth"];
/// Names that a message lists.
const LISTED_MAX: usize = 10;

/// What `model` is, and what to do, if that can be told.
pub(crate) fn what_it_is(model: &str) -> Option<String> {
    let path = Path::new(model);
    if path.is_dir() {
        of_directory(path)
    } else if path.is_file() {
        of_file(path)
    } else {
        of_name(model)
    }
}

fn of_directory(directory: &Path) -> Option<String> {
    if directory.join("adapter_config.json").is_file() {
        return Some("it is a LoRA adapter: merge it into its base model first".to_owned());
    }
    if is_cached_model(directory) {
        return Some(format!(
            "it is a model of a Hugging Face cache with no whole commit, or several: name one of those in {}",
            directory.join("snapshots").display()
        ));
    }
    let paths = paths_in(directory);
    let cached: Vec<&PathBuf> = paths.iter().filter(|path| is_cached_model(path)).collect();
    if let Some(first) = cached.first() {
        let (count, first) = (cached.len(), first.display());
        return Some(format!(
            "it is a Hugging Face cache of {count} models: name the directory of one, such as {first}"
        ));
    }
    let with = |extension: &str| {
        let names = paths.iter().filter(|path| has_extension(path, extension));
        let names = names.filter_map(|path| path.file_name()?.to_str());
        names.collect::<Vec<&str>>()
    };
    let gguf = with("gguf");
    if gguf.len() > 1 {
        let shown = gguf[..gguf.len().min(LISTED_MAX)].join(", ");
        let count = gguf.len();
        return Some(format!("it has {count} GGUF files: name one of {shown}"));
    }
    if !with("safetensors").is_empty() {
        return Some("it has weights, and no config.json: fetch the whole repository".to_owned());
    }
    pickled_weights(directory).map(str::to_owned)
}

/// What to do with a directory that has pickled weights; `None` if there are none.
pub fn pickled_weights(directory: &Path) -> Option<&'static str> {
    let paths = paths_in(directory);
    let is_pickled = |path: &PathBuf| {
        PICKLES
            .iter()
            .any(|extension| has_extension(path, extension))
    };
    paths.iter().any(is_pickled).then_some(CONVERT)
}

const CONVERT: &str = "its weights are pickled, which would run whatever they say: convert them to safetensors \
                       (transformers' save_pretrained does)";

fn of_file(path: &Path) -> Option<String> {
    let start = start_of(path);
    if start.starts_with(LFS_POINTER) {
        return Some("it is a pointer of Git LFS, not the file: run `git lfs pull`".to_owned());
    }
    if start.starts_with(GGUF) {
        return Some(
            "it is a GGUF file whose name does not end in .gguf, as Ollama stores them: make a link NAME.gguf to it, and \
             name that"
                .to_owned(),
        );
    }
    if has_extension(path, "safetensors") {
        return Some("it is one file of a checkpoint: name its directory".to_owned());
    }
    let pickled = PICKLES
        .iter()
        .any(|extension| has_extension(path, extension));
    pickled.then(|| CONVERT.to_owned())
}

/// A name of the hub, unless it can be a path.
fn of_name(model: &str) -> Option<String> {
    let (_, name) = model.split_once('/').filter(|_| is_repository(model))?;
    Some(format!(
        "it may be a repository of the Hugging Face hub, from which this program fetches nothing: `backstop pull {model}` \
         does, and `backstop serve {name}` serves it then"
    ))
}

fn paths_in(directory: &Path) -> Vec<PathBuf> {
    let entries = directory.read_dir().into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension() == Some(OsStr::new(extension))
}

/// The first bytes of a file; none if it cannot be read.
fn start_of(path: &Path) -> Vec<u8> {
    let mut start = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ignored = file.take(LFS_POINTER.len() as u64).read_to_end(&mut start);
    }
    start
}
