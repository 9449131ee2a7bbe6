//! Reads a checkpoint's tensors into a device's memory.
//!
//! The tensors are cut into strips of rows that fill a staging buffer. While the device takes in
//! one, the next is read, in the order in which the strips lie in the files.

use std::sync::Arc;

use backstop_arch::{
    ExpertsRequest, MatrixRequest, MatrixRole, ModelSpec, VectorRequest, WeightMap,
};
use backstop_card::layout::TiledMatrix;
use backstop_card::staging::{StagedRows, WeightNumbers, WeightRows, WeightStaging};
use backstop_card::{CudaWeights, Device, DeviceError};
use backstop_kernels::{Element, ExpertsId, MatrixId, VectorId};
use backstop_weights::{Checkpoint, CopyJob, ElementType, QuantizedMatrix, Scales};

use crate::formats::{
    LoadFailure, StoredExperts, StoredFormats, StoredMatrix, described, kernel_element, widened,
};
use crate::synthetic::SyntheticWeights;

/// Bytes of each of the two staging buffers: some milliseconds of copying.
const STAGING_BYTES: usize = 256 << 20;
/// Strips begin at multiples of this many bytes in a staging buffer.
const ALIGNMENT: usize = 256;

/// What the weights of a model take on a device, known before any is read.
#[derive(Clone, Debug)]
pub struct DeviceWeightPlan {
    vectors: Vec<usize>,
    matrices: Vec<TiledMatrix>,
    /// Shape `[num_experts, hidden, width]` and format of each layer's experts.
    experts: Vec<([usize; 3], Element)>,
}

impl DeviceWeightPlan {
    /// For the weights of a checkpoint, which is checked for this model.
    pub fn of_checkpoint(checkpoint: &Checkpoint, spec: &ModelSpec) -> Result<Self, LoadFailure> {
        let formats = StoredFormats::of(checkpoint, &spec.weights)?;
        check_formats(&formats, &spec.weights)?;
        let experts = formats.experts.iter();
        let experts = experts.map(|stored| kernel_element(stored.formats[0]));
        Ok(Self::new(&spec.weights, experts))
    }

    /// For weights that are made.
    pub fn of_synthetic(weights: &SyntheticWeights, spec: &ModelSpec) -> Self {
        Self::new(&spec.weights, weights.experts.iter().copied())
    }

