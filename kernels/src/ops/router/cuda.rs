//! The choice of experts on the device. Launch of `kernels/cuda/router.cu`.

use std::sync::Arc;

use super::{RouterCase, Routing};
use crate::backend::{RouterRule, RouterScoring};
use crate::catalog::{DeviceResult, DeviceRun, Tolerance};
use crate::cuda::pack::{RowSource, RowSourceArgs, int};
use crate::cuda::{
    Device, DeviceBuffer, DeviceError, DevicePointer, Grid, KernelArgs, PoisonedBuffer, Stream,
};

/// Largest number of experts.
pub const EXPERTS_MAX: usize = 1024;
/// Largest number of experts of a token.
pub const TOP_K_MAX: usize = 32;

const THREADS: usize = 128;

/// Chooses experts from router logits.
#[derive(Clone, Copy, Debug)]
pub struct Choose {
    /// [`RowSource::Parts`], `[parts][part_rows][num_experts]`.
    pub logits: RowSource,
    /// u32 `[rows]`: `NONE` for rows that only fill up the batch, which get no experts. Null if
    /// there are no such rows.
    pub slots: DevicePointer,
    /// u32 `[rows, top_k]`: the choice, best first, or `NONE`.
    pub experts: DevicePointer,
    /// f32 `[rows, top_k]`.
    pub weights: DevicePointer,
    /// Tokens.
    pub rows: usize,
    /// Experts to choose from.
    pub num_experts: usize,
    /// How logits become weights.
    pub rule: RouterRule,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct RouterArgs {
    logits: RowSourceArgs,
    slots: DevicePointer,
    experts: DevicePointer,
    weights: DevicePointer,
    rows: i32,
    num_experts: i32,
    top_k: i32,
    softmax: i32,
    renormalise: i32,
    unused: i32,
}

const _: () = assert!(size_of::<RouterArgs>() == 96);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for RouterArgs {}

impl Choose {
    /// Queues it.
    ///
    /// # Safety
    ///
    /// All pointers are valid for the sizes given.
    pub unsafe fn launch(&self, device: &dyn Device, stream: Stream) -> Result<(), DeviceError> {
        let top_k = self.rule.top_k as usize;
        assert!(
            (1..=TOP_K_MAX.min(self.num_experts)).contains(&top_k),
            "top_k of router"
        );
        assert!(
            matches!(self.logits, RowSource::Parts { rounded: false, .. }),
            "router logits are f32"
        );
        if self.rows == 0 {
            return Ok(());
        }
        let kernel = match self.num_experts {
            0..=128 => "router_128",
            129..=512 => "router_512",
            513..=EXPERTS_MAX => "router_1024",
            experts => panic!("a router has at most {EXPERTS_MAX} experts, not {experts}"),
        };
        let args = RouterArgs {
            logits: self.logits.args(),
            slots: self.slots,
            experts: self.experts,
            weights: self.weights,
            rows: int(self.rows),
            num_experts: int(self.num_experts),
            top_k: int(top_k),
            softmax: i32::from(self.rule.scoring == RouterScoring::Softmax),
            renormalise: i32::from(self.rule.renormalise),
            unused: 0,
        };
        let grid = Grid::line(self.rows.div_ceil(THREADS / 32), THREADS as u32);
        // SAFETY: the caller's promise; the struct is the kernel's.
        unsafe { device.launch(stream, kernel, grid, &args) }
    }
}

/// The choice alone: its logits, in two parts, come from the reference's product.
pub(super) fn device<'a>(case: &'a RouterCase, device: &'a Arc<dyn Device>) -> DeviceResult<'a> {
    let (num_experts, top_k) = (case.gate.rows(), case.rule.top_k as usize);
    let product = case.logits();
    let parts: Vec<f32> = [0.3, 0.7]
        .iter()
        .flat_map(|factor| product.iter().map(move |logit| logit * factor))
        .collect();
    let rows = product.len() / num_experts;
    let logits = DeviceBuffer::from_slice(device, &parts)?;
    let experts = Arc::new(PoisonedBuffer::new(device, rows * top_k * 4)?);
    let weights = Arc::new(PoisonedBuffer::new(device, rows * top_k * 4)?);
    let choose = Choose {
        logits: RowSource::Parts {
            values: logits.pointer(),
            parts: 2,
            part_rows: rows,
            rounded: false,
        },
        slots: DevicePointer::NULL,
        experts: experts.pointer(),
        weights: weights.pointer(),
        rows,
        num_experts,
        rule: case.rule,
    };
    Ok(DeviceRun {
        launch: Box::new({
            let outputs = (Arc::clone(&experts), Arc::clone(&weights));
            move || {
                let _owned = (&logits, &outputs);
                // SAFETY: the buffers have these sizes and live as long as the closure.
                unsafe { choose.launch(device.as_ref(), Stream::Main) }
            }
        }),
        read: Box::new(move || {
            let routing = Routing {
                top_k,
                experts: experts.read()?,
                weights: weights.read()?,
            };
            Ok(routing.side_by_side())
        }),
        expected: Box::new(move || {
            let (first, second) = parts.split_at(parts.len() / 2);
            let logits: Vec<f32> = first.iter().zip(second).map(|(a, b)| a + b).collect();
            case.choose(&logits).side_by_side()
        }),
        // Experts must agree, and weights are at most 1 where there are several experts.
        tolerance: Tolerance(1e-5 / num_experts as f32),
    })
}
