//! The choice of experts, by sorting scores.

use backstop_kernels::{RouterGroups, RouterRule, RouterScoring};
use candle_core::{D, DType, Result, Tensor};
use candle_nn::ops::{sigmoid, softmax_last_dim};

/// Chosen experts and their weights for each token.
#[derive(Clone, Debug)]
pub struct CandleRouting {
    /// Experts per token.
    pub(crate) top_k: usize,
    /// `[tokens, top_k]`, best first.
    pub(crate) experts: Tensor,
    /// `[tokens, top_k]`.
    pub(crate) weights: Tensor,
}

impl CandleRouting {
    /// From logits `[tokens, experts]`; `correction` (`[experts]`) is added to the scores when experts are chosen.
    pub(crate) fn choose(
        logits: &Tensor,
        correction: Option<&Tensor>,
        rule: RouterRule,
    ) -> Result<Self> {
        let scores = match rule.scoring {
            RouterScoring::Sigmoid => sigmoid(logits)?,
            RouterScoring::Softmax => softmax_last_dim(logits)?,
        };
        // Among large ones, rounding makes ties of scores that logits do not have.
        let mut keys = match (correction, rule.groups) {
            (None, None) => logits.clone(),
            (None, Some(_)) => scores.clone(),
            (Some(correction), _) => scores.broadcast_add(correction)?,
        };
        if let Some(groups) = rule.groups.filter(|groups| groups.count > 1) {
            keys = within_groups(&keys, groups)?;
        }
        let top_k = rule.top_k as usize;
        let experts = best(&keys, top_k)?;
        let mut weights = scores.gather(&experts, D::Minus1)?;
        if rule.renormalise {
            weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        }
        if rule.factor != 1.0 {
            weights = (weights * f64::from(rule.factor))?;
        }
        Ok(Self {
            top_k,
            experts,
            weights,
        })
    }

    /// For each expert that has tokens, its places in `experts`, flattened.
    pub(crate) fn slots_by_expert(&self, num_experts: usize) -> Result<Vec<(usize, Vec<u32>)>> {
        let chosen: Vec<u32> = self.experts.flatten_all()?.to_vec1()?;
        let mut slots = vec![Vec::new(); num_experts];
        for (slot, expert) in (0..).zip(chosen) {
            slots[expert as usize].push(slot);
        }
        let slots = slots.into_iter().enumerate();
        Ok(slots.filter(|(_, slots)| !slots.is_empty()).collect())
    }
}

/// Indices of the largest in each row, largest first.
fn best(keys: &Tensor, count: usize) -> Result<Tensor> {
    let order = keys.contiguous()?.arg_sort_last_dim(false)?;
    order.narrow(D::Minus1, 0, count)?.contiguous()
}

/// The keys with nothing in groups that are not among the best; a group is as good as its two best together.
fn within_groups(keys: &Tensor, groups: RouterGroups) -> Result<Tensor> {
    let (tokens, experts) = keys.dims2()?;
    let count = groups.count as usize;
    let keys = keys.reshape((tokens, count, experts / count))?;
    let two = best(&keys, 2)?;
    let scores = keys.gather(&two, D::Minus1)?.sum(D::Minus1)?;
    let chosen = best(&scores, groups.chosen as usize)?;
    let ones = chosen.ones_like()?.to_dtype(DType::F32)?;
    let chosen = scores
        .zeros_like()?
        .scatter_add(&chosen, &ones, D::Minus1)?;
    let chosen = chosen.unsqueeze(D::Minus1)?.broadcast_as(keys.shape())?;
    let nothing = Tensor::full(f32::NEG_INFINITY, keys.shape(), keys.device())?;
    let keys = chosen.gt(0.0)?.where_cond(&keys, &nothing)?;
    keys.reshape((tokens, experts))
}
