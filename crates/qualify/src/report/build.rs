//! Gathers what a report is made of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use backstop_models::Manifest;

use super::args::BuildArgs;
use super::cost::{Cost, prices};
use super::identity::{Identity, sha256};
use super::model::{Criterion, Report, SHAPE};
use super::speed::Speed;
use super::summary::{Parts, Summary};
use super::{drill, noise, page, speed, timestamp, unix_now_s};
use crate::PROGRAM;
use crate::QualifyError;
use crate::claims::{self, Circumstances};
use crate::conformance;
use crate::output::{write_file, write_json};
use crate::record::Measure;
use crate::store::Results;

pub(super) fn run(args: &BuildArgs) -> Result<ExitCode, QualifyError> {
    let report = gather(args)?;
    if let Some(path) = &args.json {
        write_json(path, &report)?;
    }
    if let Some(path) = &args.html {
        write_file(path, page::of(&report).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn gather(args: &BuildArgs) -> Result<Report, QualifyError> {
    let (root, inputs) = (&args.results, &args.inputs);
    let results = Results::open(root)?;
    let manifest = inputs.manifest.as_deref().map(read_manifest).transpose()?;
    let measures: Vec<Measure> = results
        .measures()?
        .into_iter()
        .flat_map(|(_, measures)| measures)
        .collect();
    let noise = noise::of(&measures);
    let conformance = conformance::read(root)?;
    let speed = speed::read(&inputs.bench)?;
    let drill = inputs.drill.as_deref().map(drill::read).transpose()?;
    let prices = prices(args.cost.prices.as_deref())?;
    let run = results.run;
    let identity = Identity::of(run.subject, manifest.as_ref(), inputs)?;
    let served = Circumstances {
        weights: identity.weights_format.clone(),
    };
    let vendor = manifest
        .as_ref()
        .map_or(&[][..], |manifest| &manifest.claims);
    let claims = claims::check(vendor, &measures, &served);
    let hourly = args.cost.hourly_cost.zip(speed.as_ref());
    let cost =
        hourly.and_then(|(hourly, speed)| Cost::of(hourly, &args.cost.currency, speed, &prices));
    if let (Some(_), None) = (args.cost.hourly_cost, &cost) {
        let reason =
            "--hourly-cost needs --bench, with a load at which nearly all requests were answered";
        return Err(QualifyError::new(reason));
    }
    let summary = Summary::of(&Parts {
        claims: &claims,
        noise: &noise,
        speed: speed.as_ref(),
        conformance: conformance.as_ref(),
        drill: drill.as_ref(),
        cost: cost.as_ref(),
    });
    let built = unix_now_s();
    Ok(Report {
        shape: SHAPE,
        program: PROGRAM,
        began: timestamp(run.began_unix_s),
        built: timestamp(built),
        expires: timestamp(built.saturating_add(args.expires.as_secs())),
        decision: decision(
            &identity,
            manifest.as_ref(),
            inputs.location.as_deref(),
            &speed,
        ),
        limits: limits(&measures, &identity),
        evidence: evidence(args)?,
        identity,
        settings: run.settings,
        summary,
        claims,
        measures,
        noise,
        speed,
        conformance,
        drill,
        cost,
    })
}

fn read_manifest(path: &Path) -> Result<Manifest, QualifyError> {
    Manifest::read(path).map_err(|error| QualifyError::new(error.to_string()))
}

/// What whoever chooses a fallback asks, but for prices.
fn decision(
    identity: &Identity,
    manifest: Option<&Manifest>,
    location: Option<&str>,
    speed: &Option<Speed>,
) -> Vec<Criterion> {
    let row = |name, finding: Option<String>, basis: &str| Criterion {
        name,
        finding,
        basis: basis.to_owned(),
    };
    let licence = manifest.and_then(|manifest| manifest.licence.clone());
    let hardware = manifest.and_then(|manifest| manifest.hardware.as_ref());
    let floor = hardware.map(|floor| {
        let gigabytes = floor.device_memory_bytes as f64 / 1e9;
        format!("{gigabytes:.1} GB of device memory")
    });
    let floor_notes = hardware.and_then(|floor| floor.notes.as_deref());
    let ran_on = identity.hardware.clone().or(identity.version("/device"));
    let recommended = manifest.and_then(|manifest| manifest.context_length);
    let context = identity.context().map(|tokens| match recommended {
        Some(vendor) => format!("{tokens} tokens served; the vendor recommends up to {vendor}"),
        None => format!("{tokens} tokens served"),
    });
    let revision = identity
        .entry("/provenance/revision")
        .or(manifest.and_then(|manifest| manifest.revision.clone()));
    let repository = identity
        .entry("/provenance/repository")
        .or(manifest.and_then(|manifest| manifest.repository.clone()));
    let origin = repository.map(|repository| match revision {
        Some(revision) => format!("{repository} at {revision}"),
        None => repository,
    });
    let shedding = speed.as_ref().map(|speed| match speed.sheds_from() {
        Some(point) => format!("refuses requests from {} on", point.load_text()),
        None => "no load that was tried was too high".to_owned(),
    });
    vec![
        row("licence of the weights", licence, "the model's manifest"),
        row(
            "where it runs",
            location.map(str::to_owned),
            "the operator (--location)",
        ),
        row(
            "where the weights are from",
            origin,
            "the server, or the model's manifest",
        ),
        row(
            "hardware floor",
            floor,
            floor_notes.unwrap_or("the model's manifest"),
        ),
        row("ran on", ran_on, "the operator (--hardware), or the server"),
        row("context", context, "the server's list of models"),
        row("too much load", shedding, "the benchmark (--bench)"),
    ]
}

/// What a reader must not take it for.
fn limits(measures: &[Measure], identity: &Identity) -> Vec<String> {
    let mut limits = vec![
        "Benchmarks that are public may have been a part of the model's training; your own work may go otherwise.".to_owned(),
        "An interval says how far a rate may be off because of the number of tasks. It knows nothing of how tasks were chosen."
            .to_owned(),
        "A claim that is called reproduced was not refuted by so many tasks; that is no proof that it is exact.".to_owned(),
        "What the server says of itself was not checked against its machine.".to_owned(),
    ];
    if measures
        .iter()
        .any(|measure| measure.interval.is_none() && measure.count < 100)
    {
        limits.push("Some numbers have no interval and are of fewer than 100 tasks.".to_owned());
    }
    if identity.files.is_empty() {
        limits.push("No weights were hashed for this report (--weights): it is bound to what the server says of them.".to_owned());
    }
    limits
}

/// Everything that went into it, by its name as the report has it.
fn evidence(args: &BuildArgs) -> Result<BTreeMap<String, String>, QualifyError> {
    let mut files = BTreeMap::new();
    for name in files_below(&args.results)? {
        files.insert(name.clone(), sha256(&args.results.join(&name))?);
    }
    let inputs = &args.inputs;
    let further: Vec<&PathBuf> = inputs
        .manifest
        .iter()
        .chain(&inputs.bench)
        .chain(&inputs.drill)
        .chain(&args.cost.prices)
        .collect();
    for path in further {
        files.insert(path.display().to_string(), sha256(path)?);
    }
    Ok(files)
}

/// Results that are a part of the evidence; nothing else that lies there is looked at.
fn files_below(root: &Path) -> Result<Vec<String>, QualifyError> {
    const FILES_MAX: usize = 10_000;
    const DEPTH_MAX: usize = 8;
    let mut found: Vec<String> = ["run.json", "conformance.json"]
        .into_iter()
        .filter(|name| root.join(name).is_file())
        .map(str::to_owned)
        .collect();
    let mut open: Vec<(String, usize)> = ["answers", "repeats", "measures"]
        .map(|name| (name.to_owned(), 0))
        .into();
    while let Some((folder, depth)) = open.pop() {
        let path = root.join(&folder);
        if !path.is_dir() || depth > DEPTH_MAX {
            continue;
        }
        let at = |error| QualifyError::at(&path, error);
        for entry in std::fs::read_dir(&path).map_err(at)? {
            let entry = entry.map_err(at)?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let name = format!("{folder}/{name}");
            let kind = entry.file_type().map_err(at)?;
            if kind.is_dir() {
                open.push((name, depth + 1));
            } else if kind.is_file() && (name.ends_with(".json") || name.ends_with(".jsonl")) {
                found.push(name);
            }
            if found.len() > FILES_MAX {
                return Err(QualifyError::at(root, "it has too many files"));
            }
        }
    }
    Ok(found)
}
