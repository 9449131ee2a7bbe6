//! `backstop doctor`: what this machine can run, and why not.

use std::process::ExitCode;

use backstop_weights::ModelLocator;

use crate::args::{DoctorArgs, ModelArgs};
use crate::quantities::format_bytes;
use crate::{load, machine};

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
    println!("\nGPU");
    println!("  not used: this build computes on the processor only");

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
    let limits = load::limits(&args, &open)?;
    let kv = load::kv_memory(&args, &limits, &open.spec().kv_groups)?;
    let weights = open.checkpoint.bytes_total();
    let needed = weights + kv.bytes;
    match machine::available_memory_bytes() {
        Some(free) if needed > free => Err(format!(
            "it needs {} for weights and KV cache, and {} are free",
            format_bytes(needed),
            format_bytes(free)
        )),
        _ => Ok(format!(
            "yes: {}, {} of weights, {} of KV cache, context of {} tokens",
            open.spec().architecture,
            format_bytes(weights),
            format_bytes(kv.bytes),
            limits.max_model_len
        )),
    }
}
