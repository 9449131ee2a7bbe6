//! What this machine makes of a model.

use backstop_executor::{ComputeDevice, format_bytes};
use backstop_models::{LocatedModel, Manifest, ModelLocator};
use serde::Serialize;

use crate::args::ModelArgs;
use crate::load::OpenModel;
use crate::start::Prepared;
use crate::{load, machine};

/// A model that has room for less is of no use.
const CONTEXT_MIN: u32 = 1024;

/// A known model, whether its weights are here, and whether this machine runs it.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) name: String,
    /// Bytes of its weights, if they are here.
    pub(super) weight_bytes: Option<u64>,
    /// Whether this machine runs it, or would if the weights were here; `None` where that cannot be told.
    pub(super) runs: Option<bool>,
    /// Where it runs, in words.
    pub(super) device: Option<String>,
    /// Tokens of the longest sequence with default settings.
    pub(super) context: Option<u32>,
    /// Why it does not run, or what it needs.
    pub(super) note: Option<String>,
}

/// Of the model that this names, on this device.
pub(super) fn judge(
    locator: &ModelLocator,
    name: &str,
    manifest: Option<&Manifest>,
    device: &ComputeDevice,
) -> Verdict {
    match locator.locate(name) {
        Ok(located) => of_files(&located, name, device),
        Err(_) => of_manifest(name, manifest, device),
    }
}

/// By its files.
fn of_files(located: &LocatedModel, name: &str, device: &ComputeDevice) -> Verdict {
    let unknown = Verdict {
        name: located.name(),
        weight_bytes: None,
        runs: Some(false),
        device: None,
        context: None,
        note: None,
    };
    let args = ModelArgs {
        model: Some(name.to_owned()),
        ..ModelArgs::default()
    };
    let open = match load::open(&args) {
        Ok(open) => open,
        Err(reason) => {
            return Verdict {
                note: Some(reason),
                ..unknown
            };
        }
    };
    let weight_bytes = Some(open.source.checkpoint.bytes_total());
    match fitting(&args, &open, device) {
        Ok((prepared, note)) => Verdict {
            weight_bytes,
            runs: Some(true),
            device: Some(prepared.place.to_owned()),
            context: Some(prepared.limits.sizes.max_model_len),
            note: prepared.refusal.or(note),
            ..unknown
        },
        Err(reason) => Verdict {
            weight_bytes,
            note: Some(reason),
            ..unknown
        },
    }
}

/// With the longest context that fits: the default one, or else half of the model's, a quarter and so on, and what to
/// set for it.
fn fitting(
    args: &ModelArgs,
    open: &OpenModel,
    device: &ComputeDevice,
) -> Result<(Prepared, Option<String>), String> {
    let refused = match Prepared::on(args, open, device) {
        Ok(prepared) => return Ok((prepared, None)),
        Err(reason) => reason,
    };
    let longest = open.spec().max_position_embeddings;
    let shorter = std::iter::successors(Some(longest / 2), |context| Some(context / 2));
    for context in shorter.take_while(|context| *context >= CONTEXT_MIN) {
        let shorter = ModelArgs {
            max_model_len: Some(context),
            ..args.clone()
        };
        if let Ok(prepared) = Prepared::on(&shorter, open, device) {
            let note = format!("with --max-model-len {context}: its {longest} tokens do not fit");
            return Ok((prepared, Some(note)));
        }
    }
    Err(refused)
}

/// By what its manifest says it needs.
fn of_manifest(name: &str, manifest: Option<&Manifest>, device: &ComputeDevice) -> Verdict {
    let unknown = Verdict {
        name: name.to_owned(),
        weight_bytes: None,
        runs: None,
        device: None,
        context: None,
        note: None,
    };
    let Some(manifest) = manifest else {
        return unknown;
    };
    if let Some(note) = not_computed(manifest) {
        return Verdict {
            runs: Some(false),
            note: Some(note),
            ..unknown
        };
    }
    let needed = manifest.hardware.as_ref();
    let needed = needed.map(|hardware| hardware.device_memory_bytes);
    let memory = memory(device);
    let runs = needed.zip(memory).map(|(needed, there)| needed <= there);
    let note = needed.map(|needed| {
        let there = memory.map_or_else(|| "unknown".to_owned(), format_bytes);
        format!("needs {}; there is {there}", format_bytes(needed))
    });
    Verdict {
        runs,
        device: (runs == Some(true)).then(|| device.name().to_owned()),
        note,
        ..unknown
    }
}

/// Why no device computes the model.
fn not_computed(manifest: &Manifest) -> Option<String> {
    let model_type = manifest.model_type.as_deref()?;
    if !backstop_arch::names().contains(&model_type) {
        return Some(format!(
            "this build does not compute model_type {model_type}"
        ));
    }
    let is_gguf = manifest.quantization.is_some();
    let mut read = backstop_arch::gguf_families().into_iter();
    match is_gguf && !read.any(|family| family.model_type == model_type) {
        true => Some(format!(
            "this build reads no GGUF files of model_type {model_type}"
        )),
        false => None,
    }
}

/// The memory of a device, as far as it is known.
fn memory(device: &ComputeDevice) -> Option<u64> {
    match device {
        ComputeDevice::Cuda(card) => Some(card.facts().memory_bytes),
        _ => machine::total_memory_bytes(),
    }
}
