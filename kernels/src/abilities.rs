//! What a model needs of whoever computes it, what a backend is able to do, and the one comparison of both.
//!
//! Every backend states its [`Abilities`] as data. So a model that it cannot compute is refused before anything is
//! read or allocated, and whatever a backend asserts after that is a bug.

use std::fmt;

use crate::backend::AttentionShape;
use crate::{Element, WeightFormat};

/// What not every model needs and not every backend has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// `latent_input` and `latent_output`.
    LatentAttention,
    /// `select_keys` and `selected_attention`.
    SparseAttention,
    /// Scores beside those of the keys in `paged_attention`.
    AttentionSinks,
    /// Rotary embeddings of fewer elements than a head has.
    PartialRotation,
    /// Norms of anything but the sum of the layers so far.
    InnerNorms,
    /// Something is added to router logits.
    RouterBias,
    /// Experts are chosen by other scores than they are weighed with.
    RouterCorrection,
    /// Experts are chosen from the best groups.
    RouterGroups,
    /// A factor on the weights of experts.
    RouterFactor,
    /// `GatedActivation::ClampedSwiglu`; the experts of such models have biases.
    ClampedExperts,
    /// Matrices with an odd number of outputs.
    OddOutputs,
}

impl Feature {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::LatentAttention,
        Self::SparseAttention,
        Self::AttentionSinks,
        Self::PartialRotation,
        Self::InnerNorms,
        Self::RouterBias,
        Self::RouterCorrection,
        Self::RouterGroups,
        Self::RouterFactor,
        Self::ClampedExperts,
        Self::OddOutputs,
    ];
}

impl fmt::Display for Feature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::LatentAttention => "latent attention",
            Self::SparseAttention => "sparse attention",
            Self::AttentionSinks => "attention sinks",
            Self::PartialRotation => "rotary embeddings of a part of each head",
            Self::InnerNorms => "norms between products",
            Self::RouterBias => "routers with biases",
            Self::RouterCorrection => "routers with corrected scores",
            Self::RouterGroups => "routers that choose groups of experts first",
            Self::RouterFactor => "routers with a factor on their weights",
            Self::ClampedExperts => "experts with biases and clamped activations",
            Self::OddOutputs => "matrices with an odd number of rows",
        })
    }
}

/// What a model needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    /// Each once, in the order of their declaration.
    pub features: Vec<Feature>,
    /// Heads of attention, each kind once.
    pub attention: Vec<AttentionShape>,
    /// The largest sizes.
    pub sizes: Sizes,
}

/// Sizes of operations: the largest that a model has, or the largest that a backend computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Numbers that are normed together.
    pub norm_columns: usize,
    /// Experts of a layer.
    pub experts: usize,
    /// Experts of a token.
    pub experts_per_token: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
}

/// Formats of weights that a backend computes with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightAbilities {
    /// Of matrices that every token is multiplied with.
    pub matrices: &'static [WeightFormat],
    /// Of experts.
    pub experts: &'static [WeightFormat],
}

/// What a weight is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightUse {
    /// Every token is multiplied with it.
    Matrix,
    /// The tokens of an expert are.
    Experts,
}

/// What a backend is able to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Abilities {
    /// What it computes on, as messages name it.
    pub device: &'static str,
    /// What it has of that which not every model needs.
    pub features: &'static [Feature],
    /// Elements that a head of attention may have; `None` if any number.
    pub head_dims: Option<&'static [u32]>,
    /// Query heads that may share a key-value head.
    pub query_group: u32,
    /// The largest operations.
    pub sizes: Sizes,
    /// Formats of weights that it computes with; `None` if all.
    pub weights: Option<WeightAbilities>,
    /// Number formats of the KV cache.
    pub kv_elements: &'static [Element],
    /// A block of the KV cache has a multiple of so many positions.
    pub block_step: u32,
    /// It is a `DraftBackend`.
    pub draft_heads: bool,
}

