//! What there is to import in a directory, and what is known of it.

use std::path::{Path, PathBuf};

use backstop_arch::gguf_families;
use backstop_models::{CachedAs, LocatedModel, Manifest, ModelLocator, is_checkpoint};
use backstop_weights::Checkpoint;

/// A model to import.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) directory: PathBuf,
    /// What is known of it.
    pub(super) manifest: Manifest,
}

/// The models in a directory: all with a manifest, or the one that it is.
pub(super) fn find(directory: &Path) -> Result<Vec<Source>, String> {
    let shown = directory.display().to_string();
    let located = ModelLocator::new(Vec::new()).locate(&shown);
    if let Ok(located) = located {
        return Ok(vec![of_checkpoint(located)?]);
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
    match (sources.is_empty(), located) {
        (true, Err(error)) => Err(error.to_string()),
        _ => Ok(sources),
    }
}

fn of_checkpoint(located: LocatedModel) -> Result<Source, String> {
    let (name, directory) = (located.name(), located.directory);
    let manifest = match located.manifest {
        Some((_, manifest)) => manifest,
        None => {
            let full = directory.canonicalize();
            let full = full.map_err(|error| format!("{}: {error}", directory.display()))?;
            let cached = CachedAs::of(&directory).or_else(|| CachedAs::of(&full));
            match cached {
                Some(cached) => of_repository(&full, cached)?,
                None => new_manifest(&full, &name)?,
            }
        }
    };
    Ok(Source {
        name: manifest.name.clone(),
        directory,
        manifest,
    })
}

/// What the catalogue knows of a repository, or else the files.
fn of_repository(directory: &Path, cached: CachedAs) -> Result<Manifest, String> {
    let known = ModelLocator::from_environment().manifest_of(&cached.repository, None);
    let manifest = match known {
        Some(manifest) => manifest,
        None => new_manifest(directory, cached.name())?,
    };
    Ok(Manifest {
        repository: Some(cached.repository),
        revision: Some(cached.revision),
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
