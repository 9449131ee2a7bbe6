//! Weights on their way from the host to the places that [`CudaWeights`] reserved for them.
//!
//! Two staging buffers take turns: while the device takes one in, the host fills the other. What
//! arrives is in the order of checkpoints; the device brings it into tiles.

use std::ops::Range;
use std::sync::Arc;

use backstop_kernels::backend::{ExpertsId, MatrixId, VectorId};

use super::buffer::DeviceBuffer;
use super::device::{Device, DeviceError, DevicePointer, Event, Stream};
use super::layout::TiledMatrix;
use super::pinned::Pinned;
use super::product::ProductWeights;
use super::weights::CudaWeights;

/// Weights that are stored in tiles; matrices of several experts count as one with all their rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightRows {
    /// A matrix.
    Matrix(MatrixId),
    /// `[experts * 2 * width, hidden]`: the gate rows and then the up rows of one expert after the
    /// other.
    GateUp(ExpertsId),
    /// `[experts * hidden, width]`.
    Down(ExpertsId),
}

/// Weights that are stored as f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightNumbers {
    /// A vector.
    Vector(VectorId),
    /// One scale for each row of [`WeightRows::GateUp`].
    GateUpScales(ExpertsId),
    /// One scale for each row of [`WeightRows::Down`].
    DownScales(ExpertsId),
}

/// Rows in a staging buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagedRows {
    /// Which weights they are.
    pub target: WeightRows,
    /// The first of them.
    pub first_row: usize,
    /// How many.
    pub rows: usize,
    /// Where they begin in the buffer, best at a multiple of 16 bytes.
    pub offset: usize,
}

/// Fills the weights, see the module.
pub struct WeightStaging<'a> {
    weights: &'a CudaWeights,
    device: Arc<dyn Device>,
    buffers: [Buffer; 2],
    next: usize,
}

struct Buffer {
    host: Pinned,
    device: DeviceBuffer,
    /// Passes when the device has taken the contents in.
    taken: Event,
    in_flight: bool,
}

impl<'a> WeightStaging<'a> {
    /// Two buffers of this many bytes. Padding in the weights is zeroed.
    pub fn new(weights: &'a CudaWeights, bytes: usize) -> Result<Self, DeviceError> {
        let device = Arc::clone(weights.device());
        let buffer = || {
            Ok(Buffer {
                host: Pinned::new(&device, bytes)?,
                device: DeviceBuffer::new(&device, bytes)?,
                taken: device.create_event()?,
                in_flight: false,
            })
        };
        let staging = Self {
            weights,
            buffers: [buffer()?, buffer()?],
            device,
            next: 0,
        };
        staging.clear_padding()?;
        Ok(staging)
    }

    fn clear_padding(&self) -> Result<(), DeviceError> {
        for (stack, count) in self.weights.stacks() {
            for index in 0..count {
                let out = stack.data.offset(index * stack.matrix.bytes());
                // SAFETY: the weights have reserved this matrix.
                unsafe { stack.matrix.clear(&*self.device, Stream::Copy, out)? };
            }
        }
        Ok(())
    }

    /// The buffer to fill next; waits until the device has taken in what it held.
    pub fn begin(&mut self) -> Result<&mut [u8], DeviceError> {
        let buffer = &mut self.buffers[self.next];
        if std::mem::take(&mut buffer.in_flight) {
            self.device.wait_host(buffer.taken)?;
        }
        Ok(buffer.host.as_mut_slice())
    }

    /// Sends the rows that were put into the buffer from [`begin`](Self::begin) on their way.
    pub fn send(&mut self, rows: &[StagedRows]) -> Result<(), DeviceError> {
        let end = |rows: &StagedRows| {
            let (stack, _) = self.weights.stack(rows.target);
            rows.offset + rows.rows * row_bytes(&stack.matrix)
        };
        let bytes = rows.iter().map(end).max().unwrap_or(0);
        let staged = self.buffers[self.next].device.pointer();
        self.upload(staged, bytes)?;
        for rows in rows {
            self.repack(*rows, staged.offset(rows.offset))?;
        }
        self.turn()
    }

