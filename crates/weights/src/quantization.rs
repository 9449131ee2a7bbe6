//! Reads how a checkpoint is quantised and refuses every way but the one that is implemented.

use std::fmt;

use regex_lite::Regex;
use serde_json::{Map, Value};

use crate::error::Listing;
use crate::{Checkpoint, ElementType, StrictFields, TensorInfo};

const SUPPORTED: &str = "supported are checkpoints that are not quantised, gpt-oss's with experts \
     in MXFP4, and compressed-tensors with format float-quantized: FP8 E4M3 weights with one static symmetric scale per output \
     channel, FP8 activations with one dynamic symmetric scale per token";

/// Suffix of a quantised tensor's name, and of its scale's.
const WEIGHT_SUFFIX: &str = ".weight";
const SCALE_SUFFIX: &str = ".weight_scale";
/// Suffix of the names of tensors with MXFP4 codes.
const BLOCKS_SUFFIX: &str = "_blocks";

/// Keys that say how the quantisation was made, not how to compute with it. The dtype of scales is
/// among them because the scale tensors state their own.
const INERT_ARGUMENTS: &[&str] = &["observer", "observer_kwargs", "scale_dtype", "zp_dtype"];
const INERT_KEYS: &[&str] = &["quantization_status", "global_compression_ratio", "version"];

/// How a checkpoint's weights are quantised.
#[derive(Clone, Debug)]
pub enum QuantizationScheme {
    /// Not at all.
    None,
    /// The routed experts in MXFP4, in tensors of codes and tensors of scales; nothing else.
    Mxfp4Experts,
    /// FP8 E4M3 weights with one scale per output channel; activations quantised per token.
    Fp8ChannelDynamicToken {
        /// The modules it applies to, if they are linear.
        targets: ModulePatterns,
        /// The modules it does not apply to, whatever `targets` says.
        ignore: ModulePatterns,
    },
}

/// Why a checkpoint's quantisation is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizationError {
    /// The format, or some part of it, is not implemented.
    #[error(
        "the checkpoint is quantised as {format}: {}; {SUPPORTED}",
        Listing(problems)
    )]
    Unsupported {
        /// The format, as the configuration names it.
        format: String,
        /// What about it is not supported.
        problems: Vec<String>,
    },
    /// The tensors contradict the configuration.
    #[error("the tensors contradict the quantisation: {}", Listing(problems))]
    Tensors {
        /// Every contradiction.
        problems: Vec<String>,
    },
}

impl QuantizationScheme {
    /// Reads `quantization_config` of a model configuration.
    pub fn parse(config: &Map<String, Value>) -> Result<Self, QuantizationError> {
        let Some(section) = section(config) else {
            return Ok(Self::None);
        };
        let unsupported = |problems| QuantizationError::Unsupported {
            format: describe_quantization(config),
            problems,
        };
        let Value::Object(section) = section else {
            return Err(unsupported(vec![
                "quantization_config is not an object".to_owned(),
            ]));
        };
        let method = section.get("quant_method").and_then(Value::as_str);
        if method == Some("mxfp4") {
            return parse_mxfp4(section).map_err(unsupported);
        }
        if method != Some("compressed-tensors") {
            // Nothing in such a section is comparable, so a list of its fields would only distract.
            return Err(unsupported(vec![
                "this method is not implemented".to_owned(),
            ]));
        }
        parse_compressed_tensors(section).map_err(unsupported)
    }

    /// Whether the configuration asks for the module (a tensor's name without `.weight`) to be
    /// quantised, given that it is a linear module.
    pub fn is_quantized(&self, module: &str) -> bool {
        match self {
            Self::None => false,
            Self::Mxfp4Experts => module.split('.').any(|part| part == "experts"),
            Self::Fp8ChannelDynamicToken { targets, ignore } => {
                targets.matches(module) && !ignore.matches(module)
            }
        }
    }

