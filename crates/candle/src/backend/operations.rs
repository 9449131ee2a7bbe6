//! [`Backend`] for candle.

use backstop_kernels::backend::NoSelection;
use backstop_kernels::{
    AttentionShape, Backend, ExpertsId, GatedActivation, KvLayer, LatentShape, LatentWeights,
    MatrixId, Norm, QueryKeyNorm, QueryKeyTransform, Residual, RouterRule, RouterWeights, VectorId,
};
use candle_core::{Result, Tensor};
use candle_nn::ops::{layer_norm, rms_norm};

use super::{CandleActivation, CandleBackend};
use crate::attention::attend;
use crate::experts::activate;
use crate::latent;
use crate::router::CandleRouting;

impl CandleBackend {
    fn normed(&self, hidden: &Tensor, weight: VectorId, norm: Norm) -> Result<Tensor> {
        let gain = self.weights.vector(weight);
        match norm {
            Norm::Rms { epsilon } => rms_norm(hidden, gain, epsilon),
            Norm::LayerWithoutBias { epsilon } => {
                layer_norm(hidden, gain, &gain.zeros_like()?, epsilon)
            }
        }
    }

    fn product(&self, input: &Tensor, weight: MatrixId, bias: Option<VectorId>) -> Result<Tensor> {
        let output = self.weights.matrix(weight).product(input)?;
        match bias {
            Some(bias) => output.broadcast_add(self.weights.vector(bias)),
            None => Ok(output),
        }
    }

    /// Queries and keys of `qkv`, each `[rows, heads, head_dim]`, and values, all transformed.
    fn heads(
        &mut self,
        qkv: &Tensor,
        shape: AttentionShape,
        transform: QueryKeyTransform,
    ) -> Result<[Tensor; 3]> {
        let (rows, head_dim) = (qkv.dim(0)?, shape.head_dim as usize);
        let (heads, kv_heads) = (shape.heads as usize, shape.kv_heads as usize);
        let part = |first: usize, count: usize| {
            let part = qkv.narrow(1, first * head_dim, count * head_dim)?;
            part.reshape((rows, count, head_dim))?.contiguous()
        };
        let mut queries = part(0, heads)?;
        let mut keys = part(heads, kv_heads)?;
        let values = part(heads + kv_heads, kv_heads)?;
        if let Some(QueryKeyNorm {
            query,
            key,
            epsilon,
        }) = transform.norm
        {
            queries = rms_norm(&queries, self.weights.vector(query), epsilon)?;
            keys = rms_norm(&keys, self.weights.vector(key), epsilon)?;
        }
        if let Some(rope) = transform.rope {
            let device = self.weights.device().clone();
            let step = self.step.as_mut().expect("a step has begun");
            let rotation = step.rotation(rope, &device)?;
            queries = rotation.rotate(&queries)?;
            keys = rotation.rotate(&keys)?;
        }
        Ok([queries, keys, values])
    }

    /// The weights between latents and heads, `[heads, content_dim + value_dim, rank]`.
    fn latent_weights(&self, weights: LatentWeights, shape: LatentShape) -> Result<Tensor> {
        latent::weights_by_head(&self.weights.matrix(weights.up).numbers()?, shape)
    }
}

impl Backend for CandleBackend {
    type Activation = CandleActivation;
    type Routing = Option<CandleRouting>;
    type Selection = NoSelection;

    fn embed(&mut self, table: MatrixId) -> CandleActivation {
        self.activation(|this| this.weights.matrix(table).rows(&this.step().tokens))
    }

    fn norm(
        &mut self,
        hidden: &CandleActivation,
        weight: VectorId,
        norm: Norm,
    ) -> CandleActivation {
        self.activation(|this| this.normed(hidden.tensor(), weight, norm))
    }

    fn add_norm(
        &mut self,
        hidden: &mut CandleActivation,
        addends: [Option<CandleActivation>; 2],
        weight: VectorId,
        norm: Norm,
    ) -> CandleActivation {
        self.activation(|this| {
            let mut sum = hidden.tensor().clone();
            for addend in addends.iter().flatten() {
                sum = (sum + addend.tensor())?;
            }
            *hidden = sum.clone().into();
            if let Some(residuals) = &mut this.residuals {
                let values = sum.flatten_all()?.to_vec1()?;
                let before = weight;
                residuals.push(Residual { before, values });
            }
            this.normed(&sum, weight, norm)
        })
    }

