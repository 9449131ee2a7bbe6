//! Makes a model of the store out of files that are all there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backstop_input::{ValueAllowance, read_file};
use backstop_models::{FileRecord, FileRecords, Manifest, Store};
use serde_json::Value;

use crate::catalogue::Target;
use crate::error::PullError;
use crate::listing::Listing;
use crate::selection::Selection;
use crate::work::{Work, sync_directory};

const CONFIG_BYTES_MAX: u64 = 16 << 20;
const CONFIG_VALUES_MAX: usize = 200_000;
/// GGUF files say themselves what they are.
const GGUF_ARCHITECTURE: &str = "GGUF";

/// What is known of a model that was fetched.
pub(crate) struct Fetched<'a> {
    pub(crate) target: &'a Target,
    pub(crate) listing: &'a Listing,
    pub(crate) selection: &'a Selection,
    /// SHA-256 by where files lie.
    pub(crate) digests: BTreeMap<String, String>,
}

impl Fetched<'_> {
    /// Puts the files into their place and records them; what was there before goes last.
    pub(crate) fn place(self, store: &Store, work: Work) -> Result<PathBuf, PullError> {
        let name = &self.target.name;
        let directory = match work.is_moved() {
            true => store.model_directory(name),
            false => work.files(),
        };
        let manifest = self.manifest(&directory)?;
        // Before anything is moved: what would not be read cannot be recorded.
        manifest.text().map_err(PullError::new)?;
        let at = |error| PullError::at(&store.model_directory(name), error);
        if !work.is_moved() {
            work.put_into_place(store, name).map_err(at)?;
        }
        let path = store
            .record(&manifest)
            .map_err(|error| PullError::new(error.to_string()))?;
        sync_directory(store.directory())
            .and_then(|()| work.finish())
            .map_err(at)?;
        Ok(path)
    }

    fn manifest(&self, directory: &Path) -> Result<Manifest, PullError> {
        let (target, listing) = (self.target, self.listing);
        let mut manifest = match &target.manifest {
            Some(known) => self.known(known)?,
            None => self.new_manifest(directory),
        };
        manifest.name.clone_from(&target.name);
        manifest.repository = Some(target.repository.clone());
        manifest.revision = Some(listing.commit.clone());
        manifest.quantization.clone_from(&target.quantization);
        manifest.licence = listing.licence.clone().or(manifest.licence);
        // Both are beside the manifest of the catalogue; here the files themselves are.
        (manifest.path, manifest.shape) = (None, None);
        manifest.files = Some(self.records());
        Ok(manifest)
    }

    /// The manifest of the catalogue, if it is not contradicted.
    fn known(&self, known: &Manifest) -> Result<Manifest, PullError> {
        let mut manifest = known.clone();
        if known.revision.as_ref() != Some(&self.listing.commit) {
            // It was recorded with other weights.
            manifest.canary = None;
            return Ok(manifest);
        }
        for (place, record) in known.files.iter().flatten() {
            let differs = |digest: &&String| !digest.eq_ignore_ascii_case(&record.sha256);
            if let Some(found) = self.digests.get(place).filter(differs) {
                return Err(PullError::new(format!(
                    "{place} of this commit has digest {found}, and the manifest that Backstop brings along says {}: \
                     one of the two was changed",
                    record.sha256
                )));
            }
        }
        Ok(manifest)
    }

    fn new_manifest(&self, directory: &Path) -> Manifest {
        let (target, commit) = (self.target, &self.listing.commit);
        let description = format!("{} at {commit}.", target.repository);
        let config = match self.selection.is_gguf {
            true => None,
            false => config(directory),
        };
        let model_type = config
            .as_ref()
            .and_then(|config| text(config.get("model_type")?));
        let listed = config
            .as_ref()
            .and_then(|config| text(config.get("architectures")?.get(0)?));
        let usual = match self.selection.is_gguf {
            true => GGUF_ARCHITECTURE,
            false => "unknown",
        };
        let architecture = listed.or_else(|| model_type.clone());
        let architecture = architecture.unwrap_or_else(|| usual.to_owned());
        let mut manifest = Manifest::new(&target.name, &architecture, &description);
        manifest.model_type = model_type;
        manifest
    }

    fn records(&self) -> FileRecords {
        let record = |(place, sha256): (&String, &String)| {
            let record = FileRecord {
                sha256: sha256.clone(),
                bytes: self.selection.files.get(place).map(|file| file.bytes),
            };
            (place.clone(), record)
        };
        self.digests.iter().map(record).collect()
    }
}

/// What a checkpoint says of itself, if that can be read: the server will say what is wrong with it.
fn config(directory: &Path) -> Option<Value> {
    let text = read_file(&directory.join("config.json"), CONFIG_BYTES_MAX).ok()?;
    ValueAllowance::new(CONFIG_VALUES_MAX).parse(&text).ok()
}

fn text(value: &Value) -> Option<String> {
    value
        .as_str()
        .filter(|text| text.len() <= 200)
        .map(str::to_owned)
}
