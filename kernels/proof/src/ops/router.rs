//! Choice of experts: logits, scores, the best few.

mod device;

use std::sync::Arc;

use backstop_card::Device;
use backstop_kernels::backend::{RouterGroups, RouterRule, RouterScoring};
use backstop_kernels::ops::router::{RouterArgs, Routing};
use backstop_kernels::random::random_values;
use backstop_kernels::{CpuMatrix, Element, InstructionSet};

use crate::catalog::{Case, CaseSpec, Cost, DeviceResult, Tolerance};
use crate::product;
use crate::weights::random_matrix;

/// Naive routing.
pub fn reference(args: &RouterArgs<'_>) -> Routing {
    let product = args.product();
    let mut logits = vec![0.0; product.input.count() * args.gate.rows()];
    product::reference(&product, &mut logits);
    args.add_bias(&mut logits);
    args.choose(&logits)
}

/// Experts, then weights, of each token.
fn side_by_side(routing: &Routing) -> Vec<f32> {
    let experts = routing.experts.chunks(routing.top_k);
    let rows = experts.zip(routing.weights.chunks(routing.top_k));
    rows.flat_map(|(experts, weights)| {
        let experts = experts.iter().map(|&expert| expert as f32);
        experts.chain(weights.iter().copied())
    })
    .collect()
}

struct RouterCase {
    input: Vec<f32>,
    gate: CpuMatrix,
    bias: Option<Vec<f32>>,
    correction: Option<Vec<f32>>,
    rule: RouterRule,
}

impl RouterCase {
    fn args<'a>(&'a self, input: &'a [f32]) -> RouterArgs<'a> {
        RouterArgs {
            input,
            gate: self.gate.view(),
            bias: self.bias.as_deref(),
            correction: self.correction.as_deref(),
            rule: self.rule,
        }
    }

    /// Logits of all tokens.
    fn logits(&self) -> Vec<f32> {
        let args = self.args(&self.input);
        let product = args.product();
        let mut logits = vec![0.0; product.input.count() * self.gate.rows()];
        product::reference(&product, &mut logits);
        logits
    }

    /// The choice from logits of all tokens.
    fn choose(&self, logits: &[f32]) -> Routing {
        self.args(&self.input).choose(logits)
    }

    /// Experts, then weights, of each token.
    fn run(&self, input: &[f32], run: impl FnOnce(&RouterArgs<'_>) -> Routing) -> Vec<f32> {
        side_by_side(&run(&self.args(input)))
    }
}

impl Case for RouterCase {
    fn rows(&self) -> usize {
        self.input.len() / self.gate.columns()
    }

    fn reference(&self) -> Vec<f32> {
        self.run(&self.input, reference)
    }

    fn cpu(&self, instructions: InstructionSet) -> Vec<f32> {
        self.run(&self.input, |args| args.run(instructions))
    }

    fn cpu_row(&self, instructions: InstructionSet, row: usize) -> Vec<f32> {
        let columns = self.gate.columns();
        let input = &self.input[row * columns..][..columns];
        self.run(input, |args| args.run(instructions))
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::of(Element::F32)
    }

    fn cost(&self) -> Cost {
        let weights = self.gate.rows() * self.gate.columns();
        let bytes = weights * self.gate.view().element().bytes();
        Cost {
            multiply_adds: weights * self.rows(),
            bytes,
        }
    }

    fn device<'a>(&'a self, device: &'a Arc<dyn Device>) -> Option<DeviceResult<'a>> {
        let plain = self.bias.is_none() && self.correction.is_none() && self.rule.groups.is_none();
        plain.then(|| device::device(self, device))
    }
}

/// Experts, experts per token, hidden size and number of tokens.
pub fn cases() -> Vec<CaseSpec> {
    let shapes = [
        (1, 1, 1, 1),
        (5, 5, 3, 2),
        (7, 2, 16, 0),
        (128, 8, 2048, 67),
    ];
    let mut cases = Vec::new();
    for (experts, top_k, hidden, tokens) in shapes {
        for scoring in [RouterScoring::Sigmoid, RouterScoring::Softmax] {
            for renormalise in [false, true] {
                let rule = RouterRule {
                    top_k,
                    scoring,
                    renormalise,
                    factor: 1.0,
                    groups: None,
                };
                cases.push(case([experts, hidden, tokens], rule));
            }
        }
    }
    // With a correction, too; the last is DeepSeek-V3's.
    for (experts, top_k, count, chosen) in [(6, 2, 1, 1), (8, 3, 4, 2), (256, 8, 8, 4)] {
        let rule = RouterRule {
            top_k,
            scoring: RouterScoring::Sigmoid,
            renormalise: true,
            factor: 2.5,
            groups: Some(RouterGroups { count, chosen }),
        };
        cases.push(case([experts, 64, 9], rule));
    }
    // gpt-oss's.
    let rule = RouterRule {
        top_k: 4,
        scoring: RouterScoring::Softmax,
        renormalise: true,
        factor: 1.0,
        groups: None,
    };
    cases.push(CaseSpec::new("[32, 64], biased, 9 tokens", move || {
        RouterCase {
            bias: Some(random_values(4, 32, 2.0)),
            ..random_case([32, 64, 9], rule)
        }
    }));
    for tokens in [1, 8, 64, 256, 8192] {
        let rule = RouterRule {
            top_k: 8,
            scoring: RouterScoring::Sigmoid,
            renormalise: false,
            factor: 1.0,
            groups: None,
        };
        cases.push(case([128, 2048, tokens], rule).only_for_benchmarks());
    }
    cases
}

fn case([experts, hidden, tokens]: [usize; 3], rule: RouterRule) -> CaseSpec {
    let label = format!("[{experts}, {hidden}], {tokens} tokens, {rule:?}");
    CaseSpec::new(label, move || random_case([experts, hidden, tokens], rule))
}

fn random_case([experts, hidden, tokens]: [usize; 3], rule: RouterRule) -> RouterCase {
    RouterCase {
        input: random_values(1, tokens * hidden, 1.0),
        gate: random_matrix(2, experts, hidden, Element::BF16),
        bias: None,
        correction: rule.groups.map(|_| random_values(3, experts, 0.1)),
        rule,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrections_choose_and_do_not_weigh_and_groups_leave_experts_out() {
        // Of pairs of experts the last is best, and the first by its correction.
        let gate = CpuMatrix::from_f32(6, 1, &[0.0, 0.0, 1.0, 1.5, 2.0, 3.0]);
        let args = |correction, chosen| RouterArgs {
            input: &[1.0],
            gate: gate.view(),
            bias: None,
            correction,
            rule: RouterRule {
                top_k: 2,
                scoring: RouterScoring::Sigmoid,
                renormalise: false,
                factor: 3.0,
                groups: Some(RouterGroups { count: 3, chosen }),
            },
        };
        let correction = [0.9, 0.8, 0.0, 0.0, 0.0, 0.0];
        for (correction, chosen, expected) in [
            (None, 1, [5, 4]),
            (Some(correction.as_slice()), 1, [0, 1]),
            (Some(correction.as_slice()), 2, [0, 1]),
        ] {
            let args = args(correction, chosen);
            for routing in [reference(&args), args.run(InstructionSet::detect())] {
                assert_eq!(routing.experts, expected);
                for (&expert, weight) in routing.experts.iter().zip(&routing.weights) {
                    let logit = gate.view().read(expert as usize, 0);
                    let score = 1.0 / (1.0 + (-logit).exp());
                    assert!((weight - 3.0 * score).abs() < 1e-6);
                }
            }
        }
    }
}
