//! Where a model's weights lie in a checkpoint: the one place that knows names of tensors, forms and
//! schemes together.

use backstop_arch::{ExpertsPart, ExpertsRequest, ExpertsTensor, WeightMap};
use backstop_card::staging::WeightRows;
use backstop_kernels::{Element, ExpertsId, MatrixId, VectorId, WeightFormat};
use backstop_weights::{Checkpoint, QuantizationScheme, QuantizedMatrix, Scales, census};

use crate::LoadFailure;
use crate::format::{self, UsedFormat};
use crate::source::{Source, Stored};

/// The weights of a model as a checkpoint stores them.
#[derive(Debug, Default)]
pub struct Sources {
    /// All matrices, then for each layer of experts gate and up, and down, by id.
    pub(crate) rows: Vec<Weight<WeightRows>>,
    /// All vectors, then for each layer of experts scales and biases of gate and up, and of down.
    pub(crate) numbers: Vec<Weight<NumbersOf>>,
}

/// A weight, put together from sources one below the other.
#[derive(Debug)]
pub(crate) struct Weight<T> {
    pub(crate) target: T,
    pub(crate) sources: Vec<Source>,
}

/// Numbers that are computed with in f32.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NumbersOf {
    Vector(VectorId),
    /// One factor for each row if the matrices are FP8 and not in blocks, else none.
    Scales(WeightRows),
    /// One addend for each row of experts, or none.
    Biases,
}

impl Sources {
    /// Checks that the checkpoint holds exactly the tensors of the model, and looks at them.
    pub fn of(checkpoint: &Checkpoint, map: &WeightMap) -> Result<Self, LoadFailure> {
        // Refuses schemes that are not understood, before any tensor is looked at.
        let scheme = checkpoint.quantization()?;
        let expected = map.expected(|name| checkpoint.tensor(name).is_some());
        census(checkpoint, &scheme.expected(checkpoint, expected))?;
        scheme.check_tensors(checkpoint)?;

        let resolver = Resolver { checkpoint, scheme };
        let mut sources = Self::default();
        for (id, vector) in (0..).map(VectorId).zip(&map.vectors) {
            let parts = vector.parts.iter();
            let parts = parts.map(|part| Source::tensor(checkpoint, &part.name, [part.len, 1]));
            sources.add_numbers(NumbersOf::Vector(id), parts.collect());
        }
        for (id, matrix) in (0..).map(MatrixId).zip(&map.matrices) {
            let parts = matrix.parts.iter();
            let parts = parts.map(|part| resolver.matrix(&part.name, [part.rows, matrix.columns]));
            sources.rows.push(Weight {
                target: WeightRows::Matrix(id),
                sources: parts.collect::<Result<_, _>>()?,
            });
        }
        for (id, request) in (0..).map(ExpertsId).zip(&map.experts) {
            resolver.add_experts(id, request, &mut sources)?;
        }
        Ok(sources)
    }

    /// Bytes of all weights where so many numbers of a format take as many bytes as this says; those that are computed
    /// with one by one take 4 each.
    pub fn bytes_as(&self, bytes_of: impl Fn(WeightFormat, usize) -> u64) -> u64 {
        let rows = self.rows.iter().flat_map(|weight| &weight.sources);
        let rows = rows.map(|source| bytes_of(source.format, source.rows * source.columns));
        let numbers = self.numbers.iter().flat_map(|weight| &weight.sources);
        rows.sum::<u64>() + numbers.map(|source| source.rows as u64 * 4).sum::<u64>()
    }

    fn add_numbers(&mut self, target: NumbersOf, sources: Vec<Source>) {
        self.numbers.push(Weight { target, sources });
    }

    /// How matrices and experts are stored, one after the other.
    pub(crate) fn formats(&self) -> impl Iterator<Item = UsedFormat<'_>> {
        self.rows.iter().flat_map(|rows| {
            let target = rows.target;
            let sources = rows.sources.iter();
            sources.map(move |source| UsedFormat { target, source })
        })
    }

    /// Whether experts have biases.
    pub(crate) fn has_biased_experts(&self) -> bool {
        self.numbers.iter().any(|numbers| {
            matches!(numbers.target, NumbersOf::Biases) && !numbers.sources.is_empty()
        })
    }
}

/// A checkpoint that holds the tensors of the model.
struct Resolver<'a> {
    checkpoint: &'a Checkpoint,
    scheme: QuantizationScheme,
}

