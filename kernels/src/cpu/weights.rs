//! Weights in memory, in the number format in which they are stored.

mod parts;

use std::sync::Arc;

use crate::aligned::AlignedBytes;
use crate::backend::{ExpertsId, MatrixId, VectorId};
use crate::element::Element;
use crate::gemm::{Arrangement, Band, Bands, WeightFormat, WeightView};
use crate::panels::{self, PANEL_ROWS};

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

    /// See [`CpuWeights::arranged`].
    pub fn arranged(self) -> Self {
        let bands = self.bands.arranged(self.columns);
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
    /// `[experts, 2 * width, hidden]`, gate rows before up rows.
    pub gate_up: ExpertMatrices,
    /// `[experts, hidden, width]`; in FP8 if `gate_up` is.
    pub down: ExpertMatrices,
}

/// One matrix of each expert of a layer.
#[derive(Debug)]
pub struct ExpertMatrices {
    /// How their rows are stored. With FP8, activations are quantised to E4M3 as well, and weights
    /// must not be NaN.
    pub format: WeightFormat,
    /// One matrix after the other.
    pub data: AlignedBytes,
    /// FP8 only, else empty: one factor for each row, `[experts, rows]`.
    pub scales: Vec<f32>,
    /// One addend for each row, `[experts, rows]`; empty if there are none.
    pub biases: Vec<f32>,
    /// Of each expert's matrix.
    arrangement: Arrangement,
}

impl ExpertMatrices {
    /// Matrices without scales and biases.
    pub fn new(format: impl Into<WeightFormat>, data: AlignedBytes) -> Self {
        Self {
            format: format.into(),
            data,
            scales: Vec::new(),
            biases: Vec::new(),
            arrangement: Arrangement::Rows,
        }
    }

    /// The same of rows that lie as the only band says.
    pub fn stacked(bands: Bands, data: AlignedBytes) -> Self {
        let band = bands.only();
        Self {
            arrangement: band.arrangement,
            ..Self::new(band.format, data)
        }
    }

    /// How matrices `[rows, columns]` of so many experts lie when they are arranged.
    pub fn arranged_bands(
        format: impl Into<WeightFormat>,
        [experts, rows, columns]: [usize; 3],
    ) -> Bands {
        let format = format.into();
        let bands = Bands::one(experts * rows, format);
        match Self::can_be_arranged(format, [rows, columns]) {
            true => bands.arranged(columns),
            false => bands,
        }
    }

    /// Blocks can, if their shape allows it without more memory.
    fn can_be_arranged(format: WeightFormat, [rows, columns]: [usize; 2]) -> bool {
        matches!(format, WeightFormat::Blocks(_))
            && rows.is_multiple_of(PANEL_ROWS)
            && panels::can_arrange(format, columns)
    }

    /// Matrices of this shape in panels, if they can be.
    fn arranged(mut self, [rows, columns]: [usize; 2]) -> Self {
        let possible = Self::can_be_arranged(self.format, [rows, columns]);
        if possible && self.arrangement == Arrangement::Rows {
            panels::arrange(self.format, columns, self.data.as_mut_slice());
            self.arrangement = Arrangement::Panels { skipped: 0 };
        }
        self
    }

    /// See [`CpuWeights::layout`].
    fn layout(&self) -> String {
        let pieces = panels::layout(self.format);
        format!(
            "{} {:?} {pieces:?} {} {}",
            self.format,
            self.arrangement,
            self.scales.len(),
            self.biases.len()
        )
    }

    /// Whether they are stored in FP8.
    pub fn are_fp8(&self) -> bool {
        self.format == Element::F8E4M3.into()
    }

    /// Number format. Panics if the rows are stored in blocks.
    pub fn element(&self) -> Element {
        match self.format {
            WeightFormat::Numbers(element) => element,
            WeightFormat::Blocks(format) => panic!("experts in blocks of {format:?}"),
        }
    }

    fn check(&self, [experts, rows, columns]: [usize; 3]) {
        let bytes = self.format.bytes_of(experts * rows * columns);
        assert_eq!(self.data.len(), bytes, "bytes of experts");
        assert!(
            self.arrangement == Arrangement::Rows || rows.is_multiple_of(PANEL_ROWS),
            "no panel has rows of two experts"
        );
        let scaled = if self.are_fp8() { experts * rows } else { 0 };
        assert_eq!(self.scales.len(), scaled, "scales of experts");
        assert!(
            self.biases.is_empty() || self.biases.len() == experts * rows,
            "biases of experts"
        );
    }

