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
    /// `[experts]`: added to the logits.
    pub bias: Option<&'a [f32]>,
    /// `[experts]`: added to the scores when experts are chosen.
    pub correction: Option<&'a [f32]>,
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
    /// The product that the logits are, without the bias.
    pub fn product(&self) -> Product<'_> {
        let (experts, top_k) = (self.gate.rows(), self.rule.top_k as usize);
        let groups = self.rule.groups.map_or((1, 1), |groups| {
            (groups.count as usize, groups.chosen as usize)
        });
        let in_groups =
            groups.0 == 1 || experts.is_multiple_of(groups.0) && experts >= 2 * groups.0;
        assert!(
            in_groups && (1..=groups.0).contains(&groups.1),
            "groups of router"
        );
        let candidates = experts / groups.0 * groups.1;
        assert!((1..=candidates).contains(&top_k), "top_k of router");
        assert!(
            self.correction
                .is_none_or(|numbers| numbers.len() == experts),
            "correction of router"
        );
        assert!(
            self.bias.is_none_or(|numbers| numbers.len() == experts),
            "bias of router"
        );
        Product::new(self.gate, InputRows::all(self.input, self.gate.columns()))
    }

    /// The routing.
    pub fn run(&self, instructions: InstructionSet) -> Routing {
        let product = self.product();
        let mut logits = vec![0.0; product.input.count() * self.gate.rows()];
        product.run(instructions, &mut logits);
        self.add_bias(&mut logits);
        self.choose(&logits)
    }

    /// Adds the bias, if there is one, to each row.
    pub fn add_bias(&self, logits: &mut [f32]) {
        let Some(bias) = self.bias else { return };
        for row in logits.chunks_exact_mut(bias.len()) {
            for (logit, bias) in row.iter_mut().zip(bias) {
                *logit += bias;
            }
        }
    }

    /// What one token's experts are chosen by: corrected scores, and nothing in groups that are not
    /// among the best.
    fn candidates(&self, logits: &[f32]) -> Vec<f32> {
        let mut keys: Vec<f32> = match self.rule.scoring {
            RouterScoring::Sigmoid => logits.iter().map(|&logit| sigmoid(logit)).collect(),
            RouterScoring::Softmax => logits.to_vec(),
        };
        for (key, correction) in keys.iter_mut().zip(self.correction.unwrap_or_default()) {
            *key += correction;
        }
        let Some(groups) = self.rule.groups.filter(|groups| groups.count > 1) else {
            return keys;
        };
        let size = keys.len() / groups.count as usize;
        let scores: Vec<f32> = keys
            .chunks_exact(size)
            .map(|group| {
                let mut best = [(0, 0.0); 2];
                choose_best(group, &mut best);
                best[0].1 + best[1].1
            })
            .collect();
        let mut chosen = vec![(0, 0.0); groups.chosen as usize];
        choose_best(&scores, &mut chosen);
        for (index, group) in (0..).zip(keys.chunks_exact_mut(size)) {
            if !chosen.iter().any(|&(group, _)| group == index) {
                group.fill(f32::NEG_INFINITY);
            }
        }
        keys
    }

    /// From logits `[tokens, experts]` to the choice.
    pub fn choose(&self, logits: &[f32]) -> Routing {
        let (num_experts, top_k) = (self.gate.rows(), self.rule.top_k as usize);
        let tokens = logits.len() / num_experts;
        let mut chosen = vec![(0u32, 0f32); tokens * top_k];
        parallel::for_each_rows(&mut chosen, top_k, logits.len() * 8, |first, chosen| {
            let rows = logits[first * num_experts..].chunks_exact(num_experts);
            for (chosen, logits) in chosen.chunks_exact_mut(top_k).zip(rows) {
                if self.correction.is_none() && self.rule.groups.is_none() {
                    choose_best(logits, chosen);
                } else {
                    choose_best(&self.candidates(logits), chosen);
                    for (expert, key) in chosen.iter_mut() {
                        *key = logits[*expert as usize];
                    }
                }
                weigh(logits, self.rule, chosen);
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

/// The best of one token's experts by a key, with their keys. Logits order experts as the scores do
/// but without the ties that rounding makes among large ones. What is not a number comes last.
fn choose_best(keys: &[f32], chosen: &mut [(u32, f32)]) {
    let mut kept = 0;
    for (expert, &key) in keys.iter().enumerate() {
        let beaten = |&(_, other): &(u32, f32)| key > other || other.is_nan() && !key.is_nan();
        let place = chosen[..kept].iter().position(beaten).unwrap_or(kept);
        if place < chosen.len() {
            kept = (kept + 1).min(chosen.len());
            chosen[place..kept].rotate_right(1);
            chosen[place] = (expert as u32, key);
        }
    }
}

/// Replaces the logits of the chosen experts by their weights.
fn weigh(logits: &[f32], rule: RouterRule, chosen: &mut [(u32, f32)]) {
    match rule.scoring {
        RouterScoring::Sigmoid => {
            for (_, value) in chosen.iter_mut() {
                *value = sigmoid(*value);
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
    if rule.factor != 1.0 {
        chosen
            .iter_mut()
            .for_each(|(_, score)| *score *= rule.factor);
    }
}

fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::random_values;

    fn choose(logits: &[f32], top_k: u32, scoring: RouterScoring) -> Vec<(u32, f32)> {
        let mut chosen = vec![(0, 0.0); top_k as usize];
        let rule = RouterRule {
            top_k,
            scoring,
            renormalise: false,
            factor: 1.0,
            groups: None,
        };
        choose_best(logits, &mut chosen);
        weigh(logits, rule, &mut chosen);
        chosen
    }

    #[test]
    fn ties_go_to_the_smaller_index() {
        let logits = [1.0, 2.0, 2.0, -1.0, 2.0, 1.0];
        let chosen = choose(&logits, 5, RouterScoring::Sigmoid);
        assert_eq!(
            chosen.iter().map(|&(expert, _)| expert).collect::<Vec<_>>(),
            [1, 2, 4, 0, 5]
        );
    }

    #[test]
    fn all_experts_share_one_under_softmax() {
        let logits = random_values(3, 64, 5.0);
        let chosen = choose(&logits, 64, RouterScoring::Softmax);
        let sum: f32 = chosen.iter().map(|&(_, weight)| weight).sum();
        assert!((sum - 1.0).abs() < 1e-5);
        assert!(chosen.windows(2).all(|pair| pair[0].1 >= pair[1].1));
    }

    #[test]
    fn a_logit_that_is_no_number_comes_last() {
        let chosen = choose(&[f32::NAN, -3.0, f32::NAN, 1.0], 3, RouterScoring::Sigmoid);
        assert_eq!(
            chosen.iter().map(|&(expert, _)| expert).collect::<Vec<_>>(),
            [3, 1, 0]
        );
        assert!(chosen[2].1.is_nan());
    }
}
