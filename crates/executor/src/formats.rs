//! In which forms and number formats a checkpoint stores a model's weights.

use backstop_arch::{ExpertsRequest, MatrixRequest, WeightMap};
use backstop_kernels::{BlockFormat, Element, Separate, WeightFormat};
use backstop_weights::{
    CensusError, Checkpoint, Codes, ElementType, LoadError, QuantizationError, QuantizationScheme,
    QuantizedMatrix, Scales, WeightsError, census,
};

/// Why a checkpoint could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadFailure {
    /// Its tensors are not those of the model.
    #[error(transparent)]
    Census(#[from] CensusError),
    /// A tensor could not be read, or holds something that is not a number.
    #[error(transparent)]
    Read(#[from] LoadError),
    /// Its quantisation is not understood.
    #[error(transparent)]
    Checkpoint(#[from] WeightsError),
    /// Weights and scales do not belong together.
    #[error(transparent)]
    Quantization(#[from] QuantizationError),
    /// Tensors that are computed as one are stored in different number formats.
    #[error(
        "{0} and other tensors that are computed with it are stored in too many different number \
         formats"
    )]
    MixedFormats(String),
    /// The device does not compute with weights in this format.
    #[error(
        "{name} is {format}, and the GPU computes with weights in BF16 or, for experts, FP8: \
         serve a BF16 checkpoint, or choose --device cpu"
    )]
    NotForDevice {
        /// The tensor.
        name: String,
        /// How it is stored.
        format: String,
    },
    /// Rows do not fill the blocks in which they are stored.
    #[error("the rows of {0} are not whole blocks of 32 numbers, as MXFP4 stores them")]
    PartialBlocks(String),
    /// The rows of a quantised matrix are not whole blocks.
    #[error("{name} is {format} with {columns} columns and {tile} of them to a scale: {wanted}")]
    Blocks {
        /// The tensor.
        name: String,
        /// How it is stored.
        format: &'static str,
        /// Numbers in a row.
        columns: usize,
        /// Numbers in a row that share a scale.
        tile: usize,
        /// What is supported.
        wanted: &'static str,
    },
    /// A scale cannot be computed with.
    #[error("{0} must be a number above 0: scales are divided by it")]
    Divisor(String),
    /// The device does not compute such experts.
    #[error(
        "{0} belongs to experts with biases and clamped activations, as gpt-oss has them, which the \
         GPU's kernels cannot compute yet: choose --device cpu"
    )]
    AlternatingForDevice(String),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] backstop_card::DeviceError),
}

/// The number formats of all weights, in the order of the map.
pub(crate) struct StoredFormats {
    pub(crate) vectors: Vec<ElementType>,
    /// One for each part of a matrix.
    pub(crate) matrices: Vec<Vec<StoredMatrix>>,
    pub(crate) experts: Vec<StoredExperts>,
}

/// How a tensor of a matrix is stored.
#[derive(Clone, Debug)]
pub(crate) enum StoredMatrix {
    /// As it is.
    Plain(ElementType),
    /// As codes and scales.
    Quantized(QuantizedMatrix, BlockFormat),
}

impl StoredMatrix {
    /// How it lies in memory.
    pub(crate) fn format(&self) -> WeightFormat {
        match self {
            Self::Plain(element) => weight_format(*element),
            Self::Quantized(_, format) => (*format).into(),
        }
    }

    /// Its name in messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Plain(element) => element.to_string(),
            Self::Quantized(matrix, _) => described(matrix),
        }
    }
}

/// How the experts of a layer are stored.
#[derive(Clone, Debug)]
pub(crate) struct StoredExperts {
    pub(crate) packed: bool,
    /// Of gate and up, and of down, or of their codes.
    pub(crate) elements: [ElementType; 2],
    /// Gate, up and down of each expert, if they are quantised.
    pub(crate) quantized: Vec<[QuantizedMatrix; 3]>,
    /// How gate and up lie in memory, and how down does: FP8 numbers with a scale for each row, or
    /// any format without.
    pub(crate) formats: [WeightFormat; 2],
}

impl StoredExperts {
    fn plain(packed: bool, elements: [ElementType; 2]) -> Self {
        Self {
            packed,
            elements,
            quantized: Vec::new(),
            formats: elements.map(weight_format),
        }
    }

    /// Whether they have scales that are not part of blocks.
    pub(crate) fn has_row_scales(&self) -> bool {
        !self.quantized.is_empty() && self.formats[0] == Element::F8E4M3.into()
    }
}

