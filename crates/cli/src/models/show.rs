//! `backstop models show`.

use std::process::ExitCode;

use backstop_executor::format_bytes;
use backstop_models::{ClaimValue, FileRecords, LocateError, Manifest, ModelLocator};

use super::verdict::{Verdict, judge};
use crate::args::ShowArgs;
use crate::device;

#[expect(clippy::print_stdout, reason = "the report is what the command is for")]
pub(super) fn run(args: &ShowArgs) -> Result<ExitCode, String> {
    let locator = ModelLocator::from_environment();
    let (place, manifest) = match locator.locate(&args.model) {
        Ok(located) => {
            let manifest = located.manifest.map(|(_, manifest)| manifest);
            (Some(located.directory), manifest)
        }
        Err(LocateError::NoWeights { manifest, .. }) => {
            let manifest = Manifest::read(&manifest).map_err(|error| error.to_string())?;
            (None, Some(manifest))
        }
        Err(error) => return Err(error.to_string()),
    };
    let verdict = judge(&locator, &args.model, manifest.as_ref(), &device::best());
    if args.json {
        let report = serde_json::json!({
            "directory": place, "here": place.is_some(), "verdict": verdict, "manifest": manifest,
        });
        let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        println!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", verdict.name);
    if let Some(manifest) = &manifest {
        println!("  {}", manifest.description);
    }
    let place = place.map_or("not on this machine".to_owned(), |place| {
        place.display().to_string()
    });
    line("here", Some(place));
    line("runs", Some(runs(&verdict)));
    if let Some(manifest) = &manifest {
        of_manifest(manifest);
    }
    Ok(ExitCode::SUCCESS)
}

fn runs(verdict: &Verdict) -> String {
    let note = verdict.note.as_deref().unwrap_or("no more is known");
    match (verdict.runs, &verdict.device, verdict.context) {
        (Some(true), Some(device), Some(context)) => {
            format!("on {device}, with a context of {context} tokens")
        }
        (Some(true), Some(device), None) => format!("on {device}, once it is here; {note}"),
        (Some(false), ..) => format!("no: {note}"),
        _ => format!("unknown: {note}"),
    }
}

fn of_manifest(manifest: &Manifest) {
    line("architecture", Some(manifest.architecture.clone()));
    line("repository", manifest.repository.clone());
    line("commit", manifest.revision.clone());
    line("quantization", manifest.quantization.clone());
    line("licence", manifest.licence.clone());
    let context = manifest.context_length;
    line("context", context.map(|tokens| format!("{tokens} tokens")));
    for (format, bytes) in &manifest.weight_bytes {
        line(
            "weights",
            Some(format!("{} in {format}", format_bytes(*bytes))),
        );
    }
    if let Some(hardware) = &manifest.hardware {
        line("needs", Some(format_bytes(hardware.device_memory_bytes)));
        line("", hardware.notes.clone());
        line("too large", hardware.instead.clone());
    }
    for claim in &manifest.claims {
        let value = match &claim.value {
            ClaimValue::Number(number) => number.to_string(),
            ClaimValue::Text(text) => text.clone(),
        };
        line("claim", Some(format!("{}: {value}", claim.name)));
        line(
            "",
            claim
                .method
                .as_ref()
                .map(|method| format!("method: {method}")),
        );
        line("", Some(format!("source: {}", claim.source)));
    }
    if let Some(files) = &manifest.files {
        files_of(files);
    }
}

#[expect(clippy::print_stdout, reason = "the report is what the command is for")]
fn files_of(files: &FileRecords) {
    println!("  files, with SHA-256 and size");
    for (name, record) in files {
        let size = record
            .bytes
            .map_or("-".to_owned(), |bytes| bytes.to_string());
        println!("    {}  {size:>14}  {name}", record.sha256);
    }
}

#[expect(clippy::print_stdout, reason = "the report is what the command is for")]
fn line(label: &str, text: Option<String>) {
    if let Some(text) = text {
        println!("  {label:13} {text}");
    }
}