    /// Sends all numbers of a vector, or of all experts' scales.
    pub fn send_numbers(
        &mut self,
        target: WeightNumbers,
        values: &[f32],
    ) -> Result<(), DeviceError> {
        match target {
            WeightNumbers::Vector(id) => {
                self.send_f32(self.weights.vector(id, values.len()), values)
            }
            WeightNumbers::GateUpScales(id) => self.send_scales(WeightRows::GateUp(id), values),
            WeightNumbers::DownScales(id) => self.send_scales(WeightRows::Down(id), values),
        }
    }

    fn send_scales(&mut self, target: WeightRows, values: &[f32]) -> Result<(), DeviceError> {
        let (stack, count) = self.weights.stack(target);
        assert!(stack.scales != DevicePointer::NULL, "weights with scales");
        assert_eq!(values.len(), count * stack.matrix.rows, "a scale a row");
        let matrices = values.chunks_exact(stack.matrix.rows);
        let packed: Vec<f32> = matrices
            .flat_map(|scales| stack.matrix.pack_scales(scales))
            .collect();
        self.send_f32(stack.scales, &packed)
    }

    fn send_f32(&mut self, to: DevicePointer, values: &[f32]) -> Result<(), DeviceError> {
        let mut to = to;
        let room = self.buffers[0].device.bytes() / 4;
        assert!(room > 0, "a staging buffer holds a number at least");
        for values in values.chunks(room) {
            let places = self.begin()?.chunks_exact_mut(4);
            for (place, value) in places.zip(values) {
                place.copy_from_slice(&value.to_ne_bytes());
            }
            self.upload(to, values.len() * 4)?;
            self.turn()?;
            to = to.offset(values.len() * 4);
        }
        Ok(())
    }

    /// Waits until everything is in its place.
    pub fn finish(self) -> Result<(), DeviceError> {
        self.device.synchronize(Stream::Copy)
    }

    fn upload(&self, to: DevicePointer, bytes: usize) -> Result<(), DeviceError> {
        let buffer = &self.buffers[self.next];
        assert!(bytes <= buffer.device.bytes(), "bytes of a staging buffer");
        // SAFETY: the destination is either as large as this buffer or checked by the caller, and
        // the buffer is left alone until `taken` has passed.
        unsafe {
            self.device
                .upload(Stream::Copy, to, buffer.host.pointer(), bytes)
        }
    }

    /// Goes on with the other buffer.
    fn turn(&mut self) -> Result<(), DeviceError> {
        let buffer = &mut self.buffers[self.next];
        self.device.record(buffer.taken, Stream::Copy)?;
        buffer.in_flight = true;
        self.next = 1 - self.next;
        Ok(())
    }

    /// Rows that need not be of one matrix into tiles.
    fn repack(&self, rows: StagedRows, source: DevicePointer) -> Result<(), DeviceError> {
        let (stack, count) = self.weights.stack(rows.target);
        let matrix = stack.matrix;
        let end = rows.first_row + rows.rows;
        assert!(end <= count * matrix.rows, "rows of {:?}", rows.target);
        let mut row = rows.first_row;
        while row < end {
            let index = row / matrix.rows;
            let within = row % matrix.rows..matrix.rows.min(end - index * matrix.rows);
            let source = source.offset((row - rows.first_row) * row_bytes(&matrix));
            row += within.len();
            self.repack_one(&stack, index, source, within)?;
        }
        Ok(())
    }

    fn repack_one(
        &self,
        stack: &ProductWeights,
        index: usize,
        source: DevicePointer,
        rows: Range<usize>,
    ) -> Result<(), DeviceError> {
        let out = stack.data.offset(index * stack.matrix.bytes());
        let pointers = [source, out];
        // SAFETY: the staging buffer has these rows and the weights this matrix, as checked.
        unsafe {
            stack
                .matrix
                .repack(&*self.device, Stream::Copy, pointers, rows)
        }
    }
}

