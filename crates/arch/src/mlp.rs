//! Feed-forward blocks: one gated MLP, or experts with or without shared ones.

use backstop_kernels::backend::{
    Backend, ExpertsId, GatedActivation, MatrixId, RouterRule, RouterScoring, RouterWeights,
};

use crate::{ExpertsRequest, WeightMap};

/// The weights of a layer's feed-forward block.
#[derive(Debug)]
pub(crate) enum Mlp {
    Dense {
        gate_up: MatrixId,
        down: MatrixId,
    },
    Sparse {
        router: RouterWeights,
        rule: RouterRule,
        experts: ExpertsId,
        activation: GatedActivation,
        shared: Option<Shared>,
    },
}

/// Experts that every token passes through. Their sum with the routed ones is multiplied by
/// `scale`: 1 to sum, 1/2 to average.
#[derive(Debug)]
pub(crate) struct Shared {
    gate_up: MatrixId,
    down: MatrixId,
    scale: f32,
}

/// The experts of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SparsePlan {
    pub(crate) num_experts: usize,
    pub(crate) width: usize,
    pub(crate) rule: RouterRule,
    pub(crate) router: RouterNames,
    pub(crate) activation: GatedActivation,
    /// Checkpoints store gate and up rows in turns; see [`ExpertsRequest`].
    pub(crate) alternating: bool,
    /// Names of an expert's gate, up and down projections.
    pub(crate) projections: [&'static str; 3],
    /// Width of the shared experts together, and the factor on the sum.
    pub(crate) shared: Option<(usize, f32)>,
}

impl SparsePlan {
    /// Routed experts with SwiGLU and the usual names, alone.
    pub(crate) fn new(num_experts: usize, width: usize, rule: RouterRule) -> Self {
        Self {
            num_experts,
            width,
            rule,
            router: RouterNames::Plain,
            activation: GatedActivation::Swiglu,
            alternating: false,
            projections: ["gate_proj", "up_proj", "down_proj"],
            shared: None,
        }
    }
}

/// The softmax over all experts; of the chosen ones' shares, renormalised or not.
pub(crate) fn softmax_rule(top_k: u32, renormalise: bool) -> RouterRule {
    RouterRule {
        top_k,
        scoring: RouterScoring::Softmax,
        renormalise,
        factor: 1.0,
        groups: None,
    }
}

/// What checkpoints have of a router, and under which name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouterNames {
    /// `gate`.
    Plain,
    /// `gate`, whose scores are corrected when experts are chosen.
    Corrected,
    /// `router`, whose logits have a bias.
    Biased,
}

impl Mlp {
    /// One gated MLP at `prefix`.
    pub(crate) fn dense(
        weights: &mut WeightMap,
        prefix: &str,
        hidden: usize,
        width: usize,
    ) -> Self {
        let (gate_up, down) = gated(weights, prefix, hidden, width);
        Self::Dense { gate_up, down }
    }

    /// The same where gate and up are one tensor.
    pub(crate) fn dense_fused(
        weights: &mut WeightMap,
        prefix: &str,
        hidden: usize,
        width: usize,
    ) -> Self {
        let gate_up = weights.fused_gate_up(format!("{prefix}.gate_up_proj.weight"), width, hidden);
        let down = weights.matrix(&[(format!("{prefix}.down_proj.weight"), hidden)], width);
        Self::Dense { gate_up, down }
    }

    /// Experts at `prefix`.
    pub(crate) fn sparse(
        weights: &mut WeightMap,
        prefix: &str,
        hidden: usize,
        plan: SparsePlan,
    ) -> Self {
        let router = router(weights, prefix, hidden, plan);
        let experts = weights.experts(ExpertsRequest {
            prefix: format!("{prefix}.experts"),
            projections: plan.projections,
            alternating: plan.alternating,
            num_experts: plan.num_experts,
            hidden,
            width: plan.width,
        });
        let shared = plan.shared.map(|(width, scale)| {
            let prefix = format!("{prefix}.shared_experts");
            let (gate_up, down) = gated(weights, &prefix, hidden, width);
            Shared {
                gate_up,
                down,
                scale,
            }
        });
        Self::Sparse {
            router,
            rule: plan.rule,
            experts,
            activation: plan.activation,
            shared,
        }
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        backend: &mut B,
        normed: &B::Activation,
    ) -> B::Activation {
        match self {
            Self::Dense { gate_up, down } => backend.gated_mlp(normed, *gate_up, *down),
            Self::Sparse {
                router,
                rule,
                experts,
                activation,
                shared,
            } => {
                let routing = backend.router(normed, *router, *rule);
                let routed = backend.experts(normed, routing, *experts, *activation);
                match shared {
                    None => routed,
                    Some(Shared {
                        gate_up,
                        down,
                        scale,
                    }) => {
                        let shared = backend.gated_mlp(normed, *gate_up, *down);
                        backend.add_scaled(routed, shared, *scale)
                    }
                }
            }
        }
    }
}

fn router(weights: &mut WeightMap, prefix: &str, hidden: usize, plan: SparsePlan) -> RouterWeights {
    let name = match plan.router {
        RouterNames::Plain | RouterNames::Corrected => "gate",
        RouterNames::Biased => "router",
    };
    let gate = weights.router(format!("{prefix}.{name}.weight"), plan.num_experts, hidden);
    let mut vector = |kind: &str| {
        let name = format!("{prefix}.{name}.{kind}");
        weights.bias(&[(name, plan.num_experts)])
    };
    RouterWeights {
        gate,
        bias: (plan.router == RouterNames::Biased).then(|| vector("bias")),
        correction: (plan.router == RouterNames::Corrected)
            .then(|| vector("e_score_correction_bias")),
    }
}

/// A gated MLP's weights: gate and up stacked, and down.
fn gated(
    weights: &mut WeightMap,
    prefix: &str,
    hidden: usize,
    width: usize,
) -> (MatrixId, MatrixId) {
    let name = |projection: &str| format!("{prefix}.{projection}_proj.weight");
    let gate_up = weights.gate_up([name("gate"), name("up")], width, hidden);
    let down = weights.matrix(&[(name("down"), hidden)], width);
    (gate_up, down)
}