    fn new(map: &WeightMap, expert_elements: impl Iterator<Item = Element>) -> Self {
        let shape = |experts: &ExpertsRequest| {
            let ExpertsRequest {
                num_experts,
                hidden,
                width,
                ..
            } = *experts;
            [num_experts, hidden, width]
        };
        Self {
            vectors: map.vectors.iter().map(VectorRequest::elements).collect(),
            matrices: map.matrices.iter().map(layout).collect(),
            experts: map.experts.iter().map(shape).zip(expert_elements).collect(),
        }
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> u64 {
        let vectors = self.vectors.iter().map(|len| len * 4);
        let matrices = self.matrices.iter().map(TiledMatrix::bytes);
        let experts = self.experts.iter().map(|&(shape, element)| {
            let [num_experts, hidden, width] = shape;
            let matrices = [
                TiledMatrix::gate_up(width, hidden, element),
                TiledMatrix::new(hidden, width, element),
            ];
            let scale_bytes = if element == Element::F8E4M3 { 4 } else { 0 };
            let bytes = matrices.map(|matrix| matrix.bytes() + matrix.padded_rows() * scale_bytes);
            num_experts * bytes.iter().sum::<usize>()
        });
        vectors.chain(matrices).chain(experts).sum::<usize>() as u64
    }

    /// Takes the memory, with ids in the order of the model's [`WeightMap`].
    pub fn reserve(&self, device: &Arc<dyn Device>) -> Result<CudaWeights, DeviceError> {
        let mut weights = CudaWeights::new(device);
        for &len in &self.vectors {
            weights.reserve_vector(len)?;
        }
        for &matrix in &self.matrices {
            weights.reserve_matrix(matrix)?;
        }
        for &(shape, element) in &self.experts {
            weights.reserve_experts(shape, element)?;
        }
        Ok(weights)
    }
}

/// Fills the memory that a plan for this checkpoint has reserved. `progress` is told the bytes
/// read so far, out of [`Checkpoint::bytes_total`].
pub fn load_device_weights(
    checkpoint: &Checkpoint,
    spec: &ModelSpec,
    weights: &CudaWeights,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), LoadFailure> {
    load_in_pieces(checkpoint, spec, weights, STAGING_BYTES, progress)
}

/// The same, with staging buffers of at most `staging_bytes`, if that holds the longest row.
pub fn load_in_pieces(
    checkpoint: &Checkpoint,
    spec: &ModelSpec,
    weights: &CudaWeights,
    staging_bytes: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), LoadFailure> {
    let formats = StoredFormats::of(checkpoint, &spec.weights)?;
    check_formats(&formats, &spec.weights)?;
    let mut strips = Strips::of(checkpoint, &formats, &spec.weights);
    let bytes = strips.staging_bytes().min(staging_bytes);
    let bytes = bytes.max(strips.longest_row()).next_multiple_of(ALIGNMENT);
    let mut staging = WeightStaging::new(weights, bytes)?;
    let mut bytes_done = 0;
    for piece in strips.cut(bytes) {
        let buffer = staging.begin()?;
        let jobs = jobs(&piece, buffer);
        let bytes: usize = jobs.iter().map(|job| job.destination.len()).sum();
        checkpoint.copy_all(jobs, &|done| progress(bytes_done + done))?;
        bytes_done += bytes as u64;
        strips.keep_numbers(&piece, buffer);
        staging.send(&staged_rows(&piece))?;
    }
    for (target, values) in &strips.numbers {
        staging.send_numbers(*target, values)?;
    }
    Ok(staging.finish()?)
}

fn layout(matrix: &MatrixRequest) -> TiledMatrix {
    match matrix.role {
        MatrixRole::GateUp => {
            TiledMatrix::gate_up(matrix.rows() / 2, matrix.columns, Element::BF16)
        }
        _ => TiledMatrix::new(matrix.rows(), matrix.columns, Element::BF16),
    }
}

/// Refuses what the device does not compute with.
fn check_formats(formats: &StoredFormats, map: &WeightMap) -> Result<(), LoadFailure> {
    let refused = |name: String, format: String| Err(LoadFailure::NotForDevice { name, format });
    let is_plain = |stored: &StoredMatrix| matches!(stored, StoredMatrix::Plain(ElementType::BF16));
    for (stored, matrix) in formats.matrices.iter().zip(&map.matrices) {
        let mut parts = stored.iter().zip(&matrix.parts);
        if let Some((stored, part)) = parts.find(|(stored, _)| !is_plain(stored)) {
            return refused(part.name.clone(), stored.name());
        }
    }
    for (stored, experts) in formats.experts.iter().zip(&map.experts) {
        let mut quantized = stored.quantized.as_flattened().iter();
        let has_scale_for_each_row = |matrix: &QuantizedMatrix| {
            stored.has_row_scales() && matrix.quantization.scales == Scales::Row
        };
        if let Some(matrix) = quantized.find(|matrix| !has_scale_for_each_row(matrix)) {
            return refused(matrix.codes.clone(), described(matrix));
        }
        let name = match stored.packed {
            true => experts.packed_gate_up(),
            false => experts.unfused(0, "gate"),
        };
        if experts.alternating {
            return Err(LoadFailure::AlternatingForDevice(name));
        }
        let computes = [[ElementType::BF16; 2], [ElementType::F8E4M3; 2]];
        if !computes.contains(&stored.elements) {
            return refused(name, stored.elements.map(ElementType::name).join(" and "));
        }
    }
    Ok(())
}

/// Where the rows of a strip belong.
#[derive(Clone, Copy)]
enum Target {
    /// Tiles on the device.
    Rows(WeightRows),
    /// Numbers that are collected on the host first: an index into [`Strips::numbers`].
    Numbers(usize, ElementType),
}

/// Consecutive rows of a tensor.
#[derive(Clone)]
struct Strip {
    tensor: String,
    /// Where it lies in the files.
    position: (usize, u64),
    /// Where it begins in the tensor.
    first_byte: u64,
    rows: usize,
    row_bytes: usize,
    target: Target,
    /// The row of the target that the first one is.
    first_row: usize,
}

/// A strip and where it goes in the staging buffer.
struct Staged {
    strip: Strip,
    offset: usize,
}

struct Strips {
    /// Whole tensors, in the order of the files.
    strips: Vec<Strip>,
    numbers: Vec<(WeightNumbers, Vec<f32>)>,
}

impl Strips {
    fn of(checkpoint: &Checkpoint, formats: &StoredFormats, map: &WeightMap) -> Self {
        let mut strips = Self {
            strips: Vec::new(),
            numbers: Vec::new(),
        };
        let vectors = (0..).map(VectorId).zip(&map.vectors);
        for ((id, vector), &element) in vectors.zip(&formats.vectors) {
            let target = WeightNumbers::Vector(id);
            let target = strips.numbers_of(target, vector.elements(), element);
            let mut first = 0;
            for part in &vector.parts {
                strips.add(checkpoint, part.name.clone(), part.len, target, first);
                first += part.len;
            }
        }
        for (id, matrix) in (0..).map(MatrixId).zip(&map.matrices) {
            let target = Target::Rows(WeightRows::Matrix(id));
            let mut first_row = 0;
            for part in &matrix.parts {
                strips.add(checkpoint, part.name.clone(), part.rows, target, first_row);
                first_row += part.rows;
            }
        }
        let experts = (0..).map(ExpertsId).zip(&map.experts);
        for ((id, request), stored) in experts.zip(&formats.experts) {
            strips.add_experts(checkpoint, id, request, stored);
        }
        strips.strips.sort_by_key(|strip| strip.position);
        strips
    }