    fn linear(
        &mut self,
        input: &CandleActivation,
        weight: MatrixId,
        bias: Option<VectorId>,
    ) -> CandleActivation {
        self.activation(|this| this.product(input.tensor(), weight, bias))
    }

    fn rope_and_cache(
        &mut self,
        qkv: &mut CandleActivation,
        shape: AttentionShape,
        transform: QueryKeyTransform,
        layer: KvLayer,
    ) {
        self.run(|this| {
            let [queries, keys, values] = this.heads(qkv.tensor(), shape, transform)?;
            let rows = queries.dim(0)?;
            let cached = Tensor::cat(&[keys, values], 1)?.reshape((rows, ()))?;
            let cache = this.cache.layer(layer);
            let group = &this.step().groups[layer.group as usize];
            let cached = cached.to_dtype(cache.dtype())?;
            cache.scatter_set(&group.written, &cached, 0)?;
            // Attention reads queries alone.
            *qkv = queries.reshape((rows, ()))?.into();
            Ok(())
        });
    }

    fn paged_attention(
        &mut self,
        qkv: &CandleActivation,
        shape: AttentionShape,
        sinks: Option<VectorId>,
        layer: KvLayer,
    ) -> CandleActivation {
        self.activation(|this| {
            let pieces = &this.step().groups[layer.group as usize].pieces;
            let sinks = sinks.map(|id| this.weights.vector(id));
            let cache = this.cache.layer(layer);
            attend(pieces, qkv.tensor(), cache, shape, sinks)
        })
    }

    fn router(
        &mut self,
        input: &CandleActivation,
        weights: RouterWeights,
        rule: RouterRule,
    ) -> Option<CandleRouting> {
        self.run(|this| {
            // A choice that rounding to a GPU's numbers would change costs a whole expert.
            let gate = this.weights.matrix(weights.gate).numbers()?;
            let mut logits = input.tensor().matmul(&gate.t()?)?;
            if let Some(bias) = weights.bias {
                logits = logits.broadcast_add(this.weights.vector(bias))?;
            }
            let correction = weights.correction.map(|id| this.weights.vector(id));
            CandleRouting::choose(&logits, correction, rule)
        })
    }

    fn experts(
        &mut self,
        input: &CandleActivation,
        routing: Option<CandleRouting>,
        experts: ExpertsId,
        activation: GatedActivation,
    ) -> CandleActivation {
        self.activation(|this| {
            let routing = routing.expect("a routing of a step without failure");
            let experts = this.weights.layer_experts(experts);
            experts.compute(input.tensor(), &routing, activation)
        })
    }

    fn gated_mlp(
        &mut self,
        input: &CandleActivation,
        gate_up: MatrixId,
        down: MatrixId,
    ) -> CandleActivation {
        self.activation(|this| {
            let gated = this.product(input.tensor(), gate_up, None)?;
            let inner = activate(&gated, GatedActivation::Swiglu)?;
            this.product(&inner, down, None)
        })
    }

    fn add_scaled(
        &mut self,
        a: CandleActivation,
        b: CandleActivation,
        scale: f32,
    ) -> CandleActivation {
        self.activation(|_| (a.tensor() + b.tensor())? * f64::from(scale))
    }

    fn head(&mut self, input: &CandleActivation, head: MatrixId, scale: f32) {
        let logits = self.run(|this| {
            let Some(rows) = &this.step().logit_rows else {
                return Ok(None);
            };
            let input = input.tensor().index_select(rows, 0)?;
            let logits = this.product(&input, head, None)?;
            Ok(Some((logits * f64::from(scale))?))
        });
        self.logits = logits.flatten();
    }

    fn latent_input(
        &mut self,
        queries: &CandleActivation,
        latents: &CandleActivation,
        weights: LatentWeights,
        shape: LatentShape,
    ) -> CandleActivation {
        self.activation(|this| {
            let by_head = this.latent_weights(weights, shape)?;
            let gain = (this.weights.vector(weights.gain), weights.epsilon);
            latent::input(queries.tensor(), latents.tensor(), &by_head, gain, shape)
        })
    }

    fn latent_output(
        &mut self,
        attended: &CandleActivation,
        weights: LatentWeights,
        shape: LatentShape,
    ) -> CandleActivation {
        self.activation(|this| {
            let by_head = this.latent_weights(weights, shape)?;
            latent::output(attended.tensor(), &by_head, shape)
        })
    }
}
