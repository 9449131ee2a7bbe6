//! `backstop import`: takes models that were carried here into the store, without network.

mod copy;
mod source;

use std::path::Path;
use std::process::ExitCode;

use backstop_executor::format_bytes;
use backstop_models::{FileRecord, FileRecords, Manifest, Store, digest_of, is_model_name};

use self::copy::{copy_all, files_of};
use self::source::Source;
use crate::args::ImportArgs;
use crate::models::NO_STORE;
use crate::progress::bytes_bar;

pub(crate) fn run(args: &ImportArgs) -> Result<ExitCode, String> {
    let store = Store::from_environment().ok_or(NO_STORE)?;
    let sources = source::find(&args.directory)?;
    match (&args.name, sources.as_slice()) {
        (Some(name), [source]) => import(source, name, &store)?,
        (Some(_), sources) => {
            let names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
            return Err(format!(
                "--name is for one model, and there are {}",
                names.join(", ")
            ));
        }
        (None, sources) => {
            for source in sources {
                import(source, &source.name, &store)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Copies, hashes what was copied, and records it last.
#[expect(clippy::print_stdout, reason = "what was done is worth a line")]
fn import(source: &Source, name: &str, store: &Store) -> Result<(), String> {
    if !is_model_name(name) {
        return Err(format!(
            "{name:?} cannot be the name of a model: it may have letters, digits, '.', '_' and '-'. Choose with --name"
        ));
    }
    let directory = store.model_directory(name);
    if directory.exists() || store.manifest_path(name).exists() {
        return Err(format!(
            "{} is there already: `backstop models remove {name}` removes it, --name gives another name",
            directory.display()
        ));
    }
    let unfinished = store.directory().join(format!(".import-{name}"));
    let files = files_of(&source.directory)?;
    let bytes = files.iter().map(|file| file.bytes).sum();
    check_recorded(source, &files)?;
    let records = copy_checked(source, &files, &unfinished, bytes).inspect_err(|_| {
        // What is wrong is of no use to a second try.
        let _ignored = std::fs::remove_dir_all(&unfinished);
    })?;
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    std::fs::rename(&unfinished, &directory).map_err(failed)?;
    let manifest = Manifest {
        name: name.to_owned(),
        path: None,
        shape: None,
        files: Some(records),
        ..source.manifest.clone()
    };
    let recorded = store.record(&manifest);
    recorded.map_err(|error| error.to_string())?;
    println!(
        "imported {name}, {} in {}; `backstop serve {name}` serves it",
        format_bytes(bytes),
        directory.display()
    );
    Ok(())
}

/// Copies all files, and says what the copies are once they have proven to be what they should.
fn copy_checked(
    source: &Source,
    files: &[copy::File],
    to: &Path,
    bytes: u64,
) -> Result<FileRecords, String> {
    copy_all(files, to, bytes)?;
    let records = hash(to, files, bytes)?;
    check_digests(source, &records)?;
    Ok(records)
}

/// Refuses to leave a file behind that was recorded where the model comes from.
fn check_recorded(source: &Source, files: &[copy::File]) -> Result<(), String> {
    let is_there = |name: &String| files.iter().any(|file| file.name == *name);
    let recorded = source.manifest.files.iter().flat_map(FileRecords::keys);
    let mut missing = recorded.filter(|name| !is_there(name));
    match missing.next() {
        Some(name) => Err(format!(
            "{} is in the model's manifest, and not in {}",
            name,
            source.directory.display()
        )),
        None => Ok(()),
    }
}

/// What was copied, as the disk has it.
fn hash(directory: &Path, files: &[copy::File], bytes: u64) -> Result<FileRecords, String> {
    let bar = bytes_bar("hashing", bytes);
    let mut records = FileRecords::new();
    for file in files {
        let path = directory.join(&file.name);
        let digest = digest_of(&path, &|bytes| bar.inc(bytes));
        let sha256 = digest.map_err(|error| format!("{}: {error}", path.display()))?;
        if let Some(expected) = &file.sha256
            && *expected != sha256
        {
            return Err(format!(
                "{} is not what the cache calls it: it has SHA-256 {sha256}, and its name says {expected}",
                file.from.display()
            ));
        }
        let bytes = Some(file.bytes);
        records.insert(file.name.clone(), FileRecord { sha256, bytes });
    }
    bar.finish_and_clear();
    Ok(records)
}

/// Compares with what was recorded where the model comes from.
fn check_digests(source: &Source, found: &FileRecords) -> Result<(), String> {
    for (name, record) in source.manifest.files.iter().flatten() {
        let found = found.get(name).map(|found| found.sha256.as_str());
        if found.is_none_or(|found| !found.eq_ignore_ascii_case(&record.sha256)) {
            return Err(format!(
                "{name} is not what the manifest records: it has SHA-256 {}, expected {}; carry it here again",
                found.unwrap_or("none"),
                record.sha256
            ));
        }
    }
    Ok(())
}
