//! Fills the memory of the CPU's backend.

use backstop_arch::{DraftHeadSpec, ModelSpec, WeightMap};
use backstop_card::staging::WeightRows;
use backstop_kernels::{
    AlignedBytes, Bands, CpuExperts, CpuMatrix, CpuWeights, ExpertMatrices, WeightFormat,
};
use backstop_weights::Checkpoint;

use crate::reads::{Reads, summed};
use crate::resolve::{NumbersOf, Weight};
use crate::source::{Source, rows_of};
use crate::{LoadFailure, Sources};

/// Loads every weight of `spec`, as it is stored. `progress` is told the bytes read so far, out of
/// [`Checkpoint::bytes_total`].
pub fn load_cpu_weights(
    checkpoint: &Checkpoint,
    spec: &ModelSpec,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<CpuWeights, LoadFailure> {
    load(checkpoint, &spec.weights, progress)
}

/// A weight in the host's memory, on its way to a backend that keeps it elsewhere.
#[derive(Debug)]
pub enum HostWeight {
    /// A vector.
    Vector(Vec<f32>),
    /// A matrix, as it is stored.
    Matrix(CpuMatrix),
    /// A layer's experts, as they are stored.
    Experts(CpuExperts),
}

/// Loads every weight of `spec` and hands it to `take` before the next: vectors, then matrices, then experts, by id.
/// `progress` is told the bytes read so far, out of [`Checkpoint::bytes_total`].
pub fn load_one_by_one<E: From<LoadFailure>>(
    checkpoint: &Checkpoint,
    spec: &ModelSpec,
    progress: &(dyn Fn(u64) + Sync),
    take: &mut dyn FnMut(HostWeight) -> Result<(), E>,
) -> Result<(), E> {
    let map = &spec.weights;
    let sources = Sources::of(checkpoint, map)?;
    let advance = summed(progress);
    let (vectors, of_experts) = sources.numbers.split_at(map.vectors.len());
    for numbers in vectors {
        let vector = read_numbers(checkpoint, &numbers.sources, &advance)?;
        take(HostWeight::Vector(vector))?;
    }
    let (matrices, experts) = sources.rows.split_at(map.matrices.len());
    for rows in matrices {
        let matrix = read_matrix(checkpoint, &rows.sources, &advance)?;
        take(HostWeight::Matrix(matrix.into_dense()))?;
    }
    let layers = experts.as_chunks::<2>().0.iter();
    let numbers = of_experts.as_chunks::<4>().0;
    for ((request, rows), numbers) in map.experts.iter().zip(layers).zip(numbers) {
        let matrices = |rows: &Weight<WeightRows>, numbers: &[Weight<NumbersOf>]| {
            let matrix = read_matrix(checkpoint, &rows.sources, &advance)?;
            let mut part = ExpertMatrices::new(matrix.format, matrix.bytes);
            part.scales = read_numbers(checkpoint, &numbers[0].sources, &advance)?;
            part.biases = read_numbers(checkpoint, &numbers[1].sources, &advance)?;
            Ok::<_, LoadFailure>(part)
        };
        let experts = CpuExperts {
            num_experts: request.num_experts,
            hidden: request.hidden,
            width: request.width,
            gate_up: matrices(&rows[0], &numbers[..2])?,
            down: matrices(&rows[1], &numbers[2..])?,
        };
        experts.check();
        take(HostWeight::Experts(experts))?;
    }
    Ok(())
}

fn read_matrix(
    checkpoint: &Checkpoint,
    parts: &[Source],
    advance: &(dyn Fn(u64) + Sync),
) -> Result<Matrix, LoadFailure> {
    let mut matrix = Matrix::of(parts)?;
    let mut reads = Reads::new(checkpoint);
    matrix.add_reads(parts, &mut reads);
    reads.run(advance)?;
    Ok(matrix)
}

fn read_numbers(
    checkpoint: &Checkpoint,
    parts: &[Source],
    advance: &(dyn Fn(u64) + Sync),
) -> Result<Vec<f32>, LoadFailure> {
    let mut numbers = vec![0.0; rows_of(parts)];
    let mut reads = Reads::new(checkpoint);
    reads.numbers(parts, &mut numbers);
    reads.run(advance)?;
    Ok(numbers)
}

/// Loads a draft head's weights, arranges them for the processor's products, and adds those of the
/// model that the head computes with, its embedding and its output head. `progress` is told the
/// bytes read so far, out of [`Checkpoint::bytes_total`].
pub fn load_cpu_draft_head(
    checkpoint: &Checkpoint,
    head: &DraftHeadSpec,
    model: &ModelSpec,
    weights: &CpuWeights,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<CpuWeights, LoadFailure> {
    let mut own = load(checkpoint, &head.weights, progress)?.arranged(&|_| {});
    for shared in [model.embedding, model.head] {
        own.push_matrix(weights.matrices()[shared.0 as usize].clone());
    }
    Ok(own)
}

fn load(
    checkpoint: &Checkpoint,
    map: &WeightMap,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<CpuWeights, LoadFailure> {
    let sources = Sources::of(checkpoint, map)?;
    let matrices = sources.rows.iter().map(|rows| Matrix::of(&rows.sources));
    let mut matrices = matrices.collect::<Result<Vec<_>, _>>()?;
    let vectors = sources.numbers.iter();
    let vectors = vectors.map(|numbers| vec![0.0; rows_of(&numbers.sources)]);
    let mut vectors: Vec<Vec<f32>> = vectors.collect();

    let mut reads = Reads::new(checkpoint);
    for (matrix, rows) in matrices.iter_mut().zip(&sources.rows) {
        matrix.add_reads(&rows.sources, &mut reads);
    }
    for (vector, numbers) in vectors.iter_mut().zip(&sources.numbers) {
        reads.numbers(&numbers.sources, vector);
    }
    reads.run(&summed(progress))?;
    Ok(weights(map, matrices, vectors))
}

/// Memory of a matrix, or of those of all experts, whose parts may have different formats.
struct Matrix {
    columns: usize,
    /// Of the first part.
    format: WeightFormat,
    bands: Bands,
    bytes: AlignedBytes,
}

impl Matrix {
    fn of(parts: &[Source]) -> Result<Self, LoadFailure> {
        let first = &parts[0];
        let bands = Bands::stacked(parts.iter().map(|part| (part.rows, part.format)))
            .ok_or_else(|| LoadFailure::MixedFormats(first.name().to_owned()))?;
        Ok(Self {
            columns: first.columns,
            format: first.format,
            bytes: AlignedBytes::zeroed(bands.bytes(first.columns)),
            bands,
        })
    }

    /// One that every token is multiplied with.
    fn into_dense(self) -> CpuMatrix {
        CpuMatrix::stacked(self.bands, self.columns, self.bytes)
    }

    fn add_reads<'a>(&'a mut self, parts: &'a [Source], reads: &mut Reads<'a>) {
        let (mut rest, mut position, mut row) = (self.bytes.as_mut_slice(), 0, 0);
        for part in parts {
            let range = self.bands.row_range(self.columns, row, part.rows);
            let (_, behind) = rest.split_at_mut(range.start - position);
            let (out, behind) = behind.split_at_mut(range.len());
            reads.rows(part, 0..part.rows, out);
            (rest, position, row) = (behind, range.end, row + part.rows);
        }
    }
}

/// What was read, which is in the order of [`Sources`].
fn weights(map: &WeightMap, matrices: Vec<Matrix>, vectors: Vec<Vec<f32>>) -> CpuWeights {
    let (mut matrices, mut vectors) = (matrices.into_iter(), vectors.into_iter());
    let mut weights = CpuWeights::new();
    for vector in vectors.by_ref().take(map.vectors.len()) {
        weights.push_vector(vector);
    }
    for matrix in matrices.by_ref().take(map.matrices.len()) {
        weights.push_matrix(matrix.into_dense());
    }
    let mut vector = || {
        vectors
            .next()
            .expect("scales and biases, if only empty ones")
    };
    let mut part = || {
        let matrix = matrices.next().expect("matrices of experts");
        let mut part = ExpertMatrices::new(matrix.format, matrix.bytes);
        part.scales = vector();
        part.biases = vector();
        part
    };
    for request in &map.experts {
        weights.push_experts(CpuExperts {
            num_experts: request.num_experts,
            hidden: request.hidden,
            width: request.width,
            gate_up: part(),
            down: part(),
        });
    }
    weights
}
