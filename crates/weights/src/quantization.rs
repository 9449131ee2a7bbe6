//! Reads how a checkpoint is quantised and refuses every way that is not implemented.

mod compressed_tensors;
mod fine_grained_fp8;
mod mxfp4;
mod patterns;

use serde_json::{Map, Value};

use crate::error::Listing;
use crate::generation::TEXT_CONFIG;
use crate::{Checkpoint, ElementType, ExpectedTensor};

pub use patterns::ModulePatterns;

const SUPPORTED: &str = "supported are checkpoints that are not quantised; compressed-tensors with \
     format float-quantized (FP8 E4M3 with one scale for each tensor, output channel or block), \
     int-quantized (INT8, for each output channel or group), pack-quantized (INT4 or INT8, the \
     same) or nvfp4-pack-quantized, all with static symmetric weights; fp8 with one scale for each \
     tensor or block; and gpt-oss's experts in MXFP4";

/// Suffix of a weight's name.
const WEIGHT_SUFFIX: &str = ".weight";
/// Types that scales may have.
const SCALE: &[ElementType] = &[ElementType::BF16, ElementType::F32, ElementType::F16];

/// How a checkpoint's weights are quantised.
#[derive(Clone, Debug, Default)]
pub struct QuantizationScheme {
    /// The first whose targets match counts.
    groups: Vec<QuantizedGroup>,
    /// The modules that are not quantised, whatever the groups say.
    ignore: ModulePatterns,
    /// The packed experts are in MXFP4, in tensors of codes and tensors of scales.
    mxfp4_experts: bool,
}

/// Modules that are quantised in the same way.
#[derive(Clone, Debug)]
struct QuantizedGroup {
    /// The modules, if they are linear.
    targets: ModulePatterns,
    weights: WeightQuantization,
}

/// How weights are quantised: a number is a code times a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightQuantization {
    /// The codes.
    pub codes: Codes,
    /// What shares a scale.
    pub scales: Scales,
    /// Whether inputs are to be quantised to 8-bit floating-point numbers, each token by itself.
    pub quantises_tokens: bool,
}

/// What numbers are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codes {
    /// E4M3 bytes.
    F8E4M3,
    /// Signed bytes.
    I8,
    /// Bytes with 128 added, four in a 32-bit integer, the first in its lowest bits.
    PackedI8,
    /// 4-bit integers with 8 added, eight in a 32-bit integer, the first in its lowest bits.
    PackedI4,
    /// E2M1 codes, two in a byte, the first in its low bits. Their scales are E4M3 numbers, to be
    /// divided by one number for the whole tensor (NVFP4).
    PackedE2M1,
    /// The same codes with scales that are powers of two, E8M0 bytes, in tensors of all experts of a layer.
    Mxfp4,
}

/// What numbers share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scales {
    /// All of a tensor.
    Tensor,
    /// Those of a row.
    Row,
    /// So many neighbours in a row.
    Group(usize),
    /// Tiles of so many rows and columns, of which the last may be smaller.
    Block([usize; 2]),
}

impl Codes {
    /// The type of the tensor that holds them.
    pub fn element_type(self) -> ElementType {
        self.allowed()[0]
    }

    /// Numbers in an element of that tensor.
    pub fn per_element(self) -> usize {
        match self {
            Self::F8E4M3 | Self::I8 => 1,
            Self::PackedI8 => 4,
            Self::PackedI4 => 8,
            Self::PackedE2M1 | Self::Mxfp4 => 2,
        }
    }

    /// The usual name of the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::F8E4M3 => "FP8",
            Self::I8 | Self::PackedI8 => "INT8",
            Self::PackedI4 => "INT4",
            Self::PackedE2M1 => "NVFP4",
            Self::Mxfp4 => "MXFP4",
        }
    }

    fn allowed(self) -> &'static [ElementType] {
        match self {
            Self::F8E4M3 => &[ElementType::F8E4M3],
            Self::I8 => &[ElementType::I8],
            Self::PackedI8 | Self::PackedI4 => &[ElementType::I32],
            Self::PackedE2M1 | Self::Mxfp4 => &[ElementType::U8],
        }
    }
}

