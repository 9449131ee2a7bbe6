//! The store: the directory in which this machine's own models lie, each with its manifest beside it.

use std::path::{Path, PathBuf};

use crate::manifest::{Manifest, ManifestError, is_model_name};

/// The environment variable that names the store.
pub const DIRECTORY_VARIABLE: &str = "BACKSTOP_MODELS_DIR";
/// Where the store is within a user's data directory.
const WITHIN_DATA: &str = "backstop/models";

/// A directory of models: `NAME.toml` and `NAME/` for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// In a directory, which need not be there yet.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// `$BACKSTOP_MODELS_DIR`, or else `backstop/models` in the user's data directory
    /// (`$XDG_DATA_HOME`, by default `~/.local/share`); `None` if neither can be told.
    pub fn from_environment() -> Option<Self> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let named = variable(DIRECTORY_VARIABLE).map(PathBuf::from);
        let directory = named.or_else(|| {
            let data = variable("XDG_DATA_HOME").map(PathBuf::from);
            let home = || variable("HOME").map(|home| Path::new(&home).join(".local/share"));
            Some(data.or_else(home)?.join(WITHIN_DATA))
        });
        directory.map(Self::new)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the files of a model lie, or are to lie.
    pub fn model_directory(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where a model's manifest lies, or is to lie.
    pub fn manifest_path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.toml"))
    }

    /// Writes the manifest of a model whose files are there: what makes it one of the store's. It appears at once and whole.
    pub fn record(&self, manifest: &Manifest) -> Result<PathBuf, ManifestError> {
        let path = self.manifest_path(&manifest.name);
        let error = |reason: String| ManifestError {
            path: path.clone(),
            reason,
        };
        let text = manifest.text().map_err(error)?;
        let unfinished = self.directory.join(format!(".{}.toml", manifest.name));
        let written = std::fs::write(&unfinished, text)
            .and_then(|()| std::fs::File::open(&unfinished)?.sync_all())
            .and_then(|()| std::fs::rename(&unfinished, &path));
        written.map_err(|reason| error(format!("cannot be written: {reason}")))?;
        Ok(path)
    }

    /// Removes a model, its manifest first, so that a removal that was cut short leaves no model that seems to be whole.
    /// What is not the store's own, or lies elsewhere, is refused.
    pub fn remove(&self, name: &str) -> Result<(), String> {
        let (manifest, directory) = (self.manifest_path(name), self.model_directory(name));
        if !is_model_name(name) || !(manifest.is_file() || directory.is_dir()) {
            let store = self.directory.display();
            return Err(format!("there is no model {name:?} in {store}"));
        }
        if let Ok(read) = Manifest::read(&manifest)
            && read.directory(&manifest) != directory
        {
            let elsewhere = read.directory(&manifest);
            return Err(format!(
                "the files of {name} lie in {}, outside of the store: remove them, and {}, by hand",
                elsewhere.display(),
                manifest.display()
            ));
        }
        let error = |path: &Path, reason| format!("cannot remove {}: {reason}", path.display());
        if manifest.exists() {
            std::fs::remove_file(&manifest).map_err(|reason| error(&manifest, reason))?;
        }
        // A link is removed, not what it leads to.
        if directory.is_symlink() {
            return std::fs::remove_file(&directory).map_err(|reason| error(&directory, reason));
        }
        match directory.exists() {
            true => std::fs::remove_dir_all(&directory).map_err(|reason| error(&directory, reason)),
            false => Ok(()),
        }
    }
}
