//! A pull from its first request to the manifest.

use std::path::PathBuf;

use backstop_models::{ModelLocator, Store};

use crate::args::CommandLine;
use crate::catalogue::Target;
use crate::digests::is_content;
use crate::error::PullError;
use crate::existing::Existing;
use crate::hub::{Files, Hub};
use crate::listing::{LISTING_BYTES_MAX, Listing, RemoteFile};
use crate::placing::Fetched;
use crate::progress::Bars;
use crate::selection::{self, INDEX_BYTES_MAX, Selection};
use crate::settings::Settings;
use crate::space::{self, gigabytes};
use crate::tasks::{Tasks, bytes_left};
use crate::transfer::Transfer;
use crate::work::Work;

/// What came of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The model is there now.
    Pulled {
        /// Its manifest.
        manifest: PathBuf,
        /// Bytes of files that came over the network.
        bytes_fetched: u64,
    },
    /// It was there already.
    AlreadyThere,
    /// It was only asked what would be fetched.
    DryRun {
        /// Names of the files in the repository, and their sizes.
        files: Vec<(String, u64)>,
    },
}

/// Does what the command line says, with the environment's settings.
pub fn run(command_line: &CommandLine) -> Result<(), PullError> {
    let settings = Settings::new(command_line)?;
    let outcome = pull(command_line, &settings, &ModelLocator::from_environment())?;
    if let Outcome::DryRun { files } = &outcome {
        list(files);
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the list is what was asked for")]
fn list(files: &[(String, u64)]) {
    for (name, bytes) in files {
        println!("{bytes:>15}  {name}");
    }
}

/// Fetches a model into the store, or into the directory that the command line names.
pub fn pull(
    command_line: &CommandLine,
    settings: &Settings,
    locator: &ModelLocator,
) -> Result<Outcome, PullError> {
    let target = Target::find(command_line, locator)?;
    let store = store(command_line)?;
    let workers = usize::from(command_line.max_workers);
    let hub = Hub::new(settings, &target.repository, workers);
    let answer = hub.read_small(&hub.listing_url(&target.revision), LISTING_BYTES_MAX)?;
    let listing = Listing::parse(&answer)?;
    let urls = hub.files(&listing.commit)?;
    let selection = selection::choose(&listing, target.quantization.as_deref(), |file| {
        read_file(&hub, &urls, file)
    })?;
    announce(&target, &listing, &selection);
    let existing = Existing::find(&store, &target, &listing, &selection)?;
    match existing {
        Existing::Same => {
            let directory = store.model_directory(&target.name);
            tracing::info!(
                "{} is already there, from this commit: {}",
                target.name,
                directory.display()
            );
            return Ok(Outcome::AlreadyThere);
        }
        Existing::Other { revision } => {
            tracing::info!(
                "{} is there from {revision}, and will be replaced when this is complete",
                target.name
            );
        }
        Existing::Nothing => {}
    }
    if command_line.dry_run {
        if let Err(error) = space::check(store.directory(), selection.bytes) {
            tracing::warn!("{error}");
        }
        let files = selection.files.values();
        let files = files.map(|file| (file.name.clone(), file.bytes)).collect();
        return Ok(Outcome::DryRun { files });
    }
    let sources = Sources {
        hub: &hub,
        urls: &urls,
        workers,
        part_bytes: settings.part_bytes,
    };
    fetch(&sources, &target, &listing, &selection, &store)
}

fn store(command_line: &CommandLine) -> Result<Store, PullError> {
    let named = command_line.to.clone().map(Store::new);
    named.or_else(Store::from_environment).ok_or_else(|| {
        PullError::new("there is no home directory for the store: name a directory with --to or BACKSTOP_MODELS_DIR")
    })
}

/// A file that says what else is to be fetched.
fn read_file(hub: &Hub, urls: &Files, file: &RemoteFile) -> Result<Vec<u8>, PullError> {
    let bytes = hub.read_small(&urls.url(&file.name), INDEX_BYTES_MAX)?;
    match is_content(&bytes, file) {
        true => Ok(bytes),
        false => Err(PullError::new(format!(
            "{} is not what the hub lists: its size or digest is another; pull again",
            file.name
        ))),
    }
}

fn announce(target: &Target, listing: &Listing, selection: &Selection) {
    let licence = listing.licence.as_deref().unwrap_or("not stated");
    let gate = match listing.gated {
        Some(_) => ", given only to those who accepted it there",
        None => "",
    };
    tracing::info!(
        "{} at {} as {}",
        target.repository,
        listing.commit,
        target.name
    );
    tracing::info!("licence: {licence}{gate}");
    tracing::info!(
        "{} files, {}",
        selection.files.len(),
        gigabytes(selection.bytes)
    );
}

/// Where everything comes from, and how.
struct Sources<'a> {
    hub: &'a Hub,
    urls: &'a Files,
    workers: usize,
    part_bytes: u64,
}

fn fetch(
    sources: &Sources<'_>,
    target: &Target,
    listing: &Listing,
    selection: &Selection,
    store: &Store,
) -> Result<Outcome, PullError> {
    // What a journal is about; of anything else nothing is used.
    let heading = format!(
        "backstop-pull 1 {} {} {}",
        target.repository, listing.commit, sources.part_bytes
    );
    let work = Work::open(store, &target.name, &heading, &selection.files)?;
    let bytes_left = bytes_left(&selection.files, &work.done, sources.part_bytes);
    space::check(store.directory(), bytes_left)?;
    let tasks = Tasks::new(&selection.files, &work.done, sources.part_bytes);
    let bytes_there = selection.bytes.saturating_sub(bytes_left);
    if bytes_there > 0 {
        tracing::info!(
            "going on with {} of {} there",
            gigabytes(bytes_there),
            gigabytes(selection.bytes)
        );
    }
    let bars = Bars::new(selection.bytes, bytes_there);
    let transfer = Transfer {
        hub: sources.hub,
        urls: sources.urls,
        files: &selection.files,
        work: &work,
        tasks: &tasks,
        bars: &bars,
        workers: sources.workers,
    };
    let mut digests = transfer.run()?;
    let checked = work
        .done
        .iter()
        .filter_map(|(place, done)| Some((place.clone(), done.sha256.clone()?)));
    digests.extend(checked);
    let bytes_fetched = bars.bytes_now();
    drop(bars);
    let fetched = Fetched {
        target,
        listing,
        selection,
        digests,
    };
    let manifest = fetched.place(store, work)?;
    let directory = store.model_directory(&target.name);
    tracing::info!(
        "{} is complete and checked: {}",
        target.name,
        directory.display()
    );
    Ok(Outcome::Pulled {
        manifest,
        bytes_fetched,
    })
}