/// A quantised matrix `[rows, columns]` and its tensors.
#[derive(Clone, Debug)]
pub struct QuantizedMatrix {
    /// How it is quantised.
    pub quantization: WeightQuantization,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub columns: usize,
    /// Name of the tensor of codes.
    pub codes: String,
    /// Name of the tensor of scales.
    pub scales: String,
    /// Name of the tensor of the one number by which scales are divided.
    pub divisor: Option<String>,
}

impl QuantizedMatrix {
    /// Rows and columns that share a scale.
    pub fn scale_tile(&self) -> [usize; 2] {
        match self.quantization.scales {
            Scales::Tensor => [self.rows, self.columns],
            Scales::Row => [1, self.columns],
            Scales::Group(columns) => [1, columns],
            Scales::Block(tile) => tile,
        }
    }

    /// Scales in a row of scales.
    pub fn scale_columns(&self) -> usize {
        self.columns.div_ceil(self.scale_tile()[1].max(1))
    }

    /// Rows of scales.
    pub fn scale_rows(&self) -> usize {
        self.rows.div_ceil(self.scale_tile()[0].max(1))
    }

    /// Its tensors. Those that say how inputs were to be quantised may be there and are not used.
    fn expected(&self, checkpoint: &Checkpoint, required: bool) -> Vec<ExpectedTensor> {
        let codes = self.quantization.codes;
        let tensor = |name: &str, shape: Vec<usize>, allowed| ExpectedTensor {
            name: name.to_owned(),
            shape,
            allowed,
            required,
        };
        // A single number is stored with or without extents.
        let single = |name: &str| {
            let found = checkpoint.tensor(name).map(|tensor| tensor.shape.clone());
            let is_single = |shape: &Vec<usize>| shape.iter().all(|&extent| extent == 1);
            found.filter(is_single).unwrap_or_else(|| vec![1])
        };
        let scale_shape = match self.quantization.scales {
            Scales::Tensor => single(&self.scales),
            _ => vec![self.scale_rows(), self.scale_columns()],
        };
        let scale_types = match codes {
            Codes::PackedE2M1 => &[ElementType::F8E4M3],
            _ => SCALE,
        };
        let code_shape = vec![self.rows, self.columns.div_ceil(codes.per_element())];
        let mut tensors = vec![
            tensor(&self.codes, code_shape, codes.allowed()),
            tensor(&self.scales, scale_shape, scale_types),
        ];
        if let Some(divisor) = &self.divisor {
            tensors.push(tensor(divisor, single(divisor), SCALE));
        }
        let module = self.codes.rsplit_once('.').map_or("", |(module, _)| module);
        for (name, length, allowed) in UNUSED {
            let name = format!("{module}.{name}");
            let shape = match length {
                1 => single(&name),
                length => vec![*length],
            };
            let unused = tensor(&name, shape, allowed);
            tensors.push(ExpectedTensor {
                required: false,
                ..unused
            });
        }
        tensors
    }
}