impl Resolver<'_> {
    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Source, LoadFailure> {
        match self.scheme.matrix(self.checkpoint, name, shape) {
            None => Ok(Source::tensor(self.checkpoint, name, shape)),
            Some(matrix) => self.codes(matrix),
        }
    }

    fn codes(&self, matrix: QuantizedMatrix) -> Result<Source, LoadFailure> {
        let format = format::of_codes(self.checkpoint, &matrix)?;
        let shape = [matrix.rows, matrix.columns];
        Ok(Source::new(Stored::Codes(matrix), format.into(), shape))
    }

    fn add_experts(
        &self,
        id: ExpertsId,
        request: &ExpertsRequest,
        sources: &mut Sources,
    ) -> Result<(), LoadFailure> {
        let tensors = request.tensors(|name| self.checkpoint.tensor(name).is_some());
        let mut both_scaled = None;
        for (part, target) in [
            (ExpertsPart::GateUp, WeightRows::GateUp(id)),
            (ExpertsPart::Down, WeightRows::Down(id)),
        ] {
            let (mut matrices, mut scales, mut biases) = (Vec::new(), Vec::new(), Vec::new());
            for tensor in tensors.iter().filter(|tensor| tensor.part == part) {
                match tensor.is_bias {
                    false => matrices.push(self.expert_matrices(tensor, &mut scales)?),
                    true => biases.push(self.expert_tensor(tensor)),
                }
            }
            check_formats(&matrices, &scales)?;
            let scaled = !scales.is_empty();
            if *both_scaled.get_or_insert(scaled) != scaled {
                return Err(mixed(&matrices[0]));
            }
            sources.rows.push(Weight {
                target,
                sources: matrices,
            });
            sources.add_numbers(NumbersOf::Scales(target), scales);
            sources.add_numbers(NumbersOf::Biases, biases);
        }
        Ok(())
    }

    /// The matrices of one tensor; their scales as well, if they have some for rows.
    fn expert_matrices(
        &self,
        tensor: &ExpertsTensor,
        scales: &mut Vec<Source>,
    ) -> Result<Source, LoadFailure> {
        let (checkpoint, name) = (self.checkpoint, tensor.tensor.name.as_str());
        let shape = [tensor.experts, tensor.rows, tensor.columns];
        let rows = tensor.experts * tensor.rows;
        let quantized = self.scheme.matrix(checkpoint, name, [rows, tensor.columns]);
        match quantized.or_else(|| QuantizedMatrix::packed(checkpoint, name, shape)) {
            None => Ok(self.expert_tensor(tensor)),
            Some(matrix) if format::has_row_scales(&matrix) => {
                let scale = Source::tensor(checkpoint, &matrix.scales, [rows, 1]);
                scales.push(match matrix.quantization.scales {
                    Scales::Tensor => Source {
                        stored: Stored::One(matrix.scales),
                        ..scale
                    },
                    _ => scale,
                });
                Ok(self.expert_tensor(tensor))
            }
            Some(matrix) => Ok(in_order(self.codes(matrix)?, tensor)),
        }
    }

    /// Numbers or blocks of one tensor.
    fn expert_tensor(&self, tensor: &ExpertsTensor) -> Source {
        let shape = [tensor.experts * tensor.rows, tensor.columns];
        let source = Source::tensor(self.checkpoint, &tensor.tensor.name, shape);
        let source = Source {
            columns_first: tensor.inputs_first,
            ..source
        };
        in_order(source, tensor)
    }
}

/// The source with its rows in the order of the model.
fn in_order(source: Source, tensor: &ExpertsTensor) -> Source {
    let together = source.columns_first || tensor.in_turns;
    Source {
        unit_rows: if together { tensor.rows } else { 1 },
        in_turns: tensor.in_turns,
        ..source
    }
}

/// Checks that matrices of experts have one format, and scales for all of them or for none, as it asks for.
fn check_formats(matrices: &[Source], scales: &[Source]) -> Result<(), LoadFailure> {
    let format = matrices[0].format;
    let scaled = match format == Element::F8E4M3.into() {
        true => matrices.len(),
        false => 0,
    };
    match matrices.iter().find(|matrix| matrix.format != format) {
        Some(other) => Err(mixed(other)),
        None if scales.len() != scaled => Err(mixed(&matrices[0])),
        None => Ok(()),
    }
}

fn mixed(source: &Source) -> LoadFailure {
    LoadFailure::MixedFormats(source.name().to_owned())
}