fn row_bytes(matrix: &TiledMatrix) -> usize {
    matrix.columns * matrix.element.bytes()
}

impl CudaWeights {
    /// Matrices of one kind, and how many.
    pub fn stack(&self, target: WeightRows) -> (ProductWeights, usize) {
        match target {
            WeightRows::Matrix(id) => (self.matrix(id), 1),
            WeightRows::GateUp(id) => {
                let experts = self.layer_experts(id);
                (experts.gate_up, experts.num_experts)
            }
            WeightRows::Down(id) => {
                let experts = self.layer_experts(id);
                (experts.down, experts.num_experts)
            }
        }
    }

    /// Everything in tiles.
    fn stacks(&self) -> impl Iterator<Item = (ProductWeights, usize)> {
        let [_, matrices, experts] = self.counts().map(|count| count as u32);
        let matrices = (0..matrices).map(|id| WeightRows::Matrix(MatrixId(id)));
        let experts = (0..experts).map(ExpertsId);
        let experts = experts.flat_map(|id| [WeightRows::GateUp(id), WeightRows::Down(id)]);
        matrices.chain(experts).map(|target| self.stack(target))
    }

    /// What the device holds of these weights, in the order of checkpoints.
    pub fn read_rows(&self, target: WeightRows) -> Result<Vec<u8>, DeviceError> {
        let (stack, count) = self.stack(target);
        let matrix = stack.matrix;
        let size = matrix.element.bytes();
        let mut out = Vec::with_capacity(count * matrix.source_bytes());
        for index in 0..count {
            let from = stack.data.offset(index * matrix.bytes());
            let tiles: Vec<u8> = self.read(from, matrix.bytes())?;
            let places = (0..matrix.rows * matrix.columns)
                .map(|number| matrix.offset(number / matrix.columns, number % matrix.columns));
            places.for_each(|place| out.extend_from_slice(&tiles[place..place + size]));
        }
        Ok(out)
    }

    /// What the device holds of these numbers, in the order of checkpoints. `len` is the length of
    /// a vector, and not looked at otherwise.
    pub fn read_numbers(&self, target: WeightNumbers, len: usize) -> Result<Vec<f32>, DeviceError> {
        let (rows, count) = match target {
            WeightNumbers::Vector(id) => {
                let bytes = self.read(self.vector(id, len), len * 4)?;
                return Ok(bytes.chunks_exact(4).map(f32_of).collect());
            }
            WeightNumbers::GateUpScales(id) => self.stack(WeightRows::GateUp(id)),
            WeightNumbers::DownScales(id) => self.stack(WeightRows::Down(id)),
        };
        let (matrix, places) = (rows.matrix, rows.matrix.padded_rows());
        let bytes = self.read(rows.scales, count * places * 4)?;
        let numbers: Vec<f32> = bytes.chunks_exact(4).map(f32_of).collect();
        let matrices = numbers.chunks_exact(places);
        let in_order = |scales: &[f32]| -> Vec<f32> {
            let rows = 0..matrix.rows;
            rows.map(|row| scales[matrix.place_of_row(row)]).collect()
        };
        Ok(matrices.flat_map(in_order).collect())
    }

    fn read(&self, from: DevicePointer, bytes: usize) -> Result<Vec<u8>, DeviceError> {
        let mut out = vec![0; bytes];
        // SAFETY: the weights have this many bytes there, and the vector is read after the wait.
        unsafe {
            self.device()
                .download(Stream::Main, out.as_mut_ptr(), from, bytes)?;
        }
        self.device().synchronize(Stream::Main)?;
        Ok(out)
    }
}

fn f32_of(bytes: &[u8]) -> f32 {
    f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
