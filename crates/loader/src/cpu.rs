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
    load(checkpoint, &spec.weights, Order::Stored, progress)
}

/// The same, in the order of [`CpuWeights::arranged`] as far as they can be brought into it while they are read.
/// The memory that they end up in is written once.
pub fn load_cpu_weights_in_panels(
    checkpoint: &Checkpoint,
    spec: &ModelSpec,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<CpuWeights, LoadFailure> {
    load(checkpoint, &spec.weights, Order::Panels, progress)
}

/// In which order rows are laid down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// As they are stored.
    Stored,
    /// In panels, where they fill whole ones.
    Panels,
    /// In that of [`CpuWeights::arranged`], for whoever has them so already.
    Arranged,
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
    let mut matrix = Matrix::of(parts, Order::Stored)?;
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
    let mut own = load(checkpoint, &head.weights, Order::Panels, progress)?;
    own = own.arranged(&|_| {});
    for shared in [model.embedding, model.head] {
        own.push_matrix(weights.matrices()[shared.0 as usize].clone());
    }
    Ok(own)
}

fn load(
    checkpoint: &Checkpoint,
    map: &WeightMap,
    order: Order,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<CpuWeights, LoadFailure> {
    let sources = Sources::of(checkpoint, map)?;
    let mut matrices = matrices(&sources, map, order)?;
    let mut vectors = vectors(&sources);
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

/// Weights of `spec` in the order of [`CpuWeights::arranged`], all of them zero.
pub(crate) fn zeroed(checkpoint: &Checkpoint, spec: &ModelSpec) -> Result<CpuWeights, LoadFailure> {
    let map = &spec.weights;
    let sources = Sources::of(checkpoint, map)?;
    let matrices = matrices(&sources, map, Order::Arranged)?;
    Ok(weights(map, matrices, vectors(&sources)))
}

/// Memory of all numbers, in the order of [`Sources`].
fn vectors(sources: &Sources) -> Vec<Vec<f32>> {
    let all = sources.numbers.iter();
    all.map(|numbers| vec![0.0; rows_of(&numbers.sources)])
        .collect()
}

/// Memory of all matrices, in the order of [`Sources`].
fn matrices(sources: &Sources, map: &WeightMap, order: Order) -> Result<Vec<Matrix>, LoadFailure> {
    let (dense, experts) = sources.rows.split_at(map.matrices.len());
    let dense = dense.iter().map(|rows| Matrix::of(&rows.sources, order));
    let requests = map.experts.iter();
    let shapes = requests.flat_map(|request| {
        let (experts, hidden, width) = (request.num_experts, request.hidden, request.width);
        [[experts, 2 * width, hidden], [experts, hidden, width]]
    });
    let experts = experts.iter().zip(shapes);
    let experts = experts.map(|(rows, shape)| Matrix::of_experts(&rows.sources, shape, order));
    dense.chain(experts).collect()
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
    fn of(parts: &[Source], order: Order) -> Result<Self, LoadFailure> {
        let bands = stored_bands(parts)?;
        Ok(match order {
            Order::Stored => Self::in_bands(parts, bands),
            Order::Panels => Self::in_best(parts, bands.arranged(parts[0].columns), bands),
            Order::Arranged => Self::in_bands(parts, bands.arranged(parts[0].columns)),
        })
    }

    /// Matrices `[experts, rows, columns]`.
    fn of_experts(parts: &[Source], shape: [usize; 3], order: Order) -> Result<Self, LoadFailure> {
        let bands = stored_bands(parts)?;
        let arranged = ExpertMatrices::arranged_bands(parts[0].format, shape);
        Ok(match order {
            Order::Stored => Self::in_bands(parts, bands),
            Order::Panels => Self::in_best(parts, arranged, bands),
            Order::Arranged => Self::in_bands(parts, arranged),
        })
    }

    fn in_bands(parts: &[Source], bands: Bands) -> Self {
        let first = &parts[0];
        Self {
            columns: first.columns,
            format: first.format,
            bytes: AlignedBytes::zeroed(bands.bytes(first.columns)),
            bands,
        }
    }

    /// In `arranged` bands, unless parts share a panel: these are arranged when both are there.
    fn in_best(parts: &[Source], arranged: Bands, stored: Bands) -> Self {
        let columns = parts[0].columns;
        let mut row = 0;
        let all_own = parts.iter().all(|part| {
            let own = arranged.own_range(columns, row, part.rows);
            row += part.rows;
            own.is_some()
        });
        Self::in_bands(parts, if all_own { arranged } else { stored })
    }

    /// One that every token is multiplied with.
    fn into_dense(self) -> CpuMatrix {
        CpuMatrix::stacked(self.bands, self.columns, self.bytes)
    }

    fn add_reads<'a>(&'a mut self, parts: &'a [Source], reads: &mut Reads<'a>) {
        let (mut rest, mut position, mut row) = (self.bytes.as_mut_slice(), 0, 0);
        for part in parts {
            let own = self.bands.own_range(self.columns, row, part.rows);
            let (range, in_panels) = own.expect("bands in which every part has bytes of its own");
            let (_, behind) = rest.split_at_mut(range.start - position);
            let (out, behind) = behind.split_at_mut(range.len());
            match in_panels {
                true => reads.panels(part, out),
                false => reads.rows(part, 0..part.rows, out),
            }
            (rest, position, row) = (behind, range.end, row + part.rows);
        }
    }
}

fn stored_bands(parts: &[Source]) -> Result<Bands, LoadFailure> {
    let bands = Bands::stacked(parts.iter().map(|part| (part.rows, part.format)));
    bands.ok_or_else(|| LoadFailure::MixedFormats(parts[0].name().to_owned()))
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
        let mut part = ExpertMatrices::stacked(matrix.bands, matrix.bytes);
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