impl StoredFormats {
    /// Checks that the checkpoint holds exactly the tensors of the model, and looks at them.
    pub(crate) fn of(checkpoint: &Checkpoint, map: &WeightMap) -> Result<Self, LoadFailure> {
        // Refuses schemes that are not understood, before any tensor is looked at.
        let quantization = checkpoint.quantization()?;
        // Scales are what the quantisation expects.
        let has = |name: &str| !name.ends_with("_scale") && checkpoint.tensor(name).is_some();
        let expected = quantization.expected(checkpoint, map.expected(has));
        census(checkpoint, &expected)?;
        quantization.check_tensors(checkpoint)?;

        let stored = Stored {
            checkpoint,
            quantization,
        };
        let vectors = map.vectors.iter().map(|vector| {
            let names = vector.parts.iter().map(|part| part.name.as_str());
            stored.common_element(names)
        });
        let matrices = map.matrices.iter().map(|matrix| stored.matrix(matrix));
        let experts = map.experts.iter().map(|experts| stored.experts(experts));
        Ok(Self {
            vectors: vectors.collect::<Result<_, _>>()?,
            matrices: matrices.collect::<Result<_, _>>()?,
            experts: experts.collect::<Result<_, _>>()?,
        })
    }
}

/// A checkpoint that holds the tensors of the model.
struct Stored<'a> {
    checkpoint: &'a Checkpoint,
    quantization: QuantizationScheme,
}

impl Stored<'_> {
    fn element(&self, name: &str) -> ElementType {
        let tensor = self.checkpoint.tensor(name);
        let tensor = tensor.expect("the census found every required tensor");
        tensor.element_type
    }

    fn common_element<'a>(
        &self,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<ElementType, LoadFailure> {
        let mut common = None;
        for name in names {
            let found = self.element(name);
            if *common.get_or_insert(found) != found {
                return Err(LoadFailure::MixedFormats(name.to_owned()));
            }
        }
        Ok(common.expect("a weight has at least one tensor"))
    }

    fn quantized(&self, name: &str, shape: [usize; 2]) -> Option<QuantizedMatrix> {
        self.quantization.matrix(self.checkpoint, name, shape)
    }

    fn matrix(&self, matrix: &MatrixRequest) -> Result<Vec<StoredMatrix>, LoadFailure> {
        let part = |name: &str, rows| match self.quantized(name, [rows, matrix.columns]) {
            None => Ok(StoredMatrix::Plain(self.element(name))),
            Some(quantized) => {
                let format = scaled_format(&quantized, self.element(&quantized.scales))?;
                Ok(StoredMatrix::Quantized(quantized, format))
            }
        };
        let parts = matrix.parts.iter();
        parts
            .map(|matrix| part(&matrix.name, matrix.rows))
            .collect()
    }

    fn experts(&self, request: &ExpertsRequest) -> Result<StoredExperts, LoadFailure> {
        if request.alternating {
            return self.alternating_experts(request);
        }
        let packed = self.checkpoint.tensor(&request.packed_gate_up()).is_some();
        let names: Vec<[String; 3]> = match packed {
            true => vec![],
            false => (0..request.num_experts)
                .map(|expert| ["gate", "up", "down"].map(|kind| request.unfused(expert, kind)))
                .collect(),
        };
        let (wide, narrow) = (
            [request.width, request.hidden],
            [request.hidden, request.width],
        );
        let quantized = names.iter().map(|[gate, up, down]| {
            let parts = [(gate, wide), (up, wide), (down, narrow)];
            let [gate, up, down] = parts.map(|(name, shape)| self.quantized(name, shape));
            Some([gate?, up?, down?])
        });
        if let Some(quantized) = quantized.collect::<Option<Vec<_>>>()
            && !packed
        {
            return self.quantized_experts(quantized);
        }
        let elements = match packed {
            true => {
                [request.packed_gate_up(), request.packed_down()].map(|name| self.element(&name))
            }
            false => [
                self.common_element(names.iter().flat_map(|[gate, up, _]| [&**gate, up]))?,
                self.common_element(names.iter().map(|[.., down]| &**down))?,
            ],
        };
        if elements.contains(&ElementType::F8E4M3) {
            // Some have scales and some do not.
            return Err(LoadFailure::MixedFormats(names[0][0].clone()));
        }
        Ok(StoredExperts::plain(packed, elements))
    }

    /// As gpt-oss stores them.
    fn alternating_experts(&self, request: &ExpertsRequest) -> Result<StoredExperts, LoadFailure> {
        let names = [request.packed_gate_up(), request.packed_down()];
        let columns = [request.hidden, request.width];
        let mut found = Vec::new();
        for (name, columns) in names.iter().zip(columns) {
            let element = match self.checkpoint.tensor(name) {
                Some(tensor) => tensor.element_type,
                None if columns.is_multiple_of(BlockFormat::Mxfp4.numbers()) => {
                    ElementType::Block(BlockFormat::Mxfp4)
                }
                None => return Err(LoadFailure::PartialBlocks(name.clone())),
            };
            found.push(element);
        }
        if found[0] != found[1] {
            return Err(LoadFailure::MixedFormats(names[0].clone()));
        }
        Ok(StoredExperts::plain(true, [found[0]; 2]))
    }

    fn quantized_experts(
        &self,
        quantized: Vec<[QuantizedMatrix; 3]>,
    ) -> Result<StoredExperts, LoadFailure> {
        let format = |matrix: &QuantizedMatrix| match has_row_scales(matrix) {
            true => Ok(Element::F8E4M3.into()),
            false => {
                let format = scaled_format(matrix, self.element(&matrix.scales))?;
                Ok::<_, LoadFailure>(format.into())
            }
        };
        let mut formats = None;
        for [gate, up, down] in &quantized {
            let found = [format(gate)?, format(down)?];
            let common = *formats.get_or_insert(found);
            let are_rows = found.map(|format| format == Element::F8E4M3.into());
            if common != found || format(up)? != found[0] || are_rows[0] != are_rows[1] {
                return Err(LoadFailure::MixedFormats(gate.codes.clone()));
            }
        }
        let scales = quantized.as_flattened().iter();
        self.common_element(scales.map(|matrix| matrix.scales.as_str()))?;
        Ok(StoredExperts {
            packed: false,
            elements: [self.element(&quantized[0][0].codes); 2],
            quantized,
            formats: formats.expect("a layer has experts"),
        })
    }
}

