//! Attention's part of the backend: plans, tables and work memory of each attention group.

use std::sync::Arc;

use backstop_kernels::BatchSequence;
use backstop_kernels::backend::{AttentionShape, KvLayer, QueryKeyTransform, Rope};

use super::CudaBackend;
use crate::activation::Panels;
use crate::arena::Piece;
use crate::buffer::DeviceBuffer;
use crate::device::{Device, DeviceError, DevicePointer, Stream};
use crate::kv_cache::CudaKvCache;
use crate::ops::attention::{Attention, AttentionLimits, AttentionPlan, AttentionWorkspace};
use crate::ops::kv_write::{HeadNorm, PagedCache, RopeCache};
use crate::ops::rope::rotations;
use crate::pack::RowSource;
use crate::pinned::Pinned;

/// What a model's layers ask of attention, as a rehearsal saw it.
#[derive(Clone, Debug, Default)]
pub struct AttentionNeeds {
    /// Head counts of the layers of each group.
    pub shapes: Vec<Option<AttentionShape>>,
    /// Rotary embeddings.
    pub ropes: Vec<Rope>,
}

impl AttentionNeeds {
    fn note(&mut self, shape: AttentionShape, layer: KvLayer) {
        let group = layer.group as usize;
        self.shapes.resize((group + 1).max(self.shapes.len()), None);
        let known = self.shapes[group].get_or_insert(shape);
        assert_eq!(*known, shape, "layers of a group have one shape");
    }

    fn note_rope(&mut self, rope: Rope, head_dim: u32) {
        assert_eq!(
            rope.dimensions, head_dim,
            "elements of a head that are rotated"
        );
        if !self.ropes.contains(&rope) {
            self.ropes.push(rope);
        }
    }
}

/// Rows of logits of a step if few sequences may run: for prompts that are rated, and for guesses.
const MIN_LOGIT_ROWS: usize = 64;

/// The largest steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// Rows.
    pub rows: usize,
    /// Sequences, and slots.
    pub sequences: usize,
    /// Positions of a sequence.
    pub positions: usize,
}

impl StepLimits {
    /// Rows whose logits are wanted.
    pub fn logit_rows(&self) -> usize {
        self.sequences.max(MIN_LOGIT_ROWS)
    }
}

/// Memory that attention works with.
pub struct AttentionMemory {
    /// Only a rehearsal, which notes what it would need.
    groups: Option<Vec<Group>>,
    needs: AttentionNeeds,
    rotations: Vec<(Rope, DeviceBuffer)>,
    work: Vec<DeviceBuffer>,
}

struct Group {
    shape: AttentionShape,
    limits: AttentionLimits,
    plan: AttentionPlan,
    /// Where the present plan lies.
    words: DeviceBuffer,
    tables: DeviceBuffer,
    /// Entries of a slot's table.
    table_stride: usize,
    kinds: [bool; 3],
}

impl AttentionMemory {
    /// For a rehearsal: launches nothing and notes what would be needed.
    pub fn rehearsal() -> Self {
        Self {
            groups: None,
            needs: AttentionNeeds::default(),
            rotations: Vec::new(),
            work: Vec::new(),
        }
    }

    /// Memory for what a rehearsal saw.
    pub fn new(
        device: &Arc<dyn Device>,
        needs: &AttentionNeeds,
        limits: StepLimits,
        block_size: u32,
    ) -> Result<Self, DeviceError> {
        let shapes: Vec<AttentionShape> = needs.shapes.iter().copied().flatten().collect();
        assert_eq!(shapes.len(), needs.shapes.len(), "every group has layers");
        let table_stride = limits.positions.div_ceil(block_size as usize);
        let group = |shape: &AttentionShape| {
            let counts = [limits.rows, limits.sequences, limits.positions];
            let plans = AttentionLimits::new(*shape, counts, device.facts().multiprocessors);
            Ok(Group {
                shape: *shape,
                limits: plans,
                plan: AttentionPlan::new(plans),
                words: DeviceBuffer::filled(device, 0, plans.plan_bytes())?,
                tables: DeviceBuffer::filled(device, 0, limits.sequences * table_stride * 4)?,
                table_stride,
                kinds: [true; 3],
            })
        };
        let groups: Vec<Group> = shapes
            .iter()
            .map(group)
            .collect::<Result<_, DeviceError>>()?;
        let largest = |bytes: fn(&AttentionLimits) -> usize| {
            groups
                .iter()
                .map(|group| bytes(&group.limits))
                .max()
                .unwrap_or(0)
        };
        let sizes = [
            largest(AttentionLimits::partial_values_bytes),
            largest(AttentionLimits::partial_sums_bytes),
            largest(AttentionLimits::totals_bytes),
        ];
        let work = sizes.map(|bytes| DeviceBuffer::new(device, bytes));
        let rotations = needs.ropes.iter().map(|rope| {
            let table = rotations(device, rope, limits.positions)?;
            Ok((*rope, table))
        });
        Ok(Self {
            needs: needs.clone(),
            rotations: rotations.collect::<Result<_, DeviceError>>()?,
            work: work.into_iter().collect::<Result<_, _>>()?,
            groups: Some(groups),
        })
    }

    /// What the layers have asked for so far.
    pub fn needs(&self) -> &AttentionNeeds {
        &self.needs
    }