    fn numbers_of(&mut self, target: WeightNumbers, len: usize, element: ElementType) -> Target {
        self.numbers.push((target, vec![0.0; len]));
        Target::Numbers(self.numbers.len() - 1, element)
    }

    fn add_experts(
        &mut self,
        checkpoint: &Checkpoint,
        id: ExpertsId,
        request: &ExpertsRequest,
        stored: &StoredExperts,
    ) {
        let (width, hidden) = (request.width, request.hidden);
        let all = |rows: usize| request.num_experts * rows;
        let gate_up = Target::Rows(WeightRows::GateUp(id));
        let down = Target::Rows(WeightRows::Down(id));
        if stored.packed {
            let names = [request.packed_gate_up(), request.packed_down()];
            let [gate_up_name, down_name] = names;
            self.add(checkpoint, gate_up_name, all(2 * width), gate_up, 0);
            self.add(checkpoint, down_name, all(hidden), down, 0);
            return;
        }
        self.add_unfused(checkpoint, request, "", [gate_up, down]);
        if let Some([gate, ..]) = stored.quantized.first() {
            let scale = checkpoint.tensor(&gate.scales);
            let scale = scale.expect("the census found every required tensor");
            let element = scale.element_type;
            let gate_up = WeightNumbers::GateUpScales(id);
            let gate_up = self.numbers_of(gate_up, all(2 * width), element);
            let down = self.numbers_of(WeightNumbers::DownScales(id), all(hidden), element);
            self.add_unfused(checkpoint, request, "_scale", [gate_up, down]);
        }
    }

    fn add_unfused(
        &mut self,
        checkpoint: &Checkpoint,
        request: &ExpertsRequest,
        suffix: &str,
        [gate_up, down]: [Target; 2],
    ) {
        let (width, hidden) = (request.width, request.hidden);
        for expert in 0..request.num_experts {
            for (kind, rows, target, first_row) in [
                ("gate", width, gate_up, 2 * expert * width),
                ("up", width, gate_up, (2 * expert + 1) * width),
                ("down", hidden, down, expert * hidden),
            ] {
                let name = request.unfused(expert, kind) + suffix;
                self.add(checkpoint, name, rows, target, first_row);
            }
        }
    }

