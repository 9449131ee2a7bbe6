//! `quant_method` `compressed-tensors`: the fields and formats of the package of that name.

use serde_json::{Map, Value};

use super::{
    Codes, ModulePatterns, QuantizationScheme, QuantizedGroup, Scales, WeightQuantization,
};
use crate::StrictFields;

/// Keys that say how the quantisation was made, not how to compute with it. The dtype of scales is
/// among them because the scale tensors state their own.
const INERT_ARGUMENTS: &[&str] = &["observer", "observer_kwargs", "scale_dtype", "zp_dtype"];
const INERT_KEYS: &[&str] = &["quantization_status", "global_compression_ratio", "version"];
/// Numbers that share a scale in NVFP4.
const NVFP4_GROUP: usize = 16;

pub(super) fn parse(section: &Map<String, Value>) -> Result<QuantizationScheme, Vec<String>> {
    let mut fields = StrictFields::new("quantization_config", section);
    fields.value("quant_method");
    let format = fields.optional_string("format");
    if let Some(scheme) = fields.value("kv_cache_scheme") {
        let shown = crate::strict_fields::brief(scheme);
        fields.problem(format!(
            "kv_cache_scheme is {shown}; a quantised KV cache is not supported"
        ));
    }
    // Empty sections are how the tool writes "not used".
    for unused in ["sparsity_config", "transform_config"] {
        let is_used = |value: &Value| value.as_object().is_none_or(|object| !object.is_empty());
        if fields.value(unused).is_some_and(is_used) {
            fields.problem(format!("{unused} is not supported"));
        }
    }
    let ignore = fields.optional_string_list("ignore").unwrap_or_default();
    let ignore = patterns(&mut fields, &ignore);

    let mut groups = Vec::new();
    match fields.value("config_groups") {
        Some(Value::Object(listed)) if !listed.is_empty() => {
            for (name, group) in listed {
                match group {
                    Value::Object(group) => {
                        groups.extend(parse_group(&mut fields, name, group, format.as_deref()));
                    }
                    _ => fields.problem(format!("config_groups: {name} is not an object")),
                }
            }
        }
        _ => fields.problem("config_groups is missing or empty"),
    }
    fields.finish(INERT_KEYS)?;
    Ok(QuantizationScheme {
        groups,
        ignore,
        mxfp4_experts: false,
    })
}

/// A group, or `None` after a problem, which `parent` records.
fn parse_group(
    parent: &mut StrictFields<'_>,
    name: &str,
    group: &Map<String, Value>,
    format: Option<&str>,
) -> Option<QuantizedGroup> {
    let mut fields = StrictFields::new(format!("config_groups: {name}"), group);
    let own_format = fields.optional_string("format");
    let format = own_format.as_deref().or(format);
    let weights = match fields.optional_object("weights") {
        Some(mut arguments) => {
            let weights = read_weights(&mut arguments, format);
            fields.absorb(arguments, INERT_ARGUMENTS);
            weights
        }
        None => {
            fields.problem("weights is missing");
            None
        }
    };
    let mut quantises_tokens = false;
    if let Some(mut activations) = fields.optional_object("input_activations") {
        quantises_tokens = read_activations(&mut activations);
        fields.absorb(activations, INERT_ARGUMENTS);
    }
    if fields.value("output_activations").is_some() {
        fields.problem("output_activations is not supported");
    }
    let mut listed = fields.string_list("targets");
    if listed.is_empty() {
        fields.problem("targets names no modules");
    }
    for target in &mut listed {
        // For the class of linear modules, an expression that fits all.
        if target == "Linear" {
            "re:".clone_into(target);
        }
    }
    let targets = patterns(&mut fields, &listed);
    parent.absorb(fields, &[]);
    let (codes, scales) = weights?;
    Some(QuantizedGroup {
        targets,
        weights: WeightQuantization {
            codes,
            scales,
            quantises_tokens,
        },
    })
}

