//! What the operations' device cases have in common: inputs, a poisoned arena for outputs, and
//! reading what came of it.

use std::sync::{Arc, Mutex, PoisonError};

use backstop_card::activation::{Panels, Rows};
use backstop_card::arena::Arena;
use backstop_card::buffer::{DeviceBuffer, Plain};
use backstop_card::device::{Device, DeviceError, DevicePointer, Stream};
use backstop_card::layout::TiledMatrix;
use backstop_card::ops::add_scaled::AddScaled;
use backstop_card::pack::{Pack, RowSource};
use backstop_card::product::ProductWeights;
use backstop_card::synthetic::{SyntheticMatrix, SyntheticTensor, SyntheticVector};
use backstop_kernels::{Element, narrow_bf16, widen_bf16};

use crate::PoisonedBuffer;
use crate::catalog::{Cost, DeviceRun, DeviceWork, Tolerance};

/// Memory of one case.
pub(crate) struct Bench {
    /// The device.
    pub(crate) device: Arc<dyn Device>,
    /// Memory for outputs and what lies between, full of NaN before the first run.
    pub(crate) arena: Arena,
    memory: DeviceBuffer,
    inputs: Vec<DeviceBuffer>,
}

impl Bench {
    /// A bench with `arena_bytes` bytes for everything that [`Arena::take`] is asked for.
    pub(crate) fn new(device: &Arc<dyn Device>, arena_bytes: usize) -> Result<Self, DeviceError> {
        let memory = DeviceBuffer::filled(device, 0xff, arena_bytes)?;
        Ok(Self {
            device: Arc::clone(device),
            arena: Arena::guarded(memory.pointer(), arena_bytes),
            memory,
            inputs: Vec::new(),
        })
    }

    /// Copies an input, which lives as long as the bench.
    pub(crate) fn upload<T: Plain>(&mut self, values: &[T]) -> Result<DevicePointer, DeviceError> {
        let buffer = DeviceBuffer::from_slice(&self.device, values)?;
        let pointer = buffer.pointer();
        self.inputs.push(buffer);
        Ok(pointer)
    }

    /// Weights that the device makes: `matrices` of them, one after the other.
    pub(crate) fn make_weights(
        &mut self,
        matrix: TiledMatrix,
        matrices: usize,
    ) -> Result<ProductWeights, DeviceError> {
        let [values, factors] = [0, 1].map(|tensor| self.next_tensor(tensor));
        let made = SyntheticMatrix::weights(values, matrix, matrices);
        let data = self.reserve(matrices * matrix.bytes())?;
        let scaled = matrix.element == Element::F8E4M3;
        let scales = match scaled {
            true => self.reserve(matrices * matrix.padded_rows() * 4)?,
            false => DevicePointer::NULL,
        };
        let device = &*self.device;
        // SAFETY: both memories have the sizes of all matrices.
        unsafe {
            made.launch(device, Stream::Main, data, DevicePointer::NULL)?;
            if scaled {
                let scale = made.scales(factors);
                scale.launch_for_rows(device, Stream::Main, scales, matrix, matrices)?;
            }
        }
        Ok(ProductWeights {
            data,
            scales,
            bias: DevicePointer::NULL,
            matrix,
        })
    }

    /// Rows of normal numbers that the device makes, as panels.
    pub(crate) fn make_panels(
        &mut self,
        [rows, columns]: [usize; 2],
        formats: &[Element],
    ) -> Result<Panels, DeviceError> {
        let made = SyntheticVector {
            tensor: self.next_tensor(0),
            mean: 0.0,
            deviation: 1.0,
        };
        // A number for each row of a matrix, that is, for each column of a row.
        let row = TiledMatrix::new(columns, 1, Element::BF16);
        assert_eq!(row.padded_rows(), columns, "columns of made-up rows");
        let values = self.reserve(rows * columns * 4)?;
        // SAFETY: the memory has room for all rows.
        unsafe { made.launch_for_rows(&*self.device, Stream::Main, values, row, rows)? };
        self.pack([rows, columns], values, formats)
    }

    /// Other tensors than any before.
    fn next_tensor(&self, kind: u32) -> SyntheticTensor {
        SyntheticTensor::new(u64::from(kind), self.inputs.len() as u32)
    }

