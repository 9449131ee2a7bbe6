//! Weights in memory, in the number format in which they are stored.

use rayon::prelude::{IndexedParallelIterator, ParallelIterator, ParallelSlice, ParallelSliceMut};

use crate::aligned::AlignedBytes;
use crate::backend::{ExpertsId, MatrixId, VectorId};
use crate::catalog::random_values;
use crate::element::Element;
use crate::features::InstructionSet;
use crate::gemm::{Arrangement, Bands, WeightFormat, WeightView};
use crate::panels;

/// A weight matrix `[rows, columns]` = `[outputs, inputs]`, row-major.
#[derive(Debug)]
pub struct CpuMatrix {
    columns: usize,
    bands: Bands,
    data: AlignedBytes,
}

impl CpuMatrix {
    /// Takes over `data`, which must hold exactly `rows * columns` numbers of `format`, not FP8.
    pub fn new(
        rows: usize,
        columns: usize,
        format: impl Into<WeightFormat>,
        data: AlignedBytes,
    ) -> Self {
        Self::stacked(Bands::one(rows, format), columns, data)
    }

    /// Takes over `data`, which must hold exactly the rows that `bands` describes.
    pub fn stacked(bands: Bands, columns: usize, data: AlignedBytes) -> Self {
        let matrix = Self {
            columns,
            bands,
            data,
        };
        assert!(
            !matrix.view().contains(Element::F8E4M3),
            "only experts are stored in FP8"
        );
        matrix
    }

    /// A matrix of f32.
    pub fn from_f32(rows: usize, columns: usize, values: &[f32]) -> Self {
        Self::new(rows, columns, Element::F32, AlignedBytes::from_f32(values))
    }

    /// A matrix of `values` rounded to BF16.
    pub fn bf16_from_f32(rows: usize, columns: usize, values: &[f32]) -> Self {
        Self::new(
            rows,
            columns,
            Element::BF16,
            AlignedBytes::bf16_from_f32(values),
        )
    }

    /// Random numbers of a size that keeps outputs near 1; the same for the same seed.
    pub fn random(seed: u64, rows: usize, columns: usize, element: Element) -> Self {
        let data = random_weights(seed, rows * columns, columns, element);
        Self::new(rows, columns, element, data)
    }

    /// The same matrix, arranged for the processor's products where they are faster for it. Those
    /// with weights in blocks then quantise activations to 8 bits.
    pub fn arranged(self) -> Self {
        let tiles = InstructionSet::detect() >= InstructionSet::Amx;
        let wanted = |format| tiles || matches!(format, WeightFormat::Blocks(_));
        let bands = self.bands.arranged(self.columns, wanted);
        if bands == self.bands {
            return self;
        }
        let mut data = self.data;
        if bands.bytes(self.columns) != data.len() {
            // Some rows are missing to whole panels.
            let rows = data;
            data = AlignedBytes::zeroed(bands.bytes(self.columns));
            let places = self
                .bands
                .places(self.columns)
                .zip(bands.places(self.columns));
            for (from, to) in places {
                let bytes = from.band.bytes(self.columns);
                data.as_mut_slice()[to.offset..][..bytes]
                    .copy_from_slice(&rows.as_slice()[from.offset..][..bytes]);
            }
        }
        for place in bands.places(self.columns) {
            if place.band.arrangement != Arrangement::Rows {
                let bytes = place.band.bytes(self.columns);
                let part = &mut data.as_mut_slice()[place.offset..][..bytes];
                panels::arrange(place.band.format, self.columns, part);
            }
        }
        Self {
            bands,
            data,
            ..self
        }
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.bands.rows()
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Shape, format and bytes.
    pub fn view(&self) -> WeightView<'_> {
        WeightView::stacked(self.bands, self.data.as_slice(), self.columns)
    }
}

/// The routed experts of one layer.
#[derive(Debug)]
pub struct CpuExperts {
    /// Number of experts.
    pub num_experts: usize,
    /// Elements of the layer's input and output.
    pub hidden: usize,
    /// Elements of one expert's intermediate activation.
    pub width: usize,
    /// Number format of both matrices. With FP8, activations are quantised to E4M3 as well, and
    /// weights must not be NaN.
    pub element: Element,
    /// `[experts, 2 * width, hidden]`, gate rows before up rows.
    pub gate_up: AlignedBytes,
    /// `[experts, hidden, width]`.
    pub down: AlignedBytes,
    /// FP8 only, else empty: one scale for each row of `gate_up`, `[experts, 2 * width]`.
    pub gate_up_scales: Vec<f32>,
    /// FP8 only, else empty: one scale for each row of `down`, `[experts, hidden]`.
    pub down_scales: Vec<f32>,
}

/// `len` random numbers in storage, such that a sum over `inputs` of them is near 1.
fn random_weights(seed: u64, len: usize, inputs: usize, element: Element) -> AlignedBytes {
    // FP8 has scales of its own.
    let scale = if element == Element::F8E4M3 {
        60.0
    } else {
        1.0 / (inputs as f32).sqrt()
    };
    const PIECE: usize = 1 << 16;
    let mut data = AlignedBytes::zeroed(len * element.bytes());
    let values = random_values(seed, len, scale);
    let pieces = data.as_mut_slice().par_chunks_mut(PIECE * element.bytes());
    let pieces = pieces.zip(values.par_chunks(PIECE));
    pieces.for_each(|(bytes, values)| {
        for (index, &value) in values.iter().enumerate() {
            element.write(bytes, index, value);
        }
    });
    data
}