/// Codes and scales of weights in this format; `None` after a problem.
fn read_weights(fields: &mut StrictFields<'_>, format: Option<&str>) -> Option<(Codes, Scales)> {
    fields.only("symmetric", &Value::from(true));
    fields.only("dynamic", &Value::from(false));
    fields.only("is_mx", &Value::from(false));
    // The order of columns while the codes were chosen; with "group" it would be stored.
    if let Some(order) = fields.optional_string("actorder")
        && order != "weight"
        && order != "static"
    {
        fields.problem(format!("actorder is {order:?}, which is not supported"));
    }
    let codes = read_codes(fields, format);
    let scales = read_scales(fields);
    let (codes, scales) = (codes?, scales?);
    let fits = match scales {
        Scales::Group(size) => {
            (codes == Codes::PackedE2M1) == (size == NVFP4_GROUP) && codes != Codes::F8E4M3
        }
        Scales::Block(_) => codes == Codes::F8E4M3,
        Scales::Tensor | Scales::Row => codes != Codes::PackedE2M1,
    };
    if !fits {
        fields.problem(format!(
            "{} with such scales is not supported",
            codes.name()
        ));
    }
    fits.then_some((codes, scales))
}

fn read_codes(fields: &mut StrictFields<'_>, format: Option<&str>) -> Option<Codes> {
    let bits = fields.u32("num_bits");
    let kind = fields.string("type");
    let Some(format) = format else {
        fields.problem("format is missing");
        return None;
    };
    Some(match (format, kind.as_str(), bits) {
        ("float-quantized" | "naive-quantized", "float", 8) => Codes::F8E4M3,
        ("int-quantized" | "naive-quantized", "int", 8) => Codes::I8,
        ("pack-quantized", "int", 8) => Codes::PackedI8,
        ("pack-quantized", "int", 4) => Codes::PackedI4,
        ("nvfp4-pack-quantized", "float", 4) => Codes::PackedE2M1,
        _ => {
            fields.problem(format!(
                "format is {format:?}, type is {kind:?} and num_bits is {bits}, which together are \
                 not supported"
            ));
            return None;
        }
    })
}

fn read_scales(fields: &mut StrictFields<'_>) -> Option<Scales> {
    let strategy = fields.string("strategy");
    let size = fields.value("group_size").filter(|size| **size != -1);
    let tile = fields.value("block_structure");
    let count = |value: &Value| {
        let count = value.as_u64().filter(|&count| count > 0)?;
        u32::try_from(count).ok().map(|count| count as usize)
    };
    let pair = |value: &Value| match value.as_array()?.as_slice() {
        [rows, columns] => Some([count(rows)?, count(columns)?]),
        _ => None,
    };
    let scales = match strategy.as_str() {
        "tensor" => Some(Scales::Tensor),
        "channel" => Some(Scales::Row),
        "group" | "tensor_group" => size.and_then(count).map(Scales::Group),
        "block" => tile.and_then(pair).map(Scales::Block),
        _ => None,
    };
    let groups = matches!(scales, Some(Scales::Group(_)));
    let tiles = matches!(scales, Some(Scales::Block(_)));
    for (name, value, used) in [
        ("group_size", size, groups),
        ("block_structure", tile, tiles),
    ] {
        if let Some(value) = value
            && !used
        {
            let shown = crate::strict_fields::brief(value);
            fields.problem(format!(
                "{name} is {shown}, which does not go with {strategy} scales"
            ));
        }
    }
    if scales.is_none() && !strategy.is_empty() {
        fields.problem(format!(
            "strategy is {strategy:?}, which is not supported so"
        ));
    }
    scales
}

/// Whether inputs are to be quantised to 8-bit floating-point numbers while computing. Other ways
/// to quantise them are understood, and left out: weights alone are what is stored.
fn read_activations(fields: &mut StrictFields<'_>) -> bool {
    let bits = fields.u32("num_bits");
    let kind = fields.string("type");
    let dynamic = fields.value("dynamic") == Some(&Value::Bool(true));
    for known in [
        "strategy",
        "symmetric",
        "group_size",
        "block_structure",
        "actorder",
        "is_mx",
    ] {
        fields.value(known);
    }
    let per_token = fields
        .value("strategy")
        .is_some_and(|strategy| *strategy == "token");
    bits == 8 && kind == "float" && dynamic && per_token
}

fn patterns(fields: &mut StrictFields<'_>, listed: &[String]) -> ModulePatterns {
    ModulePatterns::parse(listed).unwrap_or_else(|problem| {
        fields.problem(problem);
        ModulePatterns::default()
    })
}
