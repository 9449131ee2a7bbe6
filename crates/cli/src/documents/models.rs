//! The page of models, from the list of architectures, what backends are able to do, and the manifests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backstop_arch::{build, gguf_families, names};
use backstop_card::ABILITIES;
use backstop_kernels::Feature;
use backstop_models::{Manifest, ModelLocator};
use serde_json::{Map, Value};

use super::markdown::{Table, code, thousands};

/// Where a checkout has configurations of every family: as published, and small ones.
const CONFIGURATIONS: [&str; 3] = [
    "crates/arch/tests/published",
    "models/shapes",
    "tests/goldens/decoders",
];

pub(super) fn write(root: &Path) -> Result<String, String> {
    let manifests = read_manifests(&root.join("models"))?;
    let lacking = lacking(root)?;
    Ok(format!(
        "{}{}",
        architectures(&manifests, &lacking)?,
        known(&manifests)
    ))
}

fn read_manifests(directory: &Path) -> Result<Vec<Manifest>, String> {
    let locator = ModelLocator::new(vec![directory.to_owned()]);
    let paths = locator.manifests().into_values();
    let manifests: Result<Vec<_>, _> = paths.map(|path| Manifest::read(&path)).collect();
    manifests.map_err(|error| error.to_string())
}

/// What all models of a family need and a GPU does not have, by the families' names.
fn lacking(root: &Path) -> Result<BTreeMap<String, Vec<Feature>>, String> {
    let mut families: BTreeMap<String, Vec<Feature>> = BTreeMap::new();
    for path in CONFIGURATIONS
        .into_iter()
        .flat_map(|place| configurations(&root.join(place)))
    {
        let fault = |reason: String| format!("{}: {reason}", path.display());
        let text = std::fs::read_to_string(&path).map_err(|error| fault(error.to_string()))?;
        let config: Map<String, Value> =
            serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?;
        let name = config.get("model_type").and_then(Value::as_str);
        let name = name.unwrap_or_default().to_owned();
        let needs = build(&config)
            .map_err(|error| fault(error.to_string()))?
            .needs();
        let lacks = |feature: &Feature| {
            needs.features.contains(feature) && !ABILITIES.features.contains(feature)
        };
        match families.get_mut(&name) {
            Some(all) => all.retain(lacks),
            None => {
                families.insert(name, Feature::ALL.iter().copied().filter(lacks).collect());
            }
        }
    }
    Ok(families)
}

/// The configurations in a directory, or in directories there.
fn configurations(directory: &Path) -> Vec<PathBuf> {
    let entries = directory.read_dir().into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let files = paths.map(|path| {
        if path.is_dir() {
            path.join("config.json")
        } else {
            path
        }
    });
    files
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect()
}

fn architectures(
    manifests: &[Manifest],
    lacking: &BTreeMap<String, Vec<Feature>>,
) -> Result<String, String> {
    let gguf = gguf_families();
    let mut table = Table::new(&["`model_type`", "such as", "GGUF", "GPU"]);
    for name in names() {
        let is_member = |manifest: &&Manifest| manifest.model_type.as_deref() == Some(name);
        let members = manifests.iter().filter(is_member);
        let members: Vec<&str> = members.map(|manifest| manifest.name.as_str()).collect();
        let in_gguf = gguf.iter().find(|family| family.model_type == name);
        let in_gguf = in_gguf.map(|family| code(family.conventions.name));
        let lacking = lacking.get(name);
        let lacking =
            lacking.ok_or_else(|| format!("no configuration has the model_type {name}"))?;
        let lacking: Vec<String> = lacking.iter().map(Feature::to_string).collect();
        let on_gpu = match lacking.is_empty() {
            true => "yes".to_owned(),
            false => format!("no: {}", lacking.join(", ")),
        };
        table.row(&[
            code(name),
            members.join(", "),
            in_gguf.unwrap_or_default(),
            on_gpu,
        ]);
    }
    let heads = ABILITIES.head_dims.unwrap_or_default().iter();
    let heads: Vec<String> = heads.map(u32::to_string).collect();
    Ok(format!(
        "## Architectures\n\nWhat `config.json` says as `model_type`, what of it has a manifest, how GGUF \
         files call it, and whether a GPU computes it. The CPU computes all. A GPU computes attention \
         with heads of {} elements. What else may stand in its way is said at the start.\n\n{}",
        heads.join(", "),
        table.finish()
    ))
}

fn known(manifests: &[Manifest]) -> String {
    let mut table = Table::new(&[
        "name",
        "model",
        "licence",
        "context",
        "bytes of the weights",
        "least memory, bytes",
    ]);
    for manifest in manifests {
        let bytes = manifest.weight_bytes.iter();
        let bytes: Vec<String> = bytes
            .map(|(format, bytes)| format!("{format} {}", thousands(*bytes)))
            .collect();
        let name = match &manifest.repository {
            Some(repository) => format!(
                "{} ({})",
                manifest.description.trim_end_matches('.'),
                code(repository)
            ),
            None => manifest.description.trim_end_matches('.').to_owned(),
        };
        table.row(&[
            code(&manifest.name),
            name,
            manifest.licence.clone().unwrap_or_default(),
            manifest
                .context_length
                .map(|tokens| thousands(tokens.into()))
                .unwrap_or_default(),
            bytes.join("; "),
            manifest
                .hardware
                .as_ref()
                .map(|floor| thousands(floor.device_memory_bytes))
                .unwrap_or_default(),
        ]);
    }
    let mut text = format!(
        "## Manifests\n\nModels that can be asked for by name, with the least memory by arithmetic: what \
         it is made of stands in the manifest.\n\n{}",
        table.finish()
    );
    let instead = manifests
        .iter()
        .filter_map(|manifest| Some((manifest, manifest.hardware.as_ref()?.instead.as_ref()?)));
    let lines: Vec<String> = instead
        .map(|(manifest, reason)| format!("- {}: {reason}", code(&manifest.name)))
        .collect();
    text.push_str(&format!(
        "These do not fit one H100:\n\n{}\n",
        lines.join("\n")
    ));
    text
}
