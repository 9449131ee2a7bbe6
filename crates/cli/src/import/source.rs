//! What there is to import in a directory, and what is known of it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use backstop_arch::gguf_families;
use backstop_models::{Manifest, ModelLocator, is_checkpoint};
use backstop_weights::Checkpoint;

/// How a cache of the Hugging Face hub begins the name of a model's directory, and separates its parts.
const CACHED_MODEL: &str = "models--";
const CACHE_SEPARATOR: &str = "--";
/// Longest commit in a cache.
const COMMIT_BYTES_MAX: u64 = 256;

/// A model to import.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) directory: PathBuf,
    /// What is known of it.
    pub(super) manifest: Manifest,
}

/// The models in a directory: all with a manifest, or the one that it is.
pub(super) fn find(directory: &Path) -> Result<Vec<Source>, String> {
    if is_checkpoint(directory) {
        return Ok(vec![of_checkpoint(directory)?]);
    }
    let name = directory.file_name().and_then(OsStr::to_str);
    if name.is_some_and(|name| name.starts_with(CACHED_MODEL)) {
        return Ok(vec![of_checkpoint(&snapshot(directory)?)?]);
    }
    let manifests = ModelLocator::new(vec![directory.to_owned()]).manifests();
    let mut sources = Vec::new();
    for path in manifests.into_values() {
        let manifest = Manifest::read(&path).map_err(|error| error.to_string())?;
        let files = manifest.directory(&path);
        if is_checkpoint(&files) {
            sources.push(Source {
                name: manifest.name.clone(),
                directory: files,
                manifest,
            });
        }
    }
    match sources.is_empty() {
        true => Err(nothing(directory)),
        false => Ok(sources),
    }
}

fn nothing(directory: &Path) -> String {
    let entries = directory.read_dir().into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let cached: Vec<String> = names
        .filter(|name| name.starts_with(CACHED_MODEL))
        .collect();
    let place = directory.display();
    match cached.is_empty() {
        true => format!(
            "{place} has no model: neither a manifest with its files, nor a config.json, nor one GGUF file"
        ),
        false => format!(
            "{place} is a cache of several models: name the directory of one, such as {place}/{}",
            cached[0]
        ),
    }
}

/// The commit of a cached model that `main` stands for, or the only one.
fn snapshot(cached: &Path) -> Result<PathBuf, String> {
    let snapshots = cached.join("snapshots");
    let commit = backstop_input::read_text_file(&cached.join("refs/main"), COMMIT_BYTES_MAX);
    if let Ok(commit) = commit
        && is_checkpoint(&snapshots.join(commit.trim()))
    {
        return Ok(snapshots.join(commit.trim()));
    }
    let entries = snapshots.read_dir().into_iter().flatten().flatten();
    let all: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| is_checkpoint(path))
        .collect();
    match all.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(format!("{} has no whole model", snapshots.display())),
        _ => Err(format!(
            "{} has several commits: name the directory of one",
            snapshots.display()
        )),
    }
}

fn of_checkpoint(directory: &Path) -> Result<Source, String> {
    let shown = directory.display().to_string();
    let located = ModelLocator::from_environment().locate(&shown);
    let located = located.map_err(|error| error.to_string())?;
    if let Some((_, manifest)) = located.manifest {
        return Ok(Source {
            name: manifest.name.clone(),
            directory: directory.to_owned(),
            manifest,
        });
    }
    let full = directory.canonicalize();
    let full = full.map_err(|error| format!("{shown}: {error}"))?;
    let manifest = match cached_as(&full) {
        Some((repository, commit)) => of_repository(&full, &repository, commit)?,
        None => new_manifest(&full, &located.name())?,
    };
    Ok(Source {
        name: manifest.name.clone(),
        directory: directory.to_owned(),
        manifest,
    })
}

/// Repository and commit of a snapshot in a cache.
fn cached_as(directory: &Path) -> Option<(String, String)> {
    let snapshots = directory.parent()?;
    let model = snapshots.parent()?.file_name()?.to_str()?;
    let repository = model
        .strip_prefix(CACHED_MODEL)?
        .replacen(CACHE_SEPARATOR, "/", 1);
    let commit = directory.file_name()?.to_str()?.to_owned();
    (snapshots.file_name()? == "snapshots").then_some((repository, commit))
}

/// What the catalogue knows of a repository, or else the files.
fn of_repository(directory: &Path, repository: &str, commit: String) -> Result<Manifest, String> {
    let known = ModelLocator::from_environment().manifests();
    let known = known.values().filter_map(|path| Manifest::read(path).ok());
    let is_it = |manifest: &Manifest| manifest.repository.as_deref() == Some(repository);
    let known = known
        .filter(|manifest| manifest.quantization.is_none())
        .find(is_it);
    let name = repository.rsplit('/').next().unwrap_or(repository);
    let manifest = match known {
        Some(manifest) => manifest,
        None => new_manifest(directory, name)?,
    };
    Ok(Manifest {
        repository: Some(repository.to_owned()),
        revision: Some(commit),
        files: None,
        ..manifest
    })
}

fn new_manifest(directory: &Path, name: &str) -> Result<Manifest, String> {
    let checkpoint = Checkpoint::open(directory, &gguf_families());
    let checkpoint = checkpoint.map_err(|error| error.to_string())?;
    let architecture = checkpoint.architecture().unwrap_or("unknown");
    let description = format!("Imported from {}.", directory.display());
    Ok(Manifest::new(name, architecture, &description))
}
