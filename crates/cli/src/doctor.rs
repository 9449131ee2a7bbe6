//! `backstop doctor`: what this machine can run, and why not.

use std::path::Path;
use std::process::ExitCode;

use backstop_card::{NoCuda, open_nvidia};
use backstop_executor::{ComputeDevice, format_bytes};
use backstop_models::ModelLocator;
use backstop_server::{KeySet, key_file_complaint};

use crate::args::{CandleChoice, DeviceChoice, DoctorArgs, ModelArgs};
use crate::device::{best, describe};
use crate::provenance::weights_digest;
use crate::start::Prepared;
use crate::{candle, load, machine};

#[expect(clippy::print_stdout, reason = "the report is what the command is for")]
pub(crate) fn run(args: &DoctorArgs) -> Result<ExitCode, String> {
    let mut healthy = true;
    println!("backstop {}", env!("CARGO_PKG_VERSION"));
    println!("\nProcessor");
    println!("  cores            {}", machine::cores());
    let features = backstop_kernels::features();
    println!("  architecture     {}", features.architecture);
    println!("  instructions     {}", features.detected.join(" "));
    println!("  kernels run with {:?}", features.chosen);
    println!("\nMemory");
    println!(
        "  total            {}",
        memory(machine::total_memory_bytes())
    );
    println!(
        "  available        {}",
        memory(machine::available_memory_bytes())
    );
    println!("\nDevices, as --device names them");
    println!("  cpu: native kernels");
    for line in gpus() {
        println!("  {line}");
    }
    for line in of_candle() {
        println!("  {line}");
    }

    if let Some(path) = &args.api_key_file {
        println!("\nKeys");
        let verdict = keys(path);
        healthy &= verdict.is_ok();
        let verdict = verdict.unwrap_or_else(|reason| format!("no: {reason}"));
        println!("  {}: {verdict}", path.display());
    }

    println!("\nModels");
    let locator = ModelLocator::from_environment();
    let names: Vec<String> = match &args.model {
        Some(model) => vec![model.clone()],
        None => locator.manifests().into_keys().collect(),
    };
    if names.is_empty() {
        println!("  none found; looked in {:?}", locator.directories());
    }
    for name in names {
        let verdict = judge(&name).and_then(|verdict| match &args.model {
            // Reading every file takes a while, so only for a model that was asked for.
            Some(_) => Ok(format!("{verdict}; {}", verify(&locator, &name)?)),
            None => Ok(verdict),
        });
        match verdict {
            Ok(verdict) => println!("  {name}: {verdict}"),
            Err(reason) => {
                // A known model without weights on this machine is normal, unless it was asked for.
                healthy &= args.model.is_none();
                println!("  {name}: no: {reason}");
            }
        }
    }
    Ok(if healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// GPUs that are looked at.
const GPUS_MAX: u32 = 16;

/// What GPUs there are, or why none can be used.
fn gpus() -> Vec<String> {
    let mut lines = Vec::new();
    for ordinal in 0..GPUS_MAX {
        match open_nvidia(ordinal) {
            Ok(device) => {
                let device = describe(&*device);
                lines.push(format!("cuda:{ordinal}: native kernels, on {device}"));
            }
            Err(NoCuda::NoSuchDevice { .. }) if ordinal > 0 => break,
            Err(reason @ (NoCuda::WrongArchitecture { .. } | NoCuda::Failed { .. })) => {
                let candle = candle::open(CandleChoice::Cuda(ordinal));
                let instead = candle.map_or_else(|without| format!("not used: {without}"), kernels);
                lines.push(format!("cuda:{ordinal}: {instead}; {reason}"));
            }
            Err(reason) => {
                lines.push(format!("cuda: not used: {reason}"));
                break;
            }
        }
    }
    lines
}

/// What there is of candle's devices, or why they cannot be used.
fn of_candle() -> impl Iterator<Item = String> {
    let choices = [
        CandleChoice::Cpu,
        CandleChoice::Metal,
        CandleChoice::Cuda(0),
    ];
    choices.into_iter().map(|choice| {
        let device = candle::open(choice);
        let verdict = device.map_or_else(|reason| format!("not used: {reason}"), kernels);
        format!("{}: {verdict}", DeviceChoice::Candle(choice))
    })
}

fn kernels(device: ComputeDevice) -> String {
    format!("kernels of {}", device.name())
}

/// What a key file holds, and who else can read it.
fn keys(path: &Path) -> Result<String, String> {
    let keys = KeySet::from_file(path).map_err(|error| error.to_string())?;
    let names: std::collections::BTreeSet<&str> = keys.names().collect();
    let (count, names) = (keys.count(), names.len());
    let open = key_file_complaint(path).map_or(String::new(), |reason| format!("; {reason}"));
    Ok(format!("{count} keys, {names} names{open}"))
}

fn memory(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "unknown".to_owned(), format_bytes)
}

/// Compares the files with the digests of the manifest.
fn verify(locator: &ModelLocator, name: &str) -> Result<&'static str, String> {
    let located = locator.locate(name).map_err(|error| error.to_string())?;
    match located
        .verify_digests(&|_| {})
        .map_err(|error| error.to_string())?
    {
        true => Ok("all files match the manifest's digests"),
        false => Ok("no digests are known to compare the files with"),
    }
}

/// Whether the model would load with default settings; the error says why not.
fn judge(name: &str) -> Result<String, String> {
    let args = ModelArgs {
        model: Some(name.to_owned()),
        ..ModelArgs::default()
    };
    let open = load::open(&args)?;
    let prepared = Prepared::on(&args, &open, &best())?;
    let place = match &prepared.refusal {
        None => prepared.place.to_owned(),
        Some(reason) => format!("{}, because {reason}", prepared.place),
    };
    let bytes = prepared.plan.bytes();
    Ok(format!(
        "yes, on {place}: {}, {} of weights with digest {}, {} of KV cache, context of {} tokens",
        open.spec().architecture,
        format_bytes(bytes.weights),
        weights_digest(&open)?,
        format_bytes(bytes.kv),
        prepared.limits.sizes.max_model_len
    ))
}