/// Tensors beside a quantised weight that change nothing here, with their numbers.
const UNUSED: &[(&str, usize, &[ElementType])] = &[
    ("weight_shape", 2, &[ElementType::I64, ElementType::I32]),
    ("input_scale", 1, SCALE),
    ("activation_scale", 1, SCALE),
    ("input_global_scale", 1, SCALE),
    ("input_zero_point", 1, &[ElementType::I8]),
];

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
            return Ok(Self::default());
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
        match section.get("quant_method").and_then(Value::as_str) {
            Some("compressed-tensors") => compressed_tensors::parse(section),
            Some("fp8") => fine_grained_fp8::parse(section),
            Some("mxfp4") => mxfp4::parse(section),
            // Nothing in such a section is comparable, so a list of its fields would only distract.
            _ => Err(vec!["this method is not implemented".to_owned()]),
        }
        .map_err(unsupported)
    }

    /// Whether experts that are packed are in MXFP4, as gpt-oss's are; nothing else is then.
    pub fn has_mxfp4_experts(&self) -> bool {
        self.mxfp4_experts
    }

    /// How the configuration asks for the module (a tensor's name without `.weight`) to be
    /// quantised, given that it is a linear module.
    pub fn of_module(&self, module: &str) -> Option<WeightQuantization> {
        if self.ignore.matches(module) {
            return None;
        }
        let mut groups = self.groups.iter();
        let group = groups.find(|group| group.targets.matches(module))?;
        Some(group.weights)
    }

    /// The matrix `[rows, columns]` that a checkpoint would hold as `weight` if it were not
    /// quantised; `None` if it is not.
    ///
    /// A module that the configuration would quantise may still hold plain weights: from names
    /// alone an embedding or a router cannot be told from a linear module.
    pub fn matrix(
        &self,
        checkpoint: &Checkpoint,
        weight: &str,
        [rows, columns]: [usize; 2],
    ) -> Option<QuantizedMatrix> {
        let module = weight.strip_suffix(WEIGHT_SUFFIX)?;
        let quantization = self.of_module(module)?;
        let codes = match quantization.codes {
            Codes::F8E4M3 | Codes::I8 => weight.to_owned(),
            _ => format!("{weight}_packed"),
        };
        let found = checkpoint.tensor(&codes)?.element_type;
        if found != quantization.codes.element_type() {
            return None;
        }
        let name = |suffix: &str| format!("{weight}{suffix}");
        let inverse = name("_scale_inv");
        let has_inverse = checkpoint.tensor(&inverse).is_some();
        Some(QuantizedMatrix {
            quantization,
            rows,
            columns,
            codes,
            scales: if has_inverse { inverse } else { name("_scale") },
            divisor: (quantization.codes == Codes::PackedE2M1).then(|| name("_global_scale")),
        })
    }

    /// The tensors of a model, with those of quantised matrices in place of these.
    pub fn expected(
        &self,
        checkpoint: &Checkpoint,
        tensors: Vec<ExpectedTensor>,
    ) -> Vec<ExpectedTensor> {
        let stored = |tensor: ExpectedTensor| {
            let found = match tensor.shape[..] {
                [rows, columns] => {
                    let matrix = self.matrix(checkpoint, &tensor.name, [rows, columns]);
                    matrix.map(|matrix| matrix.expected(checkpoint, tensor.required))
                }
                _ => mxfp4::expected(checkpoint, &tensor),
            };
            found.unwrap_or_else(|| vec![tensor])
        };
        tensors.into_iter().flat_map(stored).collect()
    }

    /// Checks that no weight is stored as 8-bit codes or in MXFP4 blocks against the configuration.
    pub fn check_tensors(&self, checkpoint: &Checkpoint) -> Result<(), QuantizationError> {
        let contradiction = |name: &str, found: ElementType| {
            let in_blocks = found == ElementType::U8 && name.ends_with(mxfp4::CODES);
            if in_blocks && !self.mxfp4_experts {
                return Some(format!(
                    "{name} holds MXFP4 blocks but the configuration does not say so"
                ));
            }
            let module = name.strip_suffix(WEIGHT_SUFFIX)?;
            let codes = self.of_module(module).map(|weights| weights.codes);
            let explained = codes.is_some_and(|codes| codes.element_type() == found);
            let is_code = matches!(found, ElementType::F8E4M3 | ElementType::I8);
            (is_code && !explained)
                .then(|| format!("{name} is {found} but the configuration does not quantise it so"))
        };
        let problems: Vec<String> = checkpoint
            .tensors()
            .filter_map(|tensor| contradiction(&tensor.name, tensor.element_type))
            .collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(QuantizationError::Tensors { problems })
        }
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

/// The quantisation section under its present or its former name, also where the text model alone has one.
fn section(config: &Map<String, Value>) -> Option<&Value> {
    let text = config.get(TEXT_CONFIG).and_then(Value::as_object);
    let sections = [Some(config), text].into_iter().flatten();
    sections
        .flat_map(|config| ["quantization_config", "compression_config"].map(|key| config.get(key)))
        .flatten()
        .find(|value| !value.is_null())
}

#[cfg(test)]
mod tests;
