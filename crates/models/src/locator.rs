//! Finds the directory and the manifest of the model a user asks for.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::cache::{CachedAs, cached_checkpoint};
use crate::checkpoint::{gguf_path, is_checkpoint};
use crate::digests::{FilesDiffer, check_sizes, verify_digests};
use crate::manifest::{Manifest, ManifestError, is_model_name};
use crate::parts::NumberedParts;
use crate::record::FileRecords;
use crate::refusal::what_it_is;
use crate::store::{DIRECTORY_VARIABLE, Store};

/// The directories in which manifests are looked for.
#[derive(Clone, Debug)]
pub struct ModelLocator {
    directories: Vec<PathBuf>,
}

/// A model that was found.
#[derive(Clone, Debug)]
pub struct LocatedModel {
    /// Its checkpoint directory, or its GGUF file.
    pub directory: PathBuf,
    /// Its manifest and where that is, if it has one.
    pub manifest: Option<(PathBuf, Manifest)>,
}

/// A model of which synthetic weights can be made: its weights need not be there.
#[derive(Clone, Debug)]
pub struct LocatedShape {
    /// Its `config.json`, or a copy of that.
    pub config: PathBuf,
    /// Directory of its tokenizer and chat template, if it is there.
    pub texts: Option<PathBuf>,
    /// Its name.
    pub name: String,
    /// Its manifest, if it has one.
    pub manifest: Option<Manifest>,
}

impl LocatedModel {
    /// What lies in a directory, whatever it is, with its manifest if that lies beside it.
    pub fn at(directory: &Path) -> Result<Self, ManifestError> {
        Ok(Self {
            directory: directory.to_owned(),
            manifest: manifest_of(directory)?,
        })
    }

    /// What is recorded of its files.
    pub fn records(&self) -> Option<&FileRecords> {
        self.manifest.as_ref()?.1.files.as_ref()
    }

