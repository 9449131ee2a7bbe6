//! The cases of attention on a device.

use std::ops::Range;
use std::sync::Arc;

use backstop_card::layout::{PanelLayout, TiledMatrix};
use backstop_card::ops::attention::{
    Attention, AttentionLimits, AttentionPlan, AttentionWorkspace,
};
use backstop_card::ops::kv_write::{PagedCache, device_index};
use backstop_card::synthetic::{SyntheticMatrix, SyntheticTensor};
use backstop_card::{Device, DeviceBuffer, DeviceError, DevicePointer, Stream};
use backstop_kernels::Element;
use rayon::prelude::{IndexedParallelIterator, ParallelIterator, ParallelSlice, ParallelSliceMut};

use crate::PoisonedBuffer;
use crate::catalog::{Case, DeviceResult, DeviceRun, DeviceWork, Tolerance};
use crate::ops::attention::{AttentionCase, Paged, PagedShape};
use crate::ops::kv_write::bf16_rows;

/// How many bytes of a cache the device makes as one row of a matrix.
const ROW_BYTES: usize = 8192;

/// Some rows of a case, set up on a device.
struct Setup {
    attention: Attention,
    layout: PanelLayout,
    rows: usize,
    output: PoisonedBuffer,
    _buffers: Vec<DeviceBuffer>,
}

/// The cache of a case as the device has it: keys not transposed.
fn cache_bytes(paged: &Paged) -> Vec<u8> {
    let layout = paged.layout();
    let size = layout.element.bytes();
    let from = paged.cache_bytes();
    let mut out = vec![0; from.len()];
    let block_bytes = layout.keys_start(1, 0);
    let blocks = out.par_chunks_exact_mut(block_bytes);
    blocks
        .zip(from.par_chunks_exact(block_bytes))
        .for_each(|(out, from)| {
            for kv_head in 0..layout.kv_heads {
                let memory = &from[layout.keys_start(0, kv_head)..];
                for offset in 0..layout.block_size {
                    for d in 0..layout.head_dim {
                        let sides = [layout.key_index(offset, d), layout.value_index(offset, d)];
                        for (index, values) in sides.into_iter().zip([false, true]) {
                            let to = device_index(layout, 0, kv_head, values, offset) + d;
                            out[to * size..][..size]
                                .copy_from_slice(&memory[index * size..][..size]);
                        }
                    }
                }
            }
        });
    out
}

/// The queries of `qkv`, and these as they are when rounded to BF16.
fn queries(paged: &Paged, qkv: &[f32]) -> (Vec<u16>, Vec<f32>) {
    let shape = paged.shape;
    let (bits, rounded) = bf16_rows(qkv);
    let columns = ((shape.heads + 2 * shape.kv_heads) * shape.head_dim) as usize;
    let heads = (shape.heads * shape.head_dim) as usize;
    let rows = bits.chunks(columns).flat_map(|row| &row[..heads]);
    (rows.copied().collect(), rounded)
}

impl Setup {
    fn new(
        device: &Arc<dyn Device>,
        paged: &Paged,
        rows: Range<usize>,
        choose: impl Fn(AttentionLimits) -> AttentionLimits,
    ) -> Result<Self, DeviceError> {
        let cache = DeviceBuffer::from_slice(device, &cache_bytes(paged))?;
        Self::with_cache(device, paged, cache, rows, choose)
    }

