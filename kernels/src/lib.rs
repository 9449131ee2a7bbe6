//! Operations on tensors: their arguments and the CPU's implementations. The card's are in `kernels/card`; what proves
//! both is in `kernels/proof`.
//!
//! # For executors
//!
//! 1. Weights: [`CpuWeights::new`], then `push_vector(Vec<f32>) -> VectorId`,
//!    `push_matrix(CpuMatrix) -> MatrixId`, `push_experts(CpuExperts) -> ExpertsId`; bytes arrive
//!    in [`AlignedBytes`], in the [`WeightFormat`] in which they are stored.
//! 2. KV memory: [`CpuKvCache::new`]`(&[KvGroupLayout], block_size, element)`;
//!    [`KvGroupLayout::bytes_per_block`] for sizing.
//! 3. [`CpuBackend::new`]`(Arc<CpuWeights>, CpuKvCache)`.
//! 4. For each step: fill a [`Batch`] ([`Batch::push`] for each sequence),
//!    [`CpuBackend::begin`]`(&batch, &tables)` with `tables[group][slot]: Vec<u32>`, run the
//!    forward pass over [`Backend`], then for each wanted row [`sample`] from
//!    [`CpuBackend::logits_of`]`(index)`.
//!
//! Kernels run in whichever rayon pool the caller installed. Results depend neither on the number
//! of threads nor on what else is in the batch, to the last bit.

mod abilities;
mod aligned;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod backend;
mod batch;
mod cpu;
mod element;
mod features;
mod formats;
mod gemm;
pub mod ops;
mod panels;
pub mod parallel;
pub mod random;
mod residual;
mod scratch;
mod simd;

pub use abilities::{Abilities, Feature, Needs, Refusal, Sizes, WeightAbilities, WeightUse};
pub use aligned::AlignedBytes;
pub use backend::{
    AttentionShape, Backend, DraftBackend, ExpertsId, GatedActivation, KvLayer, LatentShape,
    LatentWeights, MatrixId, Norm, QueryKeyNorm, QueryKeyTransform, Rope, RopePairing, RopeScaling,
    RouterGroups, RouterRule, RouterScoring, RouterWeights, VectorId,
};
pub use batch::{Batch, BatchSequence};
pub use cpu::{
    CpuActivation, CpuBackend, CpuExperts, CpuKvCache, CpuMatrix, CpuRouting, CpuWeights,
    ExpertMatrices, KvGroupLayout, KvShape, KvView,
};
pub use element::{Element, F8_MAX, decode_f8, encode_f8, narrow_bf16, round_f8, widen_bf16};
pub use features::{Features, InstructionSet, features};
pub use formats::{
    BlockFormat, FormatFacts, MXFP4_SCALE_MAX, ScaleFormat, Separate, split_nibbles,
};
pub use gemm::{Bands, CODE_MAX, InputRows, Product, WeightFormat, WeightView};
pub use ops::sample::{SampleArgs, SampleScratch, rate, sample};
pub use panels::{Arithmetic, GROUP_COLUMNS, PANEL_ROWS};
pub use residual::Residual;
