//! What the store has under a name already.

use backstop_models::{Manifest, Store, check_sizes};

use crate::catalogue::Target;
use crate::error::PullError;
use crate::listing::Listing;
use crate::selection::Selection;
use crate::work::exchange_was_cut_off;

/// What the store has under a name already.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    Nothing,
    /// All of what is asked for, from the same commit.
    Same,
    /// The same repository in another commit, or incomplete.
    Other {
        revision: String,
    },
}

impl Existing {
    /// Looks; what a pull may not replace is an error.
    pub(crate) fn find(
        store: &Store,
        target: &Target,
        listing: &Listing,
        selection: &Selection,
    ) -> Result<Self, PullError> {
        let (path, directory) = (
            store.manifest_path(&target.name),
            store.model_directory(&target.name),
        );
        let advice = "choose another --name, or remove it first";
        if !path.exists() {
            let is_own = exchange_was_cut_off(store, &target.name);
            return match directory.exists() && !is_own {
                true => Err(PullError::at(
                    &directory,
                    format!("it is there, and no pull made it: {advice}"),
                )),
                false => Ok(Self::Nothing),
            };
        }
        let manifest = Manifest::read(&path).map_err(|error| PullError::new(error.to_string()))?;
        if manifest.repository.as_ref() != Some(&target.repository) {
            let other = manifest.repository.as_deref().unwrap_or("something else");
            return Err(PullError::at(
                &path,
                format!("it is of {other}, not of {}: {advice}", target.repository),
            ));
        }
        if manifest.directory(&path) != directory {
            return Err(PullError::at(
                &path,
                format!("its files lie outside of the store: {advice}"),
            ));
        }
        if !directory.exists() {
            return Ok(Self::Nothing);
        }
        Ok(
            match is_same(&manifest, store, target, listing, selection) {
                true => Self::Same,
                false => Self::Other {
                    revision: manifest
                        .revision
                        .unwrap_or_else(|| "an unknown revision".to_owned()),
                },
            },
        )
    }
}

fn is_same(
    manifest: &Manifest,
    store: &Store,
    target: &Target,
    listing: &Listing,
    selection: &Selection,
) -> bool {
    let Some(records) = &manifest.files else {
        return false;
    };
    let is_recorded = |(place, bytes): (&String, u64)| {
        records
            .get(place)
            .is_some_and(|record| record.bytes == Some(bytes))
    };
    let mut expected = selection
        .files
        .iter()
        .map(|(place, file)| (place, file.bytes));
    manifest.revision.as_ref() == Some(&listing.commit)
        && manifest.quantization == target.quantization
        && expected.all(is_recorded)
        && check_sizes(&store.model_directory(&target.name), records).is_ok()
}