    /// Verifies the files against the manifest; false if there are no digests to verify them by.
    pub fn verify_digests(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<bool, FilesDiffer> {
        match self.records() {
            Some(records) => verify_digests(&self.directory, records, progress).map(|()| true),
            None => Ok(false),
        }
    }

    /// Checks that the files are there in their recorded sizes; false if none are recorded.
    pub fn check_sizes(&self) -> Result<bool, FilesDiffer> {
        match self.records() {
            Some(records) => check_sizes(&self.directory, records).map(|()| true),
            None => Ok(false),
        }
    }

    /// The name to serve it under: the manifest's, the repository's of a cache, or else the directory's or the file's, as
    /// it was named: what links lead to often has a digest as its name.
    pub fn name(&self) -> String {
        if let Some((_, manifest)) = &self.manifest {
            return manifest.name.clone();
        }
        // So that `.` has the name of the directory it stands for.
        let full = self.directory.canonicalize();
        let full = full.unwrap_or_else(|_| self.directory.clone());
        if let Some(cached) = CachedAs::of(&self.directory).or_else(|| CachedAs::of(&full)) {
            return cached.name().to_owned();
        }
        let named = match self.directory.file_name() {
            Some(_) => &self.directory,
            None => &full,
        };
        let is_gguf = named.extension() == Some(OsStr::new("gguf"));
        if is_gguf && let Some(parts) = NumberedParts::of(named) {
            return parts.name().to_owned();
        }
        let name = if is_gguf {
            named.file_stem()
        } else {
            named.file_name()
        };
        name.unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// What something is not that nothing more is known of.
const NEITHER: &str = "it is neither a directory with a config.json or one GGUF file, nor a GGUF file, and no manifest has \
                       that name";

/// Why no model was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocateError {
    /// There is neither such a directory nor such a manifest.
    #[error(
        "there is no model {model:?}: {}. Known names: {}. Looked in: {}",
        found.as_deref().unwrap_or(NEITHER),
        list_or(known, "none"),
        list_or(&paths(looked_in), "nowhere")
    )]
    Unknown {
        /// What was asked for.
        model: String,
        /// What it is instead, and what to do.
        found: Option<String>,
        /// The names of the manifests found.
        known: Vec<String>,
        /// The directories searched.
        looked_in: Vec<PathBuf>,
    },
    /// The manifest is there but its weights are not.
    #[error(
        "{manifest} expects weights in {directory}, which has no config.json and not one GGUF \
         file{}{}",
        advice(origin, manifest),
        does_not_fit(instead)
    )]
    NoWeights {
        /// The manifest.
        manifest: PathBuf,
        /// Where the weights should be.
        directory: PathBuf,
        /// Where they are published.
        origin: Option<String>,
        /// The model type, as `config.json` would name it.
        model_type: Option<String>,
        /// Why the model does not fit one H100, and what to run instead.
        instead: Option<String>,
    },
    /// The manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl ModelLocator {
    /// Searches the given directories, the first one first.
    pub fn new(directories: Vec<PathBuf>) -> Self {
        Self { directories }
    }

    /// Searches `BACKSTOP_MODELS_DIR`, `./models`, the user's store, and where an installation keeps its models.
    pub fn from_environment() -> Self {
        let mut directories: Vec<PathBuf> = vec!["models".into()];
        if let Some(store) = Store::from_environment() {
            let named = std::env::var_os(DIRECTORY_VARIABLE).is_some_and(|value| !value.is_empty());
            let place = if named { 0 } else { 1 };
            directories.insert(place, store.directory().to_owned());
        }
        let executable = std::env::current_exe().ok();
        if let Some(beside) = executable.as_deref().and_then(Path::parent) {
            directories.push(beside.join("models"));
            directories.push(beside.join("../share/backstop/models"));
        }
        Self { directories }
    }

    /// The directories searched.
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// The manifests found, by name. Of several with one name, the first whose weights are there counts, or else the
    /// first.
    pub fn manifests(&self) -> BTreeMap<String, PathBuf> {
        let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
        for directory in &self.directories {
            // A directory that is not there holds no manifests.
            let entries = directory.read_dir().into_iter().flatten().flatten();
            for path in entries.map(|entry| entry.path()) {
                let stem = path.file_stem().and_then(OsStr::to_str);
                let is_manifest = path.extension() == Some(OsStr::new("toml"));
                let Some(name) = stem.filter(|name| is_manifest && is_model_name(name)) else {
                    continue;
                };
                if found
                    .get(name)
                    .is_none_or(|known| !has_weights(known) && has_weights(&path))
                {
                    found.insert(name.to_owned(), path);
                }
            }
        }
        found
    }

    /// What is known of a repository's weights in a quantisation, or of those that it has in no other.
    pub fn manifest_of(&self, repository: &str, quantization: Option<&str>) -> Option<Manifest> {
        let same = |left: Option<&str>, right: Option<&str>| match (left, right) {
            (Some(left), Some(right)) => left.eq_ignore_ascii_case(right),
            (left, right) => left == right,
        };
        let manifests = self.manifests().into_values();
        let mut manifests = manifests.filter_map(|path| Manifest::read(&path).ok());
        manifests.find(|manifest| {
            same(manifest.repository.as_deref(), Some(repository))
                && same(manifest.quantization.as_deref(), quantization)
        })
    }

    /// Finds `model`: a checkpoint directory, a GGUF file, a model in a Hugging Face cache, a manifest's name, or the path of a manifest.
    pub fn locate(&self, model: &str) -> Result<LocatedModel, LocateError> {
        let path = Path::new(model);
        if is_checkpoint(path) {
            return Ok(LocatedModel::at(path)?);
        }
        if let Some(commit) = cached_checkpoint(path) {
            return Ok(LocatedModel::at(&commit)?);
        }
        if path.extension() == Some(OsStr::new("toml")) && path.is_file() {
            return locate_manifest(path);
        }
        if is_model_name(model) {
            let file_name = format!("{model}.toml");
            let paths = self.directories.iter();
            let paths = paths.map(|directory| directory.join(&file_name));
            let paths: Vec<PathBuf> = paths.filter(|path| path.is_file()).collect();
            let with_weights = paths.iter().find(|path| has_weights(path));
            if let Some(path) = with_weights.or(paths.first()) {
                return locate_manifest(path);
            }
        }
        Err(LocateError::Unknown {
            model: model.to_owned(),
            found: what_it_is(model),
            known: self.manifests().into_keys().collect(),
            looked_in: self.directories.clone(),
        })
    }
}

