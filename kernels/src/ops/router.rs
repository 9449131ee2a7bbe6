//! Choice of experts: logits, scores, the best few.

use crate::backend::{RouterRule, RouterScoring};
use crate::features::InstructionSet;
use crate::gemm::{InputRows, Product, WeightView};
use crate::parallel;

/// Arguments.
#[derive(Clone, Copy, Debug)]
pub struct RouterArgs<'a> {
    /// `[tokens, hidden]`.
    pub input: &'a [f32],
    /// `[experts, hidden]`.
    pub gate: WeightView<'a>,
    /// How logits become weights.
    pub rule: RouterRule,
}

/// Chosen experts of each token, best first, `[tokens, top_k]` each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routing {
    /// Experts per token.
    pub top_k: usize,
    /// Chosen experts.
    pub experts: Vec<u32>,
    /// Their weights.
    pub weights: Vec<f32>,
}

impl RouterArgs<'_> {
    fn product(&self) -> Product<'_> {
        let top_k = self.rule.top_k as usize;
        assert!((1..=self.gate.rows()).contains(&top_k), "top_k of router");
        Product::new(self.gate, InputRows::all(self.input, self.gate.columns()))
    }

    /// Naive routing.
    pub fn reference(&self) -> Routing {
        let product = self.product();
        let mut logits = vec![0.0; product.input.len() * self.gate.rows()];
        product.reference(&mut logits);
        self.choose(&logits)
    }

    /// The routing.
    pub fn run(&self, instructions: InstructionSet) -> Routing {
        let product = self.product();
        let mut logits = vec![0.0; product.input.len() * self.gate.rows()];
        product.run(instructions, &mut logits);
        self.choose(&logits)
    }

    /// From logits `[tokens, experts]` to the choice.
    fn choose(&self, logits: &[f32]) -> Routing {
        let (num_experts, top_k) = (self.gate.rows(), self.rule.top_k as usize);
        let tokens = logits.len() / num_experts;
        let mut chosen = vec![(0u32, 0f32); tokens * top_k];
        parallel::for_each_rows(&mut chosen, top_k, logits.len() * 8, |first, chosen| {
            let rows = logits[first * num_experts..].chunks_exact(num_experts);
            for (chosen, logits) in chosen.chunks_exact_mut(top_k).zip(rows) {
                choose_row(logits, self.rule, chosen);
            }
        });
        let (experts, weights) = chosen.into_iter().unzip();
        Routing {
            top_k,
            experts,
            weights,
        }
    }
}

/// The best of one token's experts by logit, which orders them as the scores do but without the
/// ties that rounding makes among large ones. A logit that is not a number comes last.
fn choose_row(logits: &[f32], rule: RouterRule, chosen: &mut [(u32, f32)]) {
    let mut kept = 0;
    for (expert, &logit) in logits.iter().enumerate() {
        let beaten = |&(_, other): &(u32, f32)| logit > other || other.is_nan() && !logit.is_nan();
        let place = chosen[..kept].iter().position(beaten).unwrap_or(kept);
        if place < chosen.len() {
            kept = (kept + 1).min(chosen.len());
            chosen[place..kept].rotate_right(1);
            chosen[place] = (expert as u32, logit);
        }
    }
    match rule.scoring {
        RouterScoring::Sigmoid => {
            for (_, value) in chosen.iter_mut() {
                *value = 1.0 / (1.0 + (-*value).exp());
            }
        }
        RouterScoring::Softmax => {
            let largest = chosen[0].1;
            let sum: f32 = logits.iter().map(|logit| (logit - largest).exp()).sum();
            for (_, value) in chosen.iter_mut() {
                *value = (*value - largest).exp() / sum;
            }
        }
    }
    if rule.renormalise {
        let sum: f32 = chosen.iter().map(|&(_, score)| score).sum();
        chosen.iter_mut().for_each(|(_, score)| *score /= sum);
    }
}
