//! Parallel blocks with one norm, as Cohere's models have them:
//! `h = h + attention(norm(h)) + mlp(norm(h))`.

use backstop_kernels::backend::{Backend, Norm, VectorId};

use crate::WeightMap;
use crate::attention::Attention;
use crate::mlp::Mlp;

/// One layer.
#[derive(Debug)]
pub(crate) struct ParallelBlock {
    norm: VectorId,
    attention: Attention,
    mlp: Mlp,
}

impl ParallelBlock {
    /// A layer at `prefix`; `branches` names the weights of attention and MLP, at their prefixes.
    pub(crate) fn new(
        weights: &mut WeightMap,
        prefix: &str,
        hidden: usize,
        branches: impl FnOnce(&mut WeightMap, [&str; 2]) -> (Attention, Mlp),
    ) -> Self {
        let norm = weights.vector(format!("{prefix}.input_layernorm.weight"), hidden);
        let prefixes = [format!("{prefix}.self_attn"), format!("{prefix}.mlp")];
        let (attention, mlp) = branches(weights, [&prefixes[0], &prefixes[1]]);
        Self {
            norm,
            attention,
            mlp,
        }
    }
}

/// Computes all layers, at least one, and the final norm.
pub(crate) fn forward<B: Backend>(
    backend: &mut B,
    mut hidden: B::Activation,
    layers: &[ParallelBlock],
    norm: Norm,
    last: (VectorId, Norm),
) -> B::Activation {
    let mut normed = backend.norm(&hidden, layers[0].norm, norm);
    for (index, layer) in layers.iter().enumerate() {
        let attention = layer.attention.forward(backend, &normed, &mut None);
        let mlp = layer.mlp.forward(backend, &normed);
        let next = layers.get(index + 1);
        let (gain, norm) = next.map_or(last, |next| (next.norm, norm));
        normed = backend.add_norm(&mut hidden, [Some(attention), Some(mlp)], gain, norm);
    }
    normed
}