impl ModelLocator {
    /// Finds the shape of `model`, which is as for [`locate`](Self::locate): its checkpoint's, or
    /// the one that its manifest brings along.
    pub fn locate_shape(&self, model: &str) -> Result<LocatedShape, LocateError> {
        match self.locate(model) {
            Ok(located) => {
                let gguf = gguf_path(&located.directory);
                let has_tokenizer =
                    gguf.is_some() || located.directory.join("tokenizer.json").is_file();
                let config = gguf.unwrap_or_else(|| located.directory.join("config.json"));
                Ok(LocatedShape {
                    config,
                    name: located.name(),
                    texts: has_tokenizer.then(|| located.directory.clone()),
                    manifest: located.manifest.map(|(_, manifest)| manifest),
                })
            }
            Err(error) => {
                let LocateError::NoWeights { manifest: path, .. } = &error else {
                    return Err(error);
                };
                let manifest = Manifest::read(path)?;
                let shape = manifest.shape_path(path).filter(|shape| shape.is_file());
                Ok(LocatedShape {
                    config: shape.ok_or(error)?,
                    texts: None,
                    name: manifest.name.clone(),
                    manifest: Some(manifest),
                })
            }
        }
    }
}

/// Whether the model of a manifest is here.
fn has_weights(manifest: &Path) -> bool {
    Manifest::read(manifest).is_ok_and(|read| is_checkpoint(&read.directory(manifest)))
}

/// The manifest beside a checkpoint directory, if it is that directory's: whoever names the
/// directory should get the same defaults and the same checks as whoever names the model.
fn manifest_of(directory: &Path) -> Result<Option<(PathBuf, Manifest)>, ManifestError> {
    let Ok(full) = directory.canonicalize() else {
        return Ok(None);
    };
    let (Some(parent), Some(name)) = (full.parent(), full.file_name().and_then(OsStr::to_str))
    else {
        return Ok(None);
    };
    let path = parent.join(format!("{name}.toml"));
    if !path.is_file() {
        return Ok(None);
    }
    let manifest = Manifest::read(&path)?;
    let is_own = manifest
        .directory(&path)
        .canonicalize()
        .is_ok_and(|own| own == full);
    Ok(is_own.then_some((path, manifest)))
}

fn locate_manifest(path: &Path) -> Result<LocatedModel, LocateError> {
    let manifest = Manifest::read(path)?;
    let directory = manifest.directory(path);
    if is_checkpoint(&directory) {
        return Ok(LocatedModel {
            directory,
            manifest: Some((path.to_owned(), manifest)),
        });
    }
    let origin = manifest
        .repository
        .map(|repository| match manifest.revision {
            Some(revision) => format!("{repository} at revision {revision}"),
            None => repository,
        });
    Err(LocateError::NoWeights {
        manifest: path.to_owned(),
        directory,
        origin,
        model_type: manifest.model_type,
        instead: manifest.hardware.and_then(|hardware| hardware.instead),
    })
}

fn paths(paths: &[PathBuf]) -> Vec<String> {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect()
}

fn list_or(items: &[String], empty: &str) -> String {
    if items.is_empty() {
        empty.to_owned()
    } else {
        items.join(", ")
    }
}

fn does_not_fit(instead: &Option<String>) -> String {
    match instead {
        Some(instead) => format!("; it does not fit one H100: {instead}"),
        None => String::new(),
    }
}

fn advice(origin: &Option<String>, manifest: &Path) -> String {
    let name = manifest.file_stem().unwrap_or_default().to_string_lossy();
    match origin {
        Some(origin) => {
            format!("; they are published as {origin}, and `backstop pull {name}` fetches them")
        }
        None => String::new(),
    }
}