    /// Memory for an input, which lives as long as the bench.
    fn reserve(&mut self, bytes: usize) -> Result<DevicePointer, DeviceError> {
        let buffer = DeviceBuffer::new(&self.device, bytes)?;
        let pointer = buffer.pointer();
        self.inputs.push(buffer);
        Ok(pointer)
    }

    /// Rows of f32 as panels.
    pub(crate) fn panels(
        &mut self,
        values: &[f32],
        columns: usize,
        formats: &[Element],
    ) -> Result<Panels, DeviceError> {
        let rows = values.len() / columns;
        let values = self.upload(values)?;
        self.pack([rows, columns], values, formats)
    }

    fn pack(
        &self,
        [rows, columns]: [usize; 2],
        values: DevicePointer,
        formats: &[Element],
    ) -> Result<Panels, DeviceError> {
        let panels = Panels::take(&self.arena, rows, columns, formats);
        let pack = Pack {
            source: RowSource::f32(values),
            token_of_row: DevicePointer::NULL,
            out: panels.output(),
            rows,
            columns,
        };
        // SAFETY: the sizes are those of the memory above.
        unsafe { pack.launch(&*self.device, Stream::Main)? };
        Ok(panels)
    }

    /// Reads rows back as f32; an error if a gap behind one of `rows.memory` was written.
    fn read(&self, rows: &Rows, count: usize) -> Result<Vec<f32>, DeviceError> {
        let out = PoisonedBuffer::new(&self.device, count * rows.columns * 4)?;
        let sum = AddScaled {
            a: rows.source,
            b: RowSource::None,
            scale: 1.0,
            out: out.pointer(),
            rows: count,
            columns: rows.columns,
        };
        // SAFETY: the output has room for all rows, and the source is what a kernel left.
        unsafe { sum.launch(&*self.device, Stream::Main)? };
        let values = out.read()?;
        let arena = self.memory.read::<u8>()?;
        for piece in &rows.memory {
            if arena[piece.guarded_range()]
                .iter()
                .any(|&byte| byte != 0xff)
            {
                return Err(DeviceError {
                    attempt: "checking an output".into(),
                    reason: "a kernel wrote behind its end".into(),
                    fatal: false,
                });
            }
        }
        Ok(values)
    }
}

/// A case whose data the device made.
pub(crate) fn work(
    bench: Bench,
    rows: usize,
    cost: Cost,
    run: impl Fn(&Bench) -> Result<Rows, DeviceError> + 'static,
) -> DeviceWork<'static> {
    let last = Mutex::new(None);
    let launch = move || {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = None;
        bench.arena.recycle();
        *last = Some(run(&bench)?);
        Ok(())
    };
    DeviceWork {
        launch: Box::new(launch),
        rows,
        cost,
    }
}

/// A case whose output is `count` rows. `run` queues the operation on the main stream.
pub(crate) fn rows_run<'a>(
    bench: Bench,
    count: usize,
    run: impl Fn(&Bench) -> Result<Rows, DeviceError> + 'a,
    expected: impl Fn() -> Vec<f32> + 'a,
    tolerance: Tolerance,
) -> DeviceRun<'a> {
    let bench = Arc::new(bench);
    let last: Arc<Mutex<Option<Rows>>> = Arc::default();
    let (launch_bench, launch_last) = (Arc::clone(&bench), Arc::clone(&last));
    let launch = move || {
        let mut last = launch_last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = None;
        launch_bench.arena.recycle();
        *last = Some(run(&launch_bench)?);
        Ok(())
    };
    let read = move || {
        let last = last.lock().unwrap_or_else(PoisonError::into_inner);
        bench.read(last.as_ref().expect("launched before"), count)
    };
    DeviceRun {
        launch: Box::new(launch),
        read: Box::new(read),
        expected: Box::new(expected),
        tolerance,
    }
}

/// Values rounded to BF16, as panels hold them.
pub(crate) fn rounded_bf16(values: &[f32]) -> Vec<f32> {
    let round = |&value: &f32| widen_bf16(narrow_bf16(value));
    values.iter().map(round).collect()
}