    /// Adds a whole tensor of this many rows.
    fn add(
        &mut self,
        checkpoint: &Checkpoint,
        name: String,
        rows: usize,
        target: Target,
        first_row: usize,
    ) {
        let tensor = checkpoint.tensor(&name);
        let tensor = tensor.expect("the census found every required tensor");
        self.strips.push(Strip {
            position: tensor.position(),
            first_byte: 0,
            rows,
            row_bytes: tensor.bytes as usize / rows.max(1),
            target,
            first_row,
            tensor: name,
        });
    }

    /// Bytes of a buffer that would hold everything.
    fn staging_bytes(&self) -> usize {
        let bytes = |strip: &Strip| (strip.rows * strip.row_bytes).next_multiple_of(ALIGNMENT);
        self.strips.iter().map(bytes).sum()
    }

    fn longest_row(&self) -> usize {
        let rows = self.strips.iter().map(|strip| strip.row_bytes);
        rows.max().unwrap_or(0)
    }

    /// The strips in pieces that fit a buffer, which holds the longest row.
    fn cut(&self, buffer_bytes: usize) -> Vec<Vec<Staged>> {
        let mut pieces = vec![Vec::new()];
        let mut used: usize = 0;
        for strip in &self.strips {
            let mut rest = strip.clone();
            while rest.rows > 0 {
                let offset = used.next_multiple_of(ALIGNMENT);
                let room = buffer_bytes.saturating_sub(offset) / rest.row_bytes.max(1);
                if room == 0 {
                    pieces.push(Vec::new());
                    used = 0;
                    continue;
                }
                let strip = rest.take_rows(room);
                used = offset + strip.rows * strip.row_bytes;
                let piece = pieces.last_mut().expect("there is a first piece");
                piece.push(Staged { strip, offset });
            }
        }
        pieces
    }

    /// Takes the numbers of a piece out of the buffer that it was read into.
    fn keep_numbers(&mut self, piece: &[Staged], buffer: &[u8]) {
        for Staged { strip, offset } in piece {
            if let Target::Numbers(index, element) = strip.target {
                let bytes = &buffer[*offset..][..strip.rows * strip.row_bytes];
                let places = &mut self.numbers[index].1[strip.first_row..][..strip.rows];
                places.copy_from_slice(&widened(element, bytes));
            }
        }
    }
}

impl Strip {
    /// Cuts off at most this many rows at the beginning.
    fn take_rows(&mut self, rows: usize) -> Self {
        let rows = rows.min(self.rows);
        let taken = Self {
            rows,
            ..self.clone()
        };
        self.first_byte += (rows * self.row_bytes) as u64;
        self.first_row += rows;
        self.rows -= rows;
        taken
    }
}

/// Jobs that read a piece into a buffer.
fn jobs<'a>(piece: &[Staged], buffer: &'a mut [u8]) -> Vec<CopyJob<'a>> {
    let mut jobs = Vec::with_capacity(piece.len());
    let (mut rest, mut position) = (buffer, 0);
    for Staged { strip, offset } in piece {
        let (_, behind) = rest.split_at_mut(offset - position);
        let (destination, behind) = behind.split_at_mut(strip.rows * strip.row_bytes);
        position = offset + destination.len();
        rest = behind;
        jobs.push(CopyJob {
            name: strip.tensor.clone(),
            part_from: Some(strip.first_byte),
            destination,
        });
    }
    jobs
}

fn staged_rows(piece: &[Staged]) -> Vec<StagedRows> {
    let rows = piece.iter().filter_map(|staged| match staged.strip.target {
        Target::Numbers(..) => None,
        Target::Rows(target) => Some(StagedRows {
            target,
            first_row: staged.strip.first_row,
            rows: staged.strip.rows,
            offset: staged.offset,
        }),
    });
    rows.collect()
}