impl CpuExperts {
    /// Random experts of the shape `[num_experts, hidden, width]`; the same for the same seed.
    pub fn random(seed: u64, [num_experts, hidden, width]: [usize; 3], element: Element) -> Self {
        let numbers = num_experts * hidden * width;
        let scales = |seed, rows: usize, inputs: usize| {
            let scaled = if element == Element::F8E4M3 {
                num_experts * rows
            } else {
                0
            };
            let typical = 1.0 / 60.0 / (inputs as f32).sqrt();
            let factors = random_values(seed, scaled, 0.2).into_iter();
            factors.map(|factor| typical * (1.0 + factor)).collect()
        };
        let experts = Self {
            num_experts,
            hidden,
            width,
            element,
            gate_up: random_weights(seed, 2 * numbers, hidden, element),
            down: random_weights(seed + 1, numbers, width, element),
            gate_up_scales: scales(seed + 2, 2 * width, hidden),
            down_scales: scales(seed + 3, hidden, width),
        };
        experts.check();
        experts
    }

    /// Panics unless all sizes agree.
    pub fn check(&self) {
        let numbers = self.num_experts * self.width * self.hidden;
        assert_eq!(
            self.gate_up.len(),
            2 * numbers * self.element.bytes(),
            "bytes of gate_up"
        );
        assert_eq!(
            self.down.len(),
            numbers * self.element.bytes(),
            "bytes of down"
        );
        let scaled = usize::from(self.element == Element::F8E4M3) * self.num_experts;
        assert_eq!(
            self.gate_up_scales.len(),
            scaled * 2 * self.width,
            "scales of gate_up"
        );
        assert_eq!(
            self.down_scales.len(),
            scaled * self.hidden,
            "scales of down"
        );
    }

    /// Gate and up of one expert, `[2 * width, hidden]`.
    pub(crate) fn gate_up_view(&self, expert: usize) -> WeightView<'_> {
        let len = 2 * self.width * self.hidden * self.element.bytes();
        let bytes = &self.gate_up.as_slice()[expert * len..][..len];
        WeightView::new(self.element, bytes, 2 * self.width, self.hidden)
    }

    /// Down of one expert, `[hidden, width]`.
    pub(crate) fn down_view(&self, expert: usize) -> WeightView<'_> {
        let len = self.width * self.hidden * self.element.bytes();
        let bytes = &self.down.as_slice()[expert * len..][..len];
        WeightView::new(self.element, bytes, self.hidden, self.width)
    }

    /// Scales of one expert's gate and up rows.
    pub(crate) fn gate_up_scales_of(&self, expert: usize) -> Option<&[f32]> {
        let rows = 2 * self.width;
        self.gate_up_scales.get(expert * rows..(expert + 1) * rows)
    }

    /// Scales of one expert's down rows.
    pub(crate) fn down_scales_of(&self, expert: usize) -> Option<&[f32]> {
        self.down_scales
            .get(expert * self.hidden..(expert + 1) * self.hidden)
    }
}

/// All weights of a model, indexed by the ids that the architecture uses.
#[derive(Debug, Default)]
pub struct CpuWeights {
    vectors: Vec<Vec<f32>>,
    matrices: Vec<CpuMatrix>,
    experts: Vec<CpuExperts>,
}

impl CpuWeights {
    /// No weights yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a vector; ids count up from 0.
    pub fn push_vector(&mut self, vector: Vec<f32>) -> VectorId {
        self.vectors.push(vector);
        VectorId(self.vectors.len() as u32 - 1)
    }

    /// Adds a matrix; ids count up from 0.
    pub fn push_matrix(&mut self, matrix: CpuMatrix) -> MatrixId {
        self.matrices.push(matrix);
        MatrixId(self.matrices.len() as u32 - 1)
    }

    /// Adds a layer's experts; ids count up from 0.
    pub fn push_experts(&mut self, experts: CpuExperts) -> ExpertsId {
        experts.check();
        self.experts.push(experts);
        ExpertsId(self.experts.len() as u32 - 1)
    }

    /// All vectors, by id.
    pub fn vectors(&self) -> &[Vec<f32>] {
        &self.vectors
    }

    /// All matrices, by id.
    pub fn matrices(&self) -> &[CpuMatrix] {
        &self.matrices
    }

    /// The experts of all layers, by id.
    pub fn experts(&self) -> &[CpuExperts] {
        &self.experts
    }

    /// The vector with this id.
    pub fn vector(&self, id: VectorId) -> &[f32] {
        &self.vectors[id.0 as usize]
    }

    /// The matrix with this id.
    pub fn matrix(&self, id: MatrixId) -> &CpuMatrix {
        &self.matrices[id.0 as usize]
    }

    /// The experts with this id.
    pub fn layer_experts(&self, id: ExpertsId) -> &CpuExperts {
        &self.experts[id.0 as usize]
    }

    /// Bytes that all weights take.
    pub fn bytes(&self) -> usize {
        let vectors: usize = self.vectors.iter().map(|vector| vector.len() * 4).sum();
        let matrices: usize = self.matrices.iter().map(|matrix| matrix.data.len()).sum();
        let experts = self.experts.iter().map(|experts| {
            let scales = experts.gate_up_scales.len() + experts.down_scales.len();
            experts.gate_up.len() + experts.down.len() + scales * 4
        });
        vectors + matrices + experts.sum::<usize>()
    }
}