    /// Each group's block tables, and the entries of a slot in them.
    pub(crate) fn tables(&self) -> Vec<(DevicePointer, u32)> {
        let groups = self.groups.iter().flatten();
        groups
            .map(|group| (group.tables.pointer(), group.table_stride as u32))
            .collect()
    }

    /// Bytes of all groups' plans at most.
    pub(crate) fn plan_bytes(&self) -> usize {
        let groups = self.groups.iter().flatten();
        groups.map(|group| group.limits.plan_bytes()).sum()
    }

    /// Plans a step and queues the upload of the plans.
    pub(crate) fn plan(
        &mut self,
        device: &dyn Device,
        kv: &CudaKvCache,
        sequences: &[BatchSequence],
        staging: &mut Pinned,
    ) -> Result<(), DeviceError> {
        let mut first = 0;
        for (index, group) in self.groups.iter_mut().flatten().enumerate() {
            group.plan.fill(kv.layout(index).span, sequences);
            group.kinds = group.plan.kinds();
            let words = group.plan.words();
            let bytes = size_of_val(words);
            let room = &mut staging.as_mut_slice()[first..first + bytes];
            for (word, room) in words.iter().zip(room.chunks_exact_mut(4)) {
                room.copy_from_slice(&word.to_ne_bytes());
            }
            // SAFETY: a plan is never larger than its memory, and the staging memory stays as it
            // is until the step is done.
            unsafe {
                let from = staging.pointer().add(first);
                device.upload(Stream::Main, group.words.pointer(), from, bytes)?;
            }
            first += bytes;
        }
        Ok(())
    }

    /// Lets launches serve any step whose sequences have one row each, for recording them.
    pub(crate) fn expect_decode(&mut self, kv: &CudaKvCache) {
        let one = BatchSequence {
            rows: 0..1,
            first_position: 0,
            slot: 0,
        };
        for (index, group) in self.groups.iter_mut().flatten().enumerate() {
            let sequences = std::slice::from_ref(&one);
            group.plan.fill(kv.layout(index).span, sequences);
            let [tall, flat, _] = group.plan.kinds();
            group.kinds = [tall, flat, true];
        }
    }

    fn work(&self) -> AttentionWorkspace {
        AttentionWorkspace {
            partial_values: self.work[0].pointer(),
            partial_sums: self.work[1].pointer(),
            totals: self.work[2].pointer(),
        }
    }
}

impl CudaBackend {
    fn cache(&self, group: &Group, layer: KvLayer) -> PagedCache {
        PagedCache {
            memory: self.kv.layer(layer),
            tables: group.tables.pointer(),
            table_stride: group.table_stride,
            element: self.kv.element(),
            block_size: self.kv.block_size() as usize,
        }
    }

    /// Rotates and caches; what is left are the queries, BF16 `[rows, heads * head_dim]`.
    pub(super) fn queue_rope_and_cache(
        &mut self,
        qkv: RowSource,
        shape: AttentionShape,
        transform: QueryKeyTransform,
        layer: KvLayer,
    ) -> Result<Piece, DeviceError> {
        let head_dim = shape.head_dim as usize;
        let queries = self
            .arena
            .take(self.rows() * shape.heads as usize * head_dim * 2);
        let Some(groups) = &self.attention.groups else {
            self.attention.needs.note(shape, layer);
            if let Some(rope) = transform.rope {
                self.attention.needs.note_rope(rope, shape.head_dim);
            }
            return Ok(queries);
        };
        let rope = transform.rope.map(|rope| {
            let tables = &mut self.attention.rotations.iter();
            let table = tables.find(|entry| entry.0 == rope);
            let (_, table) = table.expect("the rehearsal saw every embedding");
            (table.pointer(), rope.pairing)
        });
        let norm = transform.norm.map(|norm| HeadNorm {
            query_gain: self.weights.vector(norm.query, head_dim),
            key_gain: self.weights.vector(norm.key, head_dim),
            epsilon: norm.epsilon,
        });
        let launch = RopeCache {
            qkv,
            shape,
            rope,
            norm,
            positions: self.shape.inputs.positions,
            slots: self.shape.inputs.slots,
            cache: self.cache(&groups[layer.group as usize], layer),
            queries: queries.pointer(),
            rows: self.rows(),
        };
        // SAFETY: the step's inputs have its rows, and its tables name blocks of the cache.
        unsafe { launch.launch(&*self.device, Stream::Main)? };
        Ok(queries)
    }

    /// Attention of the queries that `queue_rope_and_cache` left.
    pub(super) fn queue_attention(
        &mut self,
        queries: DevicePointer,
        out: &Panels,
        shape: AttentionShape,
        layer: KvLayer,
    ) -> Result<(), DeviceError> {
        let Some(groups) = &self.attention.groups else {
            return Ok(());
        };
        let group = &groups[layer.group as usize];
        assert_eq!(group.shape, shape, "layers of a group have one shape");
        let launch = Attention {
            queries,
            cache: self.cache(group, layer),
            span: self.kv.layout(layer.group as usize).span,
            shape,
            output: out.output().bf16,
            capacity: out.capacity,
            plan: group.words.pointer(),
            kinds: group.kinds,
            limits: group.limits,
            workspace: self.attention.work(),
        };
        // SAFETY: the plan was made for the step, whose keys and values are in the cache.
        unsafe { launch.launch(&*self.device, Stream::Main) }
    }
}
