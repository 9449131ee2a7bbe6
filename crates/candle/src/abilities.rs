//! What the portable backend computes.

use backstop_kernels::{Abilities, Element, Feature, Sizes};

use crate::device::CandleDeviceKind;

/// Candle sorts scores in blocks of this many on GPUs.
const EXPERTS_MAX: usize = 1024;

/// What it computes on a device.
pub const fn abilities(kind: CandleDeviceKind) -> Abilities {
    Abilities {
        features: &[
            Feature::LatentAttention,
            Feature::AttentionSinks,
            Feature::PartialRotation,
            Feature::InnerNorms,
            Feature::RouterBias,
            Feature::RouterCorrection,
            Feature::RouterGroups,
            Feature::RouterFactor,
            Feature::ClampedExperts,
            Feature::OddOutputs,
        ],
        sizes: Sizes {
            experts: EXPERTS_MAX,
            ..Abilities::all("").sizes
        },
        kv_elements: &[Element::F32, Element::BF16],
        draft_heads: false,
        ..Abilities::all(kind.name())
    }
}