impl Abilities {
    /// Those of a backend that computes everything.
    pub const fn all(device: &'static str) -> Self {
        Self {
            device,
            features: Feature::ALL,
            head_dims: None,
            query_group: u32::MAX,
            sizes: Sizes {
                norm_columns: usize::MAX,
                experts: usize::MAX,
                experts_per_token: usize::MAX,
                vocabulary: usize::MAX,
            },
            weights: None,
            kv_elements: &[Element::F32, Element::BF16, Element::F8E4M3],
            block_step: 1,
            draft_heads: true,
        }
    }

    /// Compares them with what a model needs.
    pub fn check(&self, needs: &Needs) -> Result<(), Refusal> {
        let features = needs.features.iter();
        let features = features.filter(|feature| !self.features.contains(feature));
        let mut missing: Vec<String> = features.map(Feature::to_string).collect();
        let attention = needs.attention.iter();
        missing.extend(attention.filter_map(|shape| self.lacks_attention(shape)));
        let (needed, able) = (&needs.sizes, &self.sizes);
        for (what, needed, able) in [
            (
                "norms of {} numbers",
                needed.norm_columns,
                able.norm_columns,
            ),
            ("layers of {} experts", needed.experts, able.experts),
            (
                "{} experts for each token",
                needed.experts_per_token,
                able.experts_per_token,
            ),
            (
                "{} tokens to choose from",
                needed.vocabulary,
                able.vocabulary,
            ),
        ] {
            if needed > able {
                let what = what.replace("{}", &needed.to_string());
                missing.push(format!("{what}, but at most {able}"));
            }
        }
        self.refusal(missing)
    }

    fn lacks_attention(&self, shape: &AttentionShape) -> Option<String> {
        let AttentionShape {
            heads,
            kv_heads,
            head_dim,
            scale,
        } = *shape;
        match self.head_dims {
            Some(able) if !able.contains(&head_dim) => {
                return Some(format!(
                    "attention heads of {head_dim} elements, but {}",
                    listed(able, "or")
                ));
            }
            _ => {}
        }
        if heads / kv_heads > self.query_group {
            return Some(format!(
                "{} query heads for each key-value head, but at most {}",
                heads / kv_heads,
                self.query_group
            ));
        }
        (scale <= 0.0).then(|| format!("attention scores with a factor of {scale}"))
    }

    /// Compares them with how some weights lie in memory. For a refusal, `stored` names a tensor and how it is stored.
    pub fn check_weights(
        &self,
        weight_use: WeightUse,
        format: WeightFormat,
        stored: impl FnOnce() -> String,
    ) -> Result<(), Refusal> {
        let Some(WeightAbilities { matrices, experts }) = self.weights else {
            return Ok(());
        };
        let able = match weight_use {
            WeightUse::Matrix => matrices,
            WeightUse::Experts => experts,
        };
        if able.contains(&format) {
            return Ok(());
        }
        let (matrices, experts) = (listed(matrices, "or"), listed(experts, "or"));
        self.refusal(vec![format!(
            "{}, but for matrices in {matrices} and experts in {experts}",
            stored()
        )])
    }

    /// Compares them with what was chosen for the KV cache.
    pub fn check_cache(&self, element: Element, block_size: u32) -> Result<(), Refusal> {
        let mut missing = Vec::new();
        if !self.kv_elements.contains(&element) {
            missing.push(format!("a KV cache in {element:?}"));
        }
        let step = self.block_step;
        if block_size == 0 || !block_size.is_multiple_of(step) {
            missing.push(format!(
                "KV blocks of {block_size} positions, but multiples of {step}"
            ));
        }
        self.refusal(missing)
    }

    /// Compares them with a wish for a draft head.
    pub fn check_draft_head(&self) -> Result<(), Refusal> {
        match self.draft_heads {
            true => Ok(()),
            false => self.refusal(vec!["draft heads".to_owned()]),
        }
    }

    fn refusal(&self, missing: Vec<String>) -> Result<(), Refusal> {
        match missing.is_empty() {
            true => Ok(()),
            false => Err(Refusal {
                device: self.device,
                missing,
            }),
        }
    }
}