/// Whether a matrix is computed with as FP8 numbers with a scale for each row, and inputs that are
/// quantised as well.
fn has_row_scales(matrix: &QuantizedMatrix) -> bool {
    let quantization = matrix.quantization;
    quantization.codes == Codes::F8E4M3
        && quantization.quantises_tokens
        && matches!(quantization.scales, Scales::Row | Scales::Tensor)
}

/// A matrix's format in messages.
pub(crate) fn described(matrix: &QuantizedMatrix) -> String {
    let scales = match matrix.quantization.scales {
        Scales::Tensor => "a scale for the tensor".to_owned(),
        Scales::Row => "a scale for each row".to_owned(),
        Scales::Group(size) => format!("a scale for each {size} numbers"),
        Scales::Block([rows, columns]) => format!("a scale for each {rows} times {columns}"),
    };
    format!("{} with {scales}", matrix.quantization.codes.name())
}

/// The blocks in which a quantised matrix lies in memory: the first that share a scale.
fn scaled_format(
    matrix: &QuantizedMatrix,
    scales: ElementType,
) -> Result<BlockFormat, LoadFailure> {
    let (columns, tile) = (matrix.columns, matrix.scale_tile()[1]);
    let codes = matrix.quantization.codes;
    let fits = |format: &BlockFormat| {
        let facts = format.facts();
        let share =
            codes == Codes::PackedE2M1 || tile.is_multiple_of(facts.numbers) || tile >= columns;
        let holds = |scale: Separate| !scale.bf16_scale || scales == ElementType::BF16;
        facts.separate.is_some_and(holds)
            && facts.name == codes.name()
            && columns.is_multiple_of(facts.numbers)
            && share
    };
    let found = BlockFormat::ALL.iter().copied().find(fits);
    found.ok_or_else(|| LoadFailure::Blocks {
        name: matrix.codes.clone(),
        format: codes.name(),
        columns,
        tile,
        wanted: match codes {
            Codes::PackedE2M1 => "rows must be multiples of 64",
            _ => "both must be multiples of 32",
        },
    })
}

/// Numbers of a tensor that is computed with in f32.
pub(crate) fn widened(element: ElementType, bytes: &[u8]) -> Vec<f32> {
    let format = weight_format(element);
    let mut numbers = vec![0.0; bytes.len() / format.bytes_of(format.unit()) * format.unit()];
    format.widen(bytes, &mut numbers);
    numbers
}

/// The format of numbers that are not stored in blocks.
pub(crate) fn kernel_element(format: WeightFormat) -> Element {
    match format {
        WeightFormat::Numbers(element) => element,
        WeightFormat::Blocks(_) => unreachable!("blocks are refused before"),
    }
}

/// How the kernels know this number format.
pub(crate) fn weight_format(element: ElementType) -> WeightFormat {
    WeightFormat::Blocks(match element {
        ElementType::F32 => return Element::F32.into(),
        ElementType::BF16 => return Element::BF16.into(),
        ElementType::F8E4M3 => return Element::F8E4M3.into(),
        ElementType::F16 => BlockFormat::F16,
        ElementType::Block(format) => format,
        _ => unreachable!("the census allows no other number format"),
    })
}