    /// Checks that each FP8 weight has a scale of the right shape and type, that each scale has an
    /// FP8 weight, and that no weight is FP8 or in MXFP4 blocks against the configuration.
    ///
    /// A module that the configuration would quantise may still hold plain weights: from names
    /// alone an embedding or a router cannot be told from a linear module.
    pub fn check_tensors(&self, checkpoint: &Checkpoint) -> Result<(), QuantizationError> {
        let problems: Vec<String> = checkpoint
            .tensors()
            .filter_map(|tensor| self.contradiction(checkpoint, tensor))
            .collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(QuantizationError::Tensors { problems })
        }
    }

    fn contradiction(&self, checkpoint: &Checkpoint, tensor: &TensorInfo) -> Option<String> {
        let name = &tensor.name;
        let in_blocks = tensor.element_type == ElementType::U8 && name.ends_with(BLOCKS_SUFFIX);
        if in_blocks && !matches!(self, Self::Mxfp4Experts) {
            return Some(format!(
                "{name} holds MXFP4 blocks but the configuration does not say so"
            ));
        }
        if let Some(module) = name.strip_suffix(SCALE_SUFFIX) {
            let weight = checkpoint.tensor(&format!("{module}{WEIGHT_SUFFIX}"));
            let quantized = weight.is_some_and(|weight| weight.element_type == ElementType::F8E4M3);
            return (!quantized).then(|| format!("{name} has no F8_E4M3 weight"));
        }
        if tensor.element_type != ElementType::F8E4M3 {
            return None;
        }
        let Some(module) = name.strip_suffix(WEIGHT_SUFFIX) else {
            return Some(format!(
                "{name} is F8_E4M3 but its name does not end in {WEIGHT_SUFFIX}"
            ));
        };
        if !self.is_quantized(module) {
            return Some(format!(
                "{name} is F8_E4M3 but the configuration does not quantise it"
            ));
        }
        let &[rows, _] = tensor.shape.as_slice() else {
            return Some(format!(
                "{name} is F8_E4M3 of shape {:?}, not a matrix",
                tensor.shape
            ));
        };
        let Some(scale) = checkpoint.tensor(&format!("{module}{SCALE_SUFFIX}")) else {
            return Some(format!("{name} is F8_E4M3 but has no {SCALE_SUFFIX}"));
        };
        let shape_fits = scale.shape == [rows, 1] || scale.shape == [rows];
        let type_fits = matches!(scale.element_type, ElementType::BF16 | ElementType::F32);
        (!shape_fits || !type_fits).then(|| {
            format!(
                "{} is {} {:?}, expected BF16 or F32 [{rows}, 1]",
                scale.name, scale.element_type, scale.shape
            )
        })
    }
}

/// A list of module names, some given as regular expressions.
#[derive(Clone, Debug, Default)]
pub struct ModulePatterns {
    exact: Vec<String>,
    expressions: Vec<Regex>,
}

impl ModulePatterns {
    /// Parses names and, after `re:`, expressions. They match from the start of a name but need
    /// not reach its end, as Python's `re.match` does, which the writers of these lists rely on.
    pub fn parse(patterns: &[String]) -> Result<Self, String> {
        let mut parsed = Self::default();
        for pattern in patterns {
            let Some(expression) = pattern.strip_prefix("re:") else {
                parsed.exact.push(pattern.clone());
                continue;
            };
            let expression = Regex::new(&format!("^(?:{expression})")).map_err(|error| {
                format!("the pattern {pattern:?} cannot be understood: {error}")
            })?;
            parsed.expressions.push(expression);
        }
        Ok(parsed)
    }

    /// Whether the name is in the list.
    pub fn matches(&self, module: &str) -> bool {
        self.exact.iter().any(|name| name == module)
            || self
                .expressions
                .iter()
                .any(|expression| expression.is_match(module))
    }
}

impl fmt::Display for ModulePatterns {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expressions = self.expressions.iter().map(Regex::as_str);
        let all: Vec<&str> = self
            .exact
            .iter()
            .map(String::as_str)
            .chain(expressions)
            .collect();
        formatter.write_str(&all.join(", "))
    }
}

/// The format that a model configuration names, for messages.
pub(crate) fn describe_quantization(config: &Map<String, Value>) -> String {
    let Some(section) = section(config) else {
        return "none".to_owned();
    };
    let mut parts = Vec::new();
    let mut add = |key: &str, prefix: &str| match section.get(key) {
        Some(Value::String(text)) => parts.push(format!("{prefix}{text}")),
        Some(value @ (Value::Number(_) | Value::Array(_))) => {
            parts.push(format!("{prefix}{value}"));
        }
        _ => {}
    };
    add("quant_method", "");
    add("quant_algo", "");
    add("format", "");
    add("fmt", "");
    add("bits", "bits ");
    add("weight_block_size", "block ");
    if section.get("load_in_4bit") == Some(&Value::Bool(true)) {
        parts.push("4-bit".to_owned());
    }
    if section.get("load_in_8bit") == Some(&Value::Bool(true)) {
        parts.push("8-bit".to_owned());
    }
    if parts.is_empty() {
        "a format without a name".to_owned()
    } else {
        parts.join(" ")
    }
}

/// The quantisation section under its present or its former name.
fn section(config: &Map<String, Value>) -> Option<&Value> {
    ["quantization_config", "compression_config"]
        .iter()
        .filter_map(|key| config.get(*key))
        .find(|value| !value.is_null())
}