    /// The same with a cache that lies on the device already.
    fn with_cache(
        device: &Arc<dyn Device>,
        paged: &Paged,
        memory: DeviceBuffer,
        rows: Range<usize>,
        choose: impl Fn(AttentionLimits) -> AttentionLimits,
    ) -> Result<Self, DeviceError> {
        let (shape, cache) = (paged.shape, paged.layout());
        let places = paged.places();
        let sequences = paged.batch_sequences(rows.clone());
        let positions = places.table_stride * cache.block_size;
        let limits = choose(AttentionLimits::new(
            shape,
            [rows.len(), sequences.len(), positions],
            device.facts().multiprocessors,
        ));
        let mut plan = AttentionPlan::new(limits);
        plan.fill(paged.span, &sequences);
        let (queries, _) = queries(paged, &paged.batch(rows.clone()).qkv);
        let columns = (shape.heads * shape.head_dim) as usize;
        let layout = PanelLayout::for_rows(rows.len(), columns, Element::BF16);
        let output = PoisonedBuffer::new(device, layout.bytes())?;
        let buffers = vec![
            DeviceBuffer::from_slice(device, &queries)?,
            memory,
            DeviceBuffer::from_slice(device, &places.tables)?,
            DeviceBuffer::from_slice(device, plan.words())?,
            DeviceBuffer::filled(device, 0xff, limits.partial_values_bytes())?,
            DeviceBuffer::filled(device, 0xff, limits.partial_sums_bytes())?,
            DeviceBuffer::filled(device, 0xff, limits.totals_bytes())?,
        ];
        let pointer = |index: usize| buffers[index].pointer();
        let attention = Attention {
            queries: pointer(0),
            cache: PagedCache {
                memory: pointer(1),
                element: cache.element,
                block_size: cache.block_size,
                tables: pointer(2),
                table_stride: places.table_stride,
            },
            span: paged.span,
            shape,
            output: output.pointer(),
            capacity: layout.capacity,
            plan: pointer(3),
            kinds: plan.kinds(),
            limits,
            workspace: AttentionWorkspace {
                partial_values: pointer(4),
                partial_sums: pointer(5),
                totals: pointer(6),
            },
        };
        Ok(Self {
            attention,
            layout,
            rows: rows.len(),
            output,
            _buffers: buffers,
        })
    }

    fn launch(&self, device: &dyn Device) -> Result<(), DeviceError> {
        // SAFETY: everything was set up with the sizes of the case.
        unsafe { self.attention.launch(device, Stream::Main) }
    }

    /// The output, row after row.
    fn read(&self) -> Result<Vec<f32>, DeviceError> {
        let bytes: Vec<u8> = self.output.read()?;
        // What fills the last panel must be zero, as matrix products read it.
        let padded = PanelLayout {
            columns: self.layout.panels() * 64,
            ..self.layout
        };
        for row in padded.unpack(&bytes, self.rows).chunks(padded.columns) {
            if row[self.layout.columns..].iter().any(|&value| value != 0.0) {
                return Err(DeviceError {
                    attempt: "reading an output".into(),
                    reason: "its last panel is not filled with zeroes".into(),
                    fatal: false,
                });
            }
        }
        Ok(self.layout.unpack(&bytes, self.rows))
    }
}

pub(in super::super) fn device<'a>(
    case: &'a AttentionCase,
    device: &'a Arc<dyn Device>,
) -> Option<DeviceResult<'a>> {
    let layout = case.0.layout();
    let supported = case.0.sinks.is_none()
        && Attention::supports(case.0.shape, layout.element, layout.block_size);
    supported.then(|| set_up(case, device))
}

/// Attention of this shape, with keys and values that the device makes.
pub(in super::super) fn made_on_device(
    shape: &PagedShape,
    device: &Arc<dyn Device>,
) -> DeviceResult<'static, DeviceWork<'static>> {
    let case = AttentionCase(Paged::without_cache(shape));
    let paged = &case.0;
    // Numbers of no order: any rows of whole tiles will do.
    let element = paged.layout().element;
    let columns = ROW_BYTES / element.bytes();
    let numbers = TiledMatrix::new(paged.cache_len().div_ceil(ROW_BYTES), columns, element);
    let cache = DeviceBuffer::new(device, numbers.bytes())?;
    let made = SyntheticMatrix {
        tensor: SyntheticTensor::new(1, 0),
        matrix: numbers,
        matrices: 1,
        deviation: 1.0,
    };
    // SAFETY: the memory has the matrix's bytes.
    unsafe {
        made.launch(
            &**device,
            Stream::Main,
            cache.pointer(),
            DevicePointer::NULL,
        )?
    };
    let rows = case.rows();
    let setup = Setup::with_cache(device, paged, cache, 0..rows, |limits| limits)?;
    let device = Arc::clone(device);
    Ok(DeviceWork {
        launch: Box::new(move || setup.launch(&*device)),
        rows,
        cost: case.cost(),
    })
}