/// What a backend does not compute, and all reasons in one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    device: &'static str,
    missing: Vec<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = listed(&self.missing, "and");
        write!(formatter, "{} has no kernels for {missing}", self.device)
    }
}

impl std::error::Error for Refusal {}

/// `a, b and c`.
fn listed(items: &[impl fmt::Display], last: &str) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    match items.split_last() {
        Some((end, [])) => end.clone(),
        Some((end, rest)) => format!("{} {last} {end}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: AttentionShape = AttentionShape {
        heads: 16,
        kv_heads: 2,
        head_dim: 64,
        scale: 0.125,
    };

    fn small() -> Abilities {
        Abilities {
            features: &[Feature::RouterBias],
            head_dims: Some(&[32, 64]),
            query_group: 8,
            sizes: Sizes {
                norm_columns: 1024,
                experts: 8,
                experts_per_token: 2,
                vocabulary: 1000,
            },
            weights: Some(WeightAbilities {
                matrices: &[WeightFormat::Numbers(Element::BF16)],
                experts: &[
                    WeightFormat::Numbers(Element::BF16),
                    WeightFormat::Numbers(Element::F8E4M3),
                ],
            }),
            kv_elements: &[Element::BF16],
            block_step: 16,
            draft_heads: false,
            ..Abilities::all("the card")
        }
    }

    fn needs() -> Needs {
        Needs {
            features: vec![Feature::RouterBias],
            attention: vec![SHAPE],
            sizes: small().sizes,
        }
    }

    fn refused(needs: &Needs) -> String {
        small().check(needs).expect_err("too much").to_string()
    }

    #[test]
    fn what_is_just_possible_is_possible() {
        assert_eq!(small().check(&needs()), Ok(()));
        assert_eq!(small().check_cache(Element::BF16, 48), Ok(()));
    }

    #[test]
    fn all_reasons_stand_in_one_sentence() {
        let mut needs = needs();
        needs.features = Feature::ALL[..3].to_vec();
        needs.sizes.experts = 9;
        assert_eq!(
            refused(&needs),
            "the card has no kernels for latent attention, sparse attention, attention sinks and \
             layers of 9 experts, but at most 8"
        );
        assert_eq!(Abilities::all("the processor").check(&needs), Ok(()));
    }

    #[test]
    fn attention_is_refused_by_its_heads() {
        for (shape, reason) in [
            (
                AttentionShape {
                    head_dim: 48,
                    ..SHAPE
                },
                "heads of 48 elements, but 32 or 64",
            ),
            (
                AttentionShape {
                    kv_heads: 1,
                    ..SHAPE
                },
                "16 query heads for each",
            ),
            (
                AttentionShape {
                    scale: -1.0,
                    ..SHAPE
                },
                "a factor of -1",
            ),
        ] {
            let mut needs = needs();
            needs.attention.push(shape);
            let text = refused(&needs);
            assert!(text.contains(reason), "{text}");
        }
    }

    #[test]
    fn a_draft_head_is_refused_by_those_who_have_none() {
        let text = small().check_draft_head().expect_err("none").to_string();
        assert_eq!(text, "the card has no kernels for draft heads");
        assert_eq!(Abilities::all("the processor").check_draft_head(), Ok(()));
    }

    #[test]
    fn weights_are_refused_by_the_format_of_one() {
        let check = |weight_use, element: Element| {
            small().check_weights(weight_use, element.into(), || {
                format!("a.weight in {element:?}")
            })
        };
        assert_eq!(check(WeightUse::Experts, Element::F8E4M3), Ok(()));
        assert_eq!(
            check(WeightUse::Matrix, Element::F8E4M3)
                .expect_err("experts only")
                .to_string(),
            "the card has no kernels for a.weight in F8E4M3, but for matrices in BF16 and experts \
             in BF16 or F8E4M3"
        );
    }

    #[test]
    fn a_cache_is_refused_by_its_numbers_and_blocks() {
        let refused = small().check_cache(Element::F32, 24).expect_err("both");
        assert_eq!(
            refused.to_string(),
            "the card has no kernels for a KV cache in F32 and KV blocks of 24 positions, but \
             multiples of 16"
        );
    }
}
