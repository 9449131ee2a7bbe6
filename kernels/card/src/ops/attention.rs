//! Attention on the device. Launches of `kernels/cuda/attention.cu`.
//!
//! The host plans a step's tasks ([`AttentionPlan`]) and copies the plan to where recorded launches
//! expect it.

mod plan;

use backstop_kernels::Element;
use backstop_kernels::backend::AttentionShape;
use backstop_types::AttentionSpan;

use crate::ops::kv_write::PagedCache;
use crate::pack::int;
use crate::{Device, DeviceError, DevicePointer, Grid, KernelArgs, Stream};
use plan::{FLAT_QUERIES, HEADER_WORDS, TALL_QUERIES};

pub use plan::{AttentionLimits, AttentionPlan, PARTITION};

const THREADS: u32 = 128;
/// Largest number of query heads for each key-value head.
pub const GROUP_MAX: usize = TALL_QUERIES;

/// Memory that attention works with, for one layer after the other.
#[derive(Clone, Copy, Debug)]
pub struct AttentionWorkspace {
    /// [`AttentionLimits::partial_values_bytes`] bytes.
    pub partial_values: DevicePointer,
    /// [`AttentionLimits::partial_sums_bytes`] bytes.
    pub partial_sums: DevicePointer,
    /// [`AttentionLimits::totals_bytes`] bytes.
    pub totals: DevicePointer,
}

/// Attention of a step's queries over the cache.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// BF16 `[rows, heads * head_dim]`.
    pub queries: DevicePointer,
    /// Keys and values, those of the step included.
    pub cache: PagedCache,
    /// Which positions a query sees.
    pub span: AttentionSpan,
    /// Head counts.
    pub shape: AttentionShape,
    /// BF16 panels of `heads * head_dim` columns.
    pub output: DevicePointer,
    /// Rows of each panel.
    pub capacity: usize,
    /// The words of an [`AttentionPlan`].
    pub plan: DevicePointer,
    /// What may occur in plans, see [`AttentionPlan::kinds`].
    pub kinds: [bool; 3],
    /// What plans were made for.
    pub limits: AttentionLimits,
    /// Memory for partial results.
    pub workspace: AttentionWorkspace,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct TaskArgs {
    queries: DevicePointer,
    cache: DevicePointer,
    output: DevicePointer,
    tables: DevicePointer,
    tasks: DevicePointer,
    range: DevicePointer,
    partial_values: DevicePointer,
    partial_sums: DevicePointer,
    totals: DevicePointer,
    heads: u32,
    kv_heads: u32,
    block_size: i32,
    table_stride: i32,
    capacity: i32,
    visible_keys: u32,
    scale: f32,
    unused: u32,
}

const _: () = assert!(size_of::<TaskArgs>() == 9 * 8 + 8 * 4);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for TaskArgs {}

#[repr(C)]
#[derive(Clone, Copy)]
struct MergeArgs {
    merges: DevicePointer,
    range: DevicePointer,
    partial_values: DevicePointer,
    partial_sums: DevicePointer,
    output: DevicePointer,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    capacity: i32,
}

const _: () = assert!(size_of::<MergeArgs>() == 5 * 8 + 4 * 4);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for MergeArgs {}

/// Kernels for tasks with many queries and for such with few.
fn kernels(element: Element, head_dim: u32) -> [&'static str; 2] {
    match (element, head_dim) {
        (Element::BF16, 32) => ["attention_tall_bf16_32", "attention_flat_bf16_32"],
        (Element::BF16, 64) => ["attention_tall_bf16_64", "attention_flat_bf16_64"],
        (Element::BF16, 128) => ["attention_tall_bf16_128", "attention_flat_bf16_128"],
        (Element::F8E4M3, 32) => ["attention_tall_e4m3_32", "attention_flat_e4m3_32"],
        (Element::F8E4M3, 64) => ["attention_tall_e4m3_64", "attention_flat_e4m3_64"],
        (Element::F8E4M3, 128) => ["attention_tall_e4m3_128", "attention_flat_e4m3_128"],
        _ => panic!("no attention for heads of {head_dim} elements in {element:?}"),
    }
}

/// Bytes of shared memory of both, as their `SHARED_BYTES`.
fn shared_bytes(head_dim: usize) -> [usize; 2] {
    // Half tiles on their way, and queries.
    let common = |queries: usize| 4 * 64 * head_dim * 2 + queries * head_dim * 2;
    [
        common(TALL_QUERIES) + TALL_QUERIES * 8,
        common(FLAT_QUERIES) + FLAT_QUERIES * (PARTITION * 2 + 36 * 4),
    ]
}

impl Attention {
    /// Whether there are kernels for it.
    pub fn supports(shape: AttentionShape, element: Element, block_size: usize) -> bool {
        let group = (shape.heads / shape.kv_heads) as usize;
        let cache = PagedCache::supports(element, block_size, shape.head_dim as usize);
        cache && group <= GROUP_MAX && shape.scale > 0.0
    }

    /// Queues it.
    ///
    /// # Safety
    ///
    /// All pointers are valid for the sizes given. When the work runs, the plan is that of a step
    /// within the limits, with the kinds named, and the cache holds the keys and values of all
    /// positions that its rows see.
    pub unsafe fn launch(&self, device: &dyn Device, stream: Stream) -> Result<(), DeviceError> {
        self.cache.check(self.shape.head_dim);
        assert!(
            Self::supports(self.shape, self.cache.element, self.cache.block_size),
            "no attention for {:?}",
            self.shape
        );
        let args = self.task_args();
        let names = kernels(self.cache.element, self.shape.head_dim);
        let shared = shared_bytes(self.shape.head_dim as usize);
        for kind in 0..2 {
            if self.kinds[kind] {
                let grid = Grid::line(self.limits.blocks, THREADS).shared(shared[kind]);
                let range = self.plan.offset(8 * kind);
                // SAFETY: the caller's promise; the struct is the kernel's.
                unsafe {
                    device.launch(stream, names[kind], grid, &TaskArgs { range, ..args })?;
                }
            }
        }
        if self.kinds[2] {
            let args = MergeArgs {
                merges: args.tasks,
                range: self.plan.offset(16),
                partial_values: args.partial_values,
                partial_sums: args.partial_sums,
                output: args.output,
                heads: args.heads,
                kv_heads: args.kv_heads,
                head_dim: self.shape.head_dim,
                capacity: args.capacity,
            };
            let grid = Grid::line(2 * self.limits.blocks, THREADS);
            // SAFETY: the caller's promise; the struct is the kernel's.
            unsafe { device.launch(stream, "attention_merge", grid, &args)? };
        }
        Ok(())
    }

    fn task_args(&self) -> TaskArgs {
        TaskArgs {
            queries: self.queries,
            cache: self.cache.memory,
            output: self.output,
            tables: self.cache.tables,
            tasks: self.plan.offset(HEADER_WORDS * 4),
            range: DevicePointer::NULL,
            partial_values: self.workspace.partial_values,
            partial_sums: self.workspace.partial_sums,
            totals: self.workspace.totals,
            heads: self.shape.heads,
            kv_heads: self.shape.kv_heads,
            block_size: int(self.cache.block_size),
            table_stride: int(self.cache.table_stride),
            capacity: int(self.capacity),
            visible_keys: match self.span {
                AttentionSpan::Full => u32::MAX,
                AttentionSpan::Sliding { visible_keys } => visible_keys,
            },
            scale: self.shape.scale * std::f32::consts::LOG2_E,
            unused: 0,
        }
    }
}
