//! In which forms and number formats a checkpoint stores a model's weights.

use backstop_arch::{ExpertsRequest, ModelSpec};
use backstop_kernels::{BlockFormat, Element, WeightFormat};
use backstop_weights::{
    CensusError, Checkpoint, ElementType, LoadError, QuantizationError, WeightsError, census,
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
    /// Rows do not fill the blocks in which they are stored.
    #[error("the rows of {0} are not whole blocks of 32 numbers, as MXFP4 stores them")]
    PartialBlocks(String),
    /// The device does not compute with weights in this format.
    #[error(
        "{name} is {element}, and the GPU computes with weights in BF16 or, for experts, FP8: \
         serve a BF16 checkpoint, or choose --device cpu"
    )]
    NotForDevice {
        /// The tensor.
        name: String,
        /// How it is stored.
        element: ElementType,
    },
    /// The device does not compute such experts.
    #[error(
        "{0} belongs to experts with biases and clamped activations, as gpt-oss has them, which the \
         GPU's kernels cannot compute yet: choose --device cpu"
    )]
    AlternatingForDevice(String),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] backstop_kernels::cuda::DeviceError),
}

/// The number formats of all weights, in the order of the map.
pub(crate) struct StoredFormats {
    pub(crate) vectors: Vec<ElementType>,
    /// One for each part of a matrix.
    pub(crate) matrices: Vec<Vec<ElementType>>,
    pub(crate) experts: Vec<StoredExperts>,
}

/// How the experts of a layer are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredExperts {
    pub(crate) packed: bool,
    pub(crate) weight: ElementType,
    /// Of the scales, if the weights are FP8.
    pub(crate) scale: Option<ElementType>,
}

impl StoredFormats {
    /// Checks that the checkpoint holds exactly the tensors of the model, and looks at them.
    pub(crate) fn of(checkpoint: &Checkpoint, spec: &ModelSpec) -> Result<Self, LoadFailure> {
        // Refuses schemes that are not understood, before any tensor is looked at.
        let quantization = checkpoint.quantization()?;
        let map = &spec.weights;
        let expected = map.expected(|name| checkpoint.tensor(name).is_some());
        census(checkpoint, &expected)?;
        quantization.check_tensors(checkpoint)?;

        let element = |name: &str| {
            checkpoint
                .tensor(name)
                .expect("the census found every required tensor")
                .element_type
        };
        let vectors = map.vectors.iter().map(|vector| {
            let names = vector.parts.iter().map(|part| part.name.as_str());
            common_element(names, &element)
        });
        let matrices = map.matrices.iter().map(|matrix| {
            let parts = matrix.parts.iter();
            parts.map(|part| element(&part.name)).collect()
        });
        let experts = map.experts.iter().map(|experts| {
            if experts.alternating {
                return StoredExperts::alternating(checkpoint, experts);
            }
            let packed = checkpoint.tensor(&experts.packed_gate_up()).is_some();
            StoredExperts::of(experts, packed, &element)
        });
        Ok(Self {
            vectors: vectors.collect::<Result<_, _>>()?,
            matrices: matrices.collect(),
            experts: experts.collect::<Result<_, _>>()?,
        })
    }
}

impl StoredExperts {
    /// As gpt-oss stores them.
    fn alternating(checkpoint: &Checkpoint, request: &ExpertsRequest) -> Result<Self, LoadFailure> {
        let names = [request.packed_gate_up(), request.packed_down()];
        let columns = [request.hidden, request.width];
        let mut found = Vec::new();
        for (name, columns) in names.iter().zip(columns) {
            let weight = match checkpoint.tensor(name) {
                Some(tensor) => tensor.element_type,
                None if columns.is_multiple_of(BlockFormat::Mxfp4.numbers()) => ElementType::Mxfp4,
                None => return Err(LoadFailure::PartialBlocks(name.clone())),
            };
            found.push(weight);
        }
        if found[0] != found[1] {
            return Err(LoadFailure::MixedFormats(names[0].clone()));
        }
        Ok(Self {
            packed: true,
            weight: found[0],
            scale: None,
        })
    }

    fn of(
        request: &ExpertsRequest,
        packed: bool,
        element: &impl Fn(&str) -> ElementType,
    ) -> Result<Self, LoadFailure> {
        let weight = if packed {
            let names = [request.packed_gate_up(), request.packed_down()];
            common_element(names.iter().map(String::as_str), element)?
        } else {
            common_unfused(request, "", element)?
        };
        let quantized = weight == ElementType::F8E4M3;
        let scale = quantized.then(|| common_unfused(request, "_scale", element));
        Ok(Self {
            packed,
            weight,
            scale: scale.transpose()?,
        })
    }
}

fn common_element<'a>(
    names: impl Iterator<Item = &'a str>,
    element: &impl Fn(&str) -> ElementType,
) -> Result<ElementType, LoadFailure> {
    let mut common = None;
    for name in names {
        let found = element(name);
        if *common.get_or_insert(found) != found {
            return Err(LoadFailure::MixedFormats(name.to_owned()));
        }
    }
    Ok(common.expect("a weight has at least one tensor"))
}

/// The number format of all unfused tensors of a layer's experts.
fn common_unfused(
    request: &ExpertsRequest,
    suffix: &str,
    element: &impl Fn(&str) -> ElementType,
) -> Result<ElementType, LoadFailure> {
    let names: Vec<String> = (0..request.num_experts)
        .flat_map(|expert| {
            ["gate", "up", "down"].map(|kind| request.unfused(expert, kind) + suffix)
        })
        .collect();
    common_element(names.iter().map(String::as_str), element)
}

/// Numbers of a tensor that is computed with in f32.
pub(crate) fn widened(element: ElementType, bytes: &[u8]) -> Vec<f32> {
    let format = weight_format(element);
    let mut numbers = vec![0.0; bytes.len() / format.bytes_of(format.unit()) * format.unit()];
    format.widen(bytes, &mut numbers);
    numbers
}

pub(crate) fn kernel_element(element: ElementType) -> Element {
    match weight_format(element) {
        WeightFormat::Numbers(element) => element,
        WeightFormat::Blocks(_) => unreachable!("the census allows no blocks here"),
    }
}

/// How the kernels know this number format.
pub(crate) fn weight_format(element: ElementType) -> WeightFormat {
    WeightFormat::Blocks(match element {
        ElementType::F32 => return Element::F32.into(),
        ElementType::BF16 => return Element::BF16.into(),
        ElementType::F8E4M3 => return Element::F8E4M3.into(),
        ElementType::F16 => BlockFormat::F16,
        ElementType::Q8_0 => BlockFormat::Q8_0,
        ElementType::Q4_0 => BlockFormat::Q4_0,
        ElementType::Q4_1 => BlockFormat::Q4_1,
        ElementType::Mxfp4 => BlockFormat::Mxfp4,
        ElementType::Q5_0 => BlockFormat::Q5_0,
        ElementType::Q5_1 => BlockFormat::Q5_1,
        ElementType::Q2K => BlockFormat::Q2K,
        ElementType::Q3K => BlockFormat::Q3K,
        ElementType::Q4K => BlockFormat::Q4K,
        ElementType::Q5K => BlockFormat::Q5K,
        ElementType::Q6K => BlockFormat::Q6K,
        _ => unreachable!("the census allows no other number format"),
    })
}
