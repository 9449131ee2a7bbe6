//! What the card's kernels compute.

use backstop_kernels::{Abilities, Element, Sizes, WeightAbilities, WeightFormat};

use crate::group;
use crate::ops::{attention, kv_write, norm, router, sample};

/// What they compute, as their files say. What `Abilities::check` refuses never gets to them: where they or the
/// backend assert, it is for bugs.
pub const ABILITIES: Abilities = Abilities {
    device: "the GPU",
    features: &[],
    head_dims: Some(kv_write::HEAD_DIMS),
    query_group: attention::GROUP_MAX as u32,
    sizes: Sizes {
        norm_columns: norm::COLUMNS_MAX,
        experts: group::EXPERTS_MAX,
        experts_per_token: router::TOP_K_MAX,
        vocabulary: sample::VOCABULARY_MAX,
    },
    weights: Some(WeightAbilities {
        matrices: &[WeightFormat::Numbers(Element::BF16)],
        experts: &[
            WeightFormat::Numbers(Element::BF16),
            WeightFormat::Numbers(Element::F8E4M3),
        ],
    }),
    kv_elements: kv_write::ELEMENTS,
    block_step: kv_write::BLOCK_STEP,
    draft_heads: false,
};