fn set_up<'a>(case: &'a AttentionCase, device: &'a Arc<dyn Device>) -> DeviceResult<'a> {
    let paged = &case.0;
    let rows = 0..case.rows();
    let setup = Arc::new(Setup::new(device, paged, rows.clone(), |limits| limits)?);
    Ok(DeviceRun {
        launch: Box::new({
            let setup = Arc::clone(&setup);
            move || setup.launch(device.as_ref())
        }),
        read: Box::new(move || setup.read()),
        expected: Box::new(move || {
            let (_, rounded) = queries(paged, &paged.batch(rows.clone()).qkv);
            paged.attend_with(&rounded, rows.clone(), super::reference)
        }),
        // Weights and results are rounded to BF16.
        tolerance: Tolerance::BF16,
    })
}

#[cfg(test)]
mod tests {
    use backstop_types::AttentionSpan;

    use super::*;
    use crate::host::HostDevice;
    use backstop_card::ops::attention::PARTITION;

    /// Bits of the output of all rows, computed in batches of consecutive rows that end at `ends`.
    fn in_batches(
        device: &Arc<dyn Device>,
        paged: &Paged,
        ends: impl IntoIterator<Item = usize>,
        choose: fn(AttentionLimits) -> AttentionLimits,
    ) -> Vec<u32> {
        let mut out = Vec::new();
        let mut first = 0;
        for end in ends {
            let setup = Setup::new(device, paged, first..end, choose).unwrap();
            setup.launch(device.as_ref()).unwrap();
            out.extend(setup.read().unwrap().into_iter().map(f32::to_bits));
            first = end;
        }
        assert_eq!(first, paged.rows());
        out
    }

    fn shape(
        heads: [u32; 3],
        element: Element,
        visible_keys: Option<u32>,
        sequences: &[(usize, usize)],
    ) -> PagedShape {
        PagedShape {
            heads,
            sinks: false,
            block_size: 16,
            element,
            span: visible_keys.map_or(AttentionSpan::Full, |visible_keys| AttentionSpan::Sliding {
                visible_keys,
            }),
            sequences: sequences.to_vec(),
        }
    }

    #[test]
    fn a_row_alone_is_the_row_among_many_to_the_last_bit() {
        let device = HostDevice::for_tests().unwrap();
        let shapes = [
            shape(
                [8, 1, 128],
                Element::BF16,
                None,
                &[(1012, 20), (2, 1), (510, 4)],
            ),
            shape(
                [4, 1, 64],
                Element::F8E4M3,
                Some(530),
                &[(1010, 36), (511, 2)],
            ),
            shape([2, 2, 32], Element::BF16, Some(40), &[(490, 36), (0, 3)]),
            shape([3, 1, 32], Element::BF16, None, &[(0, 50), (1500, 5)]),
        ];
        for shape in shapes {
            let mut paged = Paged::new(&shape);
            paged.cancel(PARTITION);
            let rows = paged.rows();
            let together = in_batches(&device, &paged, [rows], |limits| limits);
            for choose in [|limits: AttentionLimits| limits, AttentionLimits::undivided] {
                for step in [1, 7, 33, rows] {
                    let ends = (step..rows).step_by(step).chain([rows]);
                    let actual = in_batches(&device, &paged, ends, choose);
                    let differs = actual.iter().zip(&together).position(|(a, b)| a != b);
                    assert_eq!(differs, None, "{}, {step} rows at a time", shape.label());
                }
            }
        }
    }

    #[test]
    fn the_block_size_does_not_change_a_bit() {
        let device = HostDevice::for_tests().unwrap();
        let mut shape = shape([4, 2, 32], Element::BF16, Some(300), &[(500, 40), (700, 1)]);
        let run = |shape: &PagedShape| {
            let paged = Paged::new(shape);
            in_batches(&device, &paged, [paged.rows()], |limits| limits)
        };
        let expected = run(&shape);
        for block_size in [32, 48, 64, 1024] {
            shape.block_size = block_size;
            assert!(run(&shape) == expected, "blocks of {block_size}");
        }
    }
}