    /// The matrix `[rows, columns]` of one expert.
    pub fn view(&self, expert: usize, [rows, columns]: [usize; 2]) -> WeightView<'_> {
        let len = self.format.bytes_of(rows * columns);
        let bytes = &self.data.as_slice()[expert * len..][..len];
        let band = Band {
            rows,
            format: self.format,
            arrangement: self.arrangement,
        };
        WeightView::stacked(Bands::of(band), bytes, columns)
    }

    /// Scales of one expert's rows.
    pub fn scales_of(&self, expert: usize, rows: usize) -> Option<&[f32]> {
        self.scales.get(expert * rows..(expert + 1) * rows)
    }

    /// Biases of one expert's rows.
    pub fn biases_of(&self, expert: usize, rows: usize) -> Option<&[f32]> {
        self.biases.get(expert * rows..(expert + 1) * rows)
    }

    fn bytes(&self) -> usize {
        self.data.len() + (self.scales.len() + self.biases.len()) * 4
    }
}

impl CpuExperts {
    /// See [`CpuWeights::arranged`]; only those in blocks are.
    pub fn arranged(mut self) -> Self {
        self.gate_up = self.gate_up.arranged([2 * self.width, self.hidden]);
        self.down = self.down.arranged([self.hidden, self.width]);
        self
    }

    /// Panics unless all sizes agree.
    pub fn check(&self) {
        let (experts, hidden, width) = (self.num_experts, self.hidden, self.width);
        self.gate_up.check([experts, 2 * width, hidden]);
        self.down.check([experts, hidden, width]);
        let both = [&self.gate_up, &self.down].map(ExpertMatrices::are_fp8);
        assert_eq!(both[0], both[1], "FP8 experts");
    }

    fn bytes(&self) -> usize {
        self.gate_up.bytes() + self.down.bytes()
    }

    /// Whether activations are quantised to E4M3 before products.
    pub fn quantises(&self) -> bool {
        self.gate_up.are_fp8()
    }
}

/// All weights of a model, indexed by the ids that the architecture uses.
#[derive(Debug, Default)]
pub struct CpuWeights {
    vectors: Vec<Vec<f32>>,
    matrices: Vec<Arc<CpuMatrix>>,
    experts: Vec<CpuExperts>,
}

impl CpuWeights {
    /// No weights yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same weights, arranged for the processor's products where they are faster for it. Those
    /// with weights in blocks of codes then quantise activations to 8 bits. `progress` is told the
    /// bytes done so far.
    pub fn arranged(self, progress: &dyn Fn(u64)) -> Self {
        let mut done = 0;
        let mut advance = |bytes: usize| {
            done += bytes as u64;
            progress(done);
        };
        let matrices = self.matrices.into_iter().map(|matrix| {
            // What others compute with as well stays as they have it.
            let arranged = match Arc::try_unwrap(matrix) {
                Ok(matrix) => Arc::new(matrix.arranged()),
                Err(shared) => shared,
            };
            advance(arranged.data.len());
            arranged
        });
        let matrices = matrices.collect();
        let experts = self.experts.into_iter().map(|experts| {
            let arranged = experts.arranged();
            advance(arranged.bytes());
            arranged
        });
        Self {
            vectors: self.vectors,
            matrices,
            experts: experts.collect(),
        }
    }

    /// Adds a vector; ids count up from 0.
    pub fn push_vector(&mut self, vector: Vec<f32>) -> VectorId {
        self.vectors.push(vector);
        VectorId(self.vectors.len() as u32 - 1)
    }

    /// Adds a matrix; ids count up from 0.
    pub fn push_matrix(&mut self, matrix: impl Into<Arc<CpuMatrix>>) -> MatrixId {
        self.matrices.push(matrix.into());
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
    pub fn matrices(&self) -> &[Arc<CpuMatrix>] {
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
        let experts: usize = self.experts.iter().map(CpuExperts::bytes).sum();
        vectors + matrices + experts
    }
}