/// gpt-oss's section. Which modules are left alone shows in the tensors; experts cannot be.
fn parse_mxfp4(section: &Map<String, Value>) -> Result<QuantizationScheme, Vec<String>> {
    let mut fields = StrictFields::new("quantization_config", section);
    fields.value("quant_method");
    fields.only("dequantize", &Value::from(false));
    let left_alone = fields.optional_string_list("modules_to_not_convert");
    for pattern in left_alone.unwrap_or_default() {
        if pattern.contains("experts") {
            fields.problem(format!("modules_to_not_convert has {pattern:?}"));
        }
    }
    fields.finish(&[])?;
    Ok(QuantizationScheme::Mxfp4Experts)
}

fn parse_compressed_tensors(
    section: &Map<String, Value>,
) -> Result<QuantizationScheme, Vec<String>> {
    let mut fields = StrictFields::new("quantization_config", section);
    fields.value("quant_method");
    fields.only("format", &Value::from("float-quantized"));
    require(&mut fields, "format");
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
    let ignore = patterns(&mut fields, "ignore");

    let mut targets = Vec::new();
    match fields.value("config_groups") {
        Some(Value::Object(groups)) if !groups.is_empty() => {
            for (name, group) in groups {
                match group {
                    Value::Object(group) => targets.extend(parse_group(&mut fields, name, group)),
                    _ => fields.problem(format!("config_groups: {name} is not an object")),
                }
            }
        }
        _ => fields.problem("config_groups is missing or empty"),
    }
    let targets = ModulePatterns::parse(&targets).unwrap_or_else(|problem| {
        fields.problem(problem);
        ModulePatterns::default()
    });
    fields.finish(INERT_KEYS)?;
    Ok(QuantizationScheme::Fp8ChannelDynamicToken { targets, ignore })
}

/// The module patterns of a group's targets: for the class of linear modules, one that fits all.
fn parse_group(
    parent: &mut StrictFields<'_>,
    name: &str,
    group: &Map<String, Value>,
) -> Vec<String> {
    let mut fields = StrictFields::new(format!("config_groups: {name}"), group);
    fields.only("format", &Value::from("float-quantized"));
    if let Some(mut weights) = fields.optional_object("weights") {
        check_arguments(&mut weights, "channel", false);
        fields.absorb(weights, INERT_ARGUMENTS);
    } else {
        require(&mut fields, "weights");
    }
    if let Some(mut activations) = fields.optional_object("input_activations") {
        check_arguments(&mut activations, "token", true);
        fields.absorb(activations, INERT_ARGUMENTS);
    } else {
        require(&mut fields, "input_activations");
    }
    if fields.value("output_activations").is_some() {
        fields.problem("output_activations is not supported");
    }
    let listed = fields.string_list("targets");
    if listed.is_empty() {
        fields.problem("targets names no modules");
    }
    let targets = listed
        .into_iter()
        .map(|target| {
            if target == "Linear" {
                "re:".to_owned()
            } else {
                target
            }
        })
        .collect();
    parent.absorb(fields, &[]);
    targets
}

/// Checks one set of quantisation arguments: 8-bit symmetric float of the given strategy.
fn check_arguments(fields: &mut StrictFields<'_>, strategy: &str, dynamic: bool) {
    let wanted = [
        ("num_bits", Value::from(8)),
        ("type", Value::from("float")),
        ("strategy", Value::from(strategy)),
        ("symmetric", Value::from(true)),
        ("dynamic", Value::from(dynamic)),
    ];
    for (name, value) in wanted {
        fields.only(name, &value);
        // The format's own defaults are true for symmetric and false for dynamic; without the
        // others the arguments say nothing.
        if !(name == "symmetric" || (name == "dynamic" && !dynamic)) {
            require(fields, name);
        }
    }
    for unused in ["group_size", "block_structure", "actorder"] {
        if let Some(value) = fields.value(unused) {
            let shown = value.to_string();
            fields.problem(format!(
                "{unused} is {shown}, which does not go with {strategy} scales"
            ));
        }
    }
    fields.only("is_mx", &Value::from(false));
}

fn patterns(fields: &mut StrictFields<'_>, name: &str) -> ModulePatterns {
    let listed = fields.optional_string_list(name).unwrap_or_default();
    ModulePatterns::parse(&listed).unwrap_or_else(|problem| {
        fields.problem(problem);
        ModulePatterns::default()
    })
}

fn require(fields: &mut StrictFields<'_>, name: &str) {
    if fields.value(name).is_none() {
        fields.problem(format!("{name} is missing"));
    }
}
